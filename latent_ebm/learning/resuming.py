"""What Lightning forgets when training is resumed from a checkpoint."""

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

Settings = list[list[dict[str, Any]]]  # per optimiser, per group of parameters


def complete_batch(loops: dict[str, Any]) -> bool:
    """Mark in the ``loops`` of a checkpoint saved at the end of a batch that what follows this
    batch is still to come.

    Lightning would skip the validation that is due after this batch, and the end of the epoch
    after its last batch. A resumed run would then draw other random numbers than an uninterrupted
    one. A checkpoint saved at another point is left as it is.

    Returns:
        Whether the checkpoint was saved at the end of a batch.
    """
    loop = loops["fit_loop"]
    batches, held_out = (
        loop["epoch_loop.batch_progress"],
        loop["epoch_loop.val_loop.batch_progress"],
    )
    if batches["total"]["completed"] == batches["total"]["processed"]:
        return False
    for count in (batches["total"], batches["current"]):
        count["completed"] = count["processed"]
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
    start = {"ready": 0, "started": 0, "processed": 0, "completed": 0}
    held_out.update(
        total={**start, "ready": 1, "started": 1}, current=start, is_last_batch=False
    )  # a batch has begun
    return True


def settings_of(optimizers: Sequence[Optimizer]) -> Settings:
    """The settings that ``optimizers`` were made with, before any scheduler changed them."""
    return [
        [settings_of_group(group) for group in optimizer.param_groups] for optimizer in optimizers
    ]


def settings_of_group(group: dict[str, Any]) -> dict[str, Any]:
    kept = {
        name: value
        for name, value in group.items()
        if name not in ("params", "param_names", "initial_lr")
    }
    return {**kept, "lr": group.get("initial_lr", group["lr"])}


def adopt_settings(
    optimizers: Sequence[Optimizer], before: Settings, now: Settings, scheduled: bool
) -> None:
    """Give ``optimizers``, restored from a checkpoint, the settings that differ between ``before``
    and ``now``.

    Raises:
        ValueError: If settings differ while a scheduler is resumed too (``scheduled``).
    """
    for optimizer, groups, new_groups in zip(optimizers, before, now, strict=True):
        for group, old, new in zip(optimizer.param_groups, groups, new_groups, strict=True):
            changed = {name: value for name, value in new.items() if old.get(name) != value}
            if changed and scheduled:
                name, value = next(iter(changed.items()))
                raise ValueError(
                    f"optimizer: {name} must stay {old.get(name)} while a scheduler goes on from "
                    f"a checkpoint, got {value}"
                )
            group.update(changed)
