"""Checkpoints that are complete: of a whole epoch, and written beside the target, then renamed."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


def check_saved_after_epochs(trainer: Trainer, last: str) -> None:
    """Raise ``ValueError`` if ``trainer`` saves checkpoints at validations alone, which is before
    ``last``, what a rule still does at the end of an epoch of training.
    """
    inside = getattr(trainer, "val_check_interval", "a time") != 1.0
    each_epoch = trainer.check_val_every_n_epoch == 1 and not inside
    flags = [
        c._save_on_train_epoch_end
        for c in trainer.checkpoint_callbacks
        if isinstance(c, ModelCheckpoint) and c.every_n_epochs
    ]
    late = any(each_epoch if flag is None else flag for flag in flags)
    if flags and trainer.enable_validation and not late:
        raise ValueError(
            "callbacks must have a ModelCheckpoint with save_on_train_epoch_end=True, because "
            f"others save at validations, before {last}, got {flags[0]}"
        )


class AtomicCheckpointIO(TorchCheckpointIO):
    """A plugin of the trainer, ``Trainer(plugins=[AtomicCheckpointIO()])``. If training is killed,
    the last checkpoint stays intact.

    The file is written beside the target (Lightning itself writes to ``TMPDIR``, perhaps on
    another file system) and flushed to the disk. Then it takes the target's name in one step. If
    training is killed while it writes, ``.NAME.tmp`` remains, and the next checkpoint of that name
    overwrites it. Paths of other protocols (``s3://...``) are left to Lightning.

    Raises:
        OSError: If a checkpoint cannot be written; an older one of the same name is kept.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        draft = target.with_name(f".{target.name}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_whole(checkpoint, draft)
            draft.replace(target)
            sync_folder(target.parent)
        except (OSError, RuntimeError) as error:  # torch reports a full disk by a RuntimeError
            draft.unlink(missing_ok=True)
            raise OSError(f"cannot write the checkpoint {str(target)!r}: {error}") from error


def write_whole(checkpoint: dict[str, Any], path: Path) -> None:
    """Write ``checkpoint`` to ``path`` and wait until the disk has it."""
    with path.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in ``folder``, on systems that support it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
