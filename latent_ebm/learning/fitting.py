"""Training on rows in memory in one call, for applications that know no trainer."""

import logging

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor
from torch.utils.data import DataLoader

from latent_ebm.data.base import TensorSet, collate
from latent_ebm.learning.latent import LatentRule


def fit_rows(
    rule: LatentRule, x: Tensor, max_epochs: int, *, batch_size: int = 128, patience: int = 3, progress: bool = False
) -> None:
    """Train ``rule`` on rows ``x`` (n >= 2, \\*event) for at most ``max_epochs`` passes, in place, on the CPU.

    The last tenth of the rows is held out; training stops when its joint energy has not fallen for ``patience`` passes.
    ``progress`` shows Lightning's bar. Uses the global random state.
    """
    cut = len(x) - max(1, len(x) // 10)
    train = DataLoader(TensorSet(x[:cut]), min(batch_size, cut), shuffle=True, drop_last=True, collate_fn=collate)
    held_out = DataLoader(TensorSet(x[cut:]), 500, collate_fn=collate)
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO if progress else logging.ERROR)
    Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        callbacks=[EarlyStopping("val/joint", patience=patience, mode="min")],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        inference_mode=False,
    ).fit(rule, train, held_out)
