"""Places to write to, checked before long work begins; the writing itself is ``pictures.atomic_path``'s."""

import tempfile
from collections.abc import Sequence
from pathlib import Path


def check_output(path: str | Path, suffixes: Sequence[str], option: str = "--out") -> Path:
    """``path`` as a file to write: it ends with one of ``suffixes`` and lies in a folder that can be written.

    ``option`` is its name for the user. Raises ``ValueError`` for another ending, ``OSError`` where nothing can be written.
    """
    path = Path(path)
    if path.suffix not in suffixes:
        raise ValueError(f"{option} must end with {' or '.join(suffixes)}, got {str(path)!r}")
    if path.is_dir():
        raise IsADirectoryError(f"{option} must name a file, got the folder {str(path)!r}")
    check_folder(path.parent)
    return path


def check_folder(folder: str | Path) -> Path:
    """``folder``, made if it is missing, after a file in it could be opened for writing. Raises ``OSError`` if not."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise OSError(f"cannot write to the folder {str(folder)!r}: {error.strerror or error}") from error


def check_apart(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Raise ``ValueError`` if one of ``outputs`` is one of ``inputs``, by whatever name."""
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in taken:
            raise ValueError(f"{str(path)!r} must not be written to, for it is read")
