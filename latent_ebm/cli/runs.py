"""Where training writes: a resumed run continues in its own folders, and a new run needs folders
without another run.
"""

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint

from latent_ebm.cli.files import check_folder
from latent_ebm.foreign import check_file


def find_checkpoint(trainer: Trainer, named: str | Path | None) -> Path | None:
    """The file that ``--ckpt_path`` has ``named``, if it has: a path, or the newest of those that
    ``last`` means to ``trainer``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: For ``last`` if there is none, and for ``best``, which is known during a
            training alone.
    """
    if named is None:
        return None
    if named not in ("last", "best"):
        return check_file(named, "a checkpoint")
    found = last_checkpoints(trainer) if named == "last" else []
    if not found:
        raise ValueError(
            "ckpt_path must name a file, or be 'last' where the checkpoints of this trainer have "
            f"one called last*.ckpt, got {named!r}, for which there is none"
        )
    return max(found, key=lambda path: path.stat().st_mtime)


def last_checkpoints(trainer: Trainer) -> list[Path]:
    """The files that Lightning takes for the last checkpoint of ``trainer``."""
    found: set[str] = set()
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            found |= callback._find_last_checkpoints(trainer)
        elif isinstance(callback, OnExceptionCheckpoint):
            found.add(callback.ckpt_path)
    return [path for path in map(Path, found) if path.is_file()]


def check_places(trainer: Trainer, resumed: Path | None) -> None:
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
    crashes = [c for c in trainer.checkpoint_callbacks if isinstance(c, OnExceptionCheckpoint)]
    places = (*checkpoints, *(Path(callback.ckpt_path).parent for callback in crashes))
    goes_on = resumed is not None and resumed.parent.resolve() in {p.resolve() for p in places}
    for folder in () if goes_on else checkpoints:
        check_own(folder)
    for folder in logs if resumed is None else ():
        check_empty(folder)
    for folder in (*checkpoints, *logs, Path(trainer.default_root_dir)):
        check_folder(folder)


def check_own(folder: Path) -> None:
    """Raise ``FileExistsError`` if ``folder`` holds checkpoints."""
    found = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    if found:
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
