"""What Lightning forgets of a training that goes on from a checkpoint."""

from typing import Any


def complete_batch(loops: dict[str, Any]) -> None:
    """Tell the ``loops`` of a checkpoint saved at the end of a batch that what follows the batch is still to come.

    Lightning would leave out the validation that is due after this batch, and if it is the last one the end of the epoch:
    other random numbers are then drawn than without the checkpoint. A checkpoint saved elsewhere is left as it is.
    """
    loop = loops["fit_loop"]
    batches, held_out = loop["epoch_loop.batch_progress"], loop["epoch_loop.val_loop.batch_progress"]
    if batches["total"]["completed"] == batches["total"]["processed"]:
        return
    for count in (batches["total"], batches["current"]):
        count["completed"] = count["processed"]
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
    start = {"ready": 0, "started": 0, "processed": 0, "completed": 0}
    held_out.update(total={**start, "ready": 1, "started": 1}, current=start, is_last_batch=False)  # a batch has begun
