"""Training on rows in memory in one call, for applications that know no trainer."""

import logging

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from latent_ebm.data.base import TensorSet, collate
from latent_ebm.learning.base import LearningRule

CHECK_EVERY = 100  # steps between two looks at the rows held out


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

    Batches are drawn with replacement. The last tenth of the rows is held out; training stops when the figure ``monitor``
    that the rule logs on it, as "val/joint", has not fallen for ``patience`` checks. ``progress`` shows Lightning's bar. Uses
    the global random state.
    """
    cut = len(x) - max(2, len(x) // 10)
    batch_size = min(batch_size, cut)
    draws = RandomSampler(range(cut), replacement=True, num_samples=min(CHECK_EVERY, max_steps) * batch_size)
    train = DataLoader(TensorSet(x[:cut]), batch_size, sampler=draws, collate_fn=collate)
    held_out = DataLoader(TensorSet(x[cut:]), 1000, collate_fn=collate)
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO if progress else logging.ERROR)
    Trainer(
        accelerator="cpu",
        max_epochs=-1,
        max_steps=max_steps,
        callbacks=[EarlyStopping(monitor, patience=patience, mode="min")],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        inference_mode=False,
    ).fit(rule, train, held_out)
