"""Checkpoints that are whole or not there: written beside the target, then renamed."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO


class AtomicCheckpointIO(TorchCheckpointIO):
    """A plugin of the trainer, ``Trainer(plugins=[AtomicCheckpointIO()])``: a kill leaves the last
    checkpoint as it was.

    The file is written beside the target (Lightning's own goes through ``TMPDIR``, perhaps on
    another file system), its bytes are forced to the disk, and then it takes the target's name in
    one step. What a kill leaves, ``.NAME.tmp``, is overwritten by the next checkpoint of that
    name. Paths of other protocols (``s3://...``) are left to Lightning.

    Raises ``OSError`` if a checkpoint cannot be written; an older one of its name is kept.
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
        except (OSError, RuntimeError) as error:  # torch tells of a full disk by a RuntimeError
            draft.unlink(missing_ok=True)
            raise OSError(f"cannot write the checkpoint {str(target)!r}: {error}") from error


def write_whole(checkpoint: dict[str, Any], path: Path) -> None:
    """Write ``checkpoint`` to ``path`` and wait until the disk has it."""
    with path.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in ``folder``, where the system knows how to."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
