"""One call that trains on rows or batches in memory, for code without a trainer of its own."""

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler
from tqdm import tqdm

from latent_ebm.conditions import BatchLike
from latent_ebm.data.base import TensorSet, collate
from latent_ebm.learning.base import LearningRule
from samplers.checks import check_counts

CHECK_EVERY = 100  # steps between two checks on the held-out rows


class Bar(Callback):
    """Shows on stderr how many training steps are done, of ``num_steps`` at most, and what they
    are for.
    """

    def __init__(self, num_steps: int, purpose: str) -> None:
        self.bar = tqdm(total=num_steps, desc=purpose, unit="step")

    def on_train_batch_end(self, *args: object, **kwargs: object) -> None:
        self.bar.update()

    def on_train_end(self, *args: object, **kwargs: object) -> None:
        self.bar.close()


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
    """Train ``rule`` on rows ``x`` (n >= 4, \\*event) for at most ``max_steps`` steps, in place,
    on the CPU.

    Batches are drawn with replacement. The last tenth of the rows is held out. Training stops when
    a metric on these rows has not fallen for ``patience`` checks. Uses the global random state.

    Args:
        rule: The learning rule to train.
        x: The rows.
        max_steps: The largest number of training steps.
        monitor: The name of the metric, as the rule logs it, such as "val/joint".
        batch_size: The number of rows per step.
        patience: The number of checks without progress before training stops; a check is made
            every 100 steps.
        progress: Whether to show how many steps are done, and how long all would take.

    Raises:
        ValueError: For a ``max_steps``, ``batch_size`` or ``patience`` that is not an integer
            >= 1.
    """
    check_counts("fit_rows", max_steps=max_steps, batch_size=batch_size, patience=patience)
    cut = len(x) - max(2, len(x) // 10)
    batch_size = min(batch_size, cut)
    draws = RandomSampler(
        range(cut), replacement=True, num_samples=min(CHECK_EVERY, max_steps) * batch_size
    )
    train = DataLoader(TensorSet(x[:cut]), batch_size, sampler=draws, collate_fn=collate)
    held_out = DataLoader(TensorSet(x[cut:]), 1000, collate_fn=collate)
    stop = EarlyStopping(monitor, patience=patience, mode="min")
    bar = Bar(max_steps, "learning features, fewer steps if that is enough") if progress else None
    with undisturbed(rule):
        make_trainer(max_steps, stop, bar).fit(rule, train, held_out)


def fit_batches(
    rule: LearningRule, batches: Iterable[BatchLike], num_steps: int, purpose: str | None = None
) -> None:
    """Train ``rule`` on the first ``num_steps`` of ``batches``, in place, on its own device.

    Uses the global random state.

    Args:
        rule: The learning rule to train.
        batches: What a loader would yield, without an end or with ``num_steps`` batches.
        num_steps: The number of training steps.
        purpose: Words that stand before a bar of the steps that are done; None: no bar.

    Raises:
        ValueError: For a ``num_steps`` that is not an integer >= 1.
    """
    check_counts("fit_batches", num_steps=num_steps)
    bar = None if purpose is None else Bar(num_steps, purpose)
    device, drawn = next(rule.parameters()).device, iter(batches)  # Lightning looks into lists
    with undisturbed(rule), warnings.catch_warnings():
        # trained parts that a rule holds fixed are in this mode
        warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")
        trainer = make_trainer(num_steps, bar, device=device, limit_val_batches=0)
        try:
            trainer.fit(rule, drawn, drawn)
        finally:
            rule.to(device)  # Lightning leaves it on the CPU


@contextmanager
def undisturbed(rule: LearningRule) -> Iterator[None]:
    """Within the context, Lightning logs errors alone. After it, the level of its logger, whether
    gradients are recorded, and those that parameters of ``rule`` hold are as before.
    """
    logger, held = logging.getLogger("lightning.pytorch"), [(p, p.grad) for p in rule.parameters()]
    level = logger.level
    logger.setLevel(logging.ERROR)
    rule.zero_grad()
    try:
        with torch.enable_grad():
            yield
    finally:
        logger.setLevel(level)
        for parameter, grad in held:
            parameter.grad = grad


def make_trainer(
    max_steps: int,
    *callbacks: Callback | None,
    device: torch.device | None = None,
    limit_val_batches: int | None = None,
) -> Trainer:
    """A trainer on ``device`` (None: the CPU) that shows and keeps nothing but what ``callbacks``
    do.
    """
    here = torch.device("cpu") if device is None else device
    return Trainer(
        accelerator=here.type,
        devices=1 if here.index is None else [here.index],
        max_epochs=-1,
        max_steps=max_steps,
        callbacks=[callback for callback in callbacks if callback is not None],
        limit_val_batches=limit_val_batches,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
    )
