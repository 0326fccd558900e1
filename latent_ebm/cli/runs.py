"""Where training writes: a resumed run continues in its own folders, and a new run needs folders
without another run.
"""

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from latent_ebm.cli.files import check_folder


def check_places(trainer: Trainer, resumed: str | None) -> None:
    """Check the folders of the checkpoints and loggers of ``trainer``, before anything is written
    there.

    ``resumed`` is the checkpoint that training resumes from, if any.

    Raises:
        FileExistsError: For a folder that holds another run.
        OSError: For a folder that cannot be written.
    """
    if trainer.fast_dev_run or not trainer.is_global_zero:  # pyright: ignore[reportAttributeAccessIssue]
        return
    callbacks = [
        c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.dirpath
    ]
    checkpoints = [Path(callback.dirpath) for callback in callbacks]  # pyright: ignore[reportArgumentType]
    logs = [Path(logger.log_dir) for logger in trainer.loggers if logger.log_dir]
    for folder in checkpoints:
        check_own(folder, resumed)
    for folder in logs if resumed is None else ():
        check_empty(folder)
    for folder in (*checkpoints, *logs, Path(trainer.default_root_dir)):
        check_folder(folder)


def check_own(folder: Path, resumed: str | None) -> None:
    """Raise ``FileExistsError`` if ``folder`` holds checkpoints, and ``resumed`` is not one of
    them.
    """
    found = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    # "last" or "best", which Lightning finds in the folder
    named = resumed is not None and not Path(resumed).exists()
    if (
        found
        and not named
        and (resumed is None or Path(resumed).resolve().parent != folder.resolve())
    ):
        raise FileExistsError(
            f"{str(folder)!r} holds another run: go on with it by --ckpt_path {found[-1]}, or "
            "move or remove that folder, or name another dirpath of the checkpoints"
        )


def check_empty(folder: Path) -> None:
    """Raise ``FileExistsError`` if ``folder`` holds the curves of another run."""
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(
            f"{str(folder)!r} holds the logs of another run: move or remove that folder, name "
            "another version of the logger, or go on with the run by --ckpt_path FILE"
        )
