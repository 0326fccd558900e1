"""What Lightning forgets of a training that goes on from a checkpoint."""

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

Settings = list[list[dict[str, Any]]]  # of every optimiser, of every group of parameters


def complete_batch(loops: dict[str, Any]) -> bool:
    """Tell the ``loops`` of a checkpoint saved at the end of a batch that what follows the batch
    is still to come.

    Lightning would leave out the validation that is due after this batch, and if it is the last
    one the end of the epoch: other random numbers are then drawn than without the checkpoint. A
    checkpoint saved elsewhere is left as it is.

    Returns whether it was saved there.
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
    """What ``optimizers`` were made with, whatever a scheduler has made of it."""
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
    """Give ``optimizers``, restored from a checkpoint, the settings that are others ``now`` than
    ``before``.

    Raises ``ValueError`` if there are any where a scheduler, which goes on too, is ``scheduled``.
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
