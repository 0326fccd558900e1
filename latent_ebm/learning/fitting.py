"""Training on rows in memory in one call, for applications that know no trainer."""

import logging
import math

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor
from torch.utils.data import DataLoader

from latent_ebm.data.base import TensorSet, collate
from latent_ebm.learning.base import LearningRule

CHECK_EVERY = 100  # steps, at least, between two looks at the rows held out


def fit_rows(
    rule: LearningRule,
    x: Tensor,
    max_steps: int,
    monitor: str,
    *,
    batch_size: int = 256,
    patience: int = 3,
    progress: bool = False,
) -> None:
    """Train ``rule`` on rows ``x`` (n >= 4, \\*event) for at most ``max_steps`` steps, in place, on the CPU.

    The last tenth of the rows is held out; training stops when the figure ``monitor`` that the rule logs on it, as
    "val/joint", has not fallen for ``patience`` checks. ``progress`` shows Lightning's bar. Uses the global random state.
    """
    cut = len(x) - max(2, len(x) // 10)
    train = DataLoader(TensorSet(x[:cut]), min(batch_size, cut), shuffle=True, drop_last=True, collate_fn=collate)
    held_out = DataLoader(TensorSet(x[cut:]), 1000, collate_fn=collate)
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO if progress else logging.ERROR)
    Trainer(
        accelerator="cpu",
        max_epochs=-1,
        max_steps=max_steps,
        check_val_every_n_epoch=math.ceil(CHECK_EVERY / len(train)),
        callbacks=[EarlyStopping(monitor, patience=patience, mode="min")],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        inference_mode=False,
    ).fit(rule, train, held_out)
