"""Places to write to, checked before long work begins; ``atomic_path`` does the writing.

One rule for all commands: a result is written beside its place and renamed when it is complete. It
takes the place of an older file of its name, for commands are repeated; never that of a file that
the command reads, by whatever name or link, of a file that is write-protected, or of a pipe or
device. Nothing is made before there is something to write.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from latent_ebm.files.images import SUFFIXES
from latent_ebm.writing import atomic_path

MAX_NAME, MAX_PATH = (
    255,
    4000,
)  # bytes that file systems take, less what a temporary name adds to a path


def check_output(path: str | Path, suffixes: Sequence[str], option: str = "--out") -> Path:
    """``path`` as a file to write: it ends with one of ``suffixes`` and lies in a folder that can
    be written or made.

    ``option`` is its name for the user. Raises ``ValueError`` for another ending or name,
    ``OSError`` where nothing can be written.
    """
    path = Path(path).expanduser()
    if path.suffix not in suffixes:
        raise ValueError(f"{option} must end with {' or '.join(suffixes)}, got {str(path)!r}")
    check_name(path, option)
    if path.is_dir():
        raise IsADirectoryError(f"{option} must name a file, got the folder {str(path)!r}")
    if path.exists() and not path.is_file():
        raise ValueError(f"{option} must name a regular file or a new one, got {str(path)!r}")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(
            f"{option} must name a file that may be replaced, but {str(path)!r} is write-protected"
        )
    check_folder(real(path).parent, option)
    return path


def check_folder(folder: str | Path, option: str = "--out") -> Path:
    """``folder``, after a file could be opened in it, or in the nearest one above it that is
    there.

    It is not made. Raises ``ValueError`` for a name that no file can have, ``OSError`` where
    nothing can be written.
    """
    folder = Path(folder).expanduser()
    check_name(folder, option)
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            return folder
    except OSError as error:
        raise OSError(
            f"cannot write to the folder {str(folder)!r}: {error.strerror or error}"
        ) from error


def check_new(path: Path, option: str = "--out") -> Path:
    """``path``, where nothing is yet. Raises ``FileExistsError``."""
    if os.path.lexists(path):
        raise FileExistsError(f"{option} must be a new folder, got {str(path)!r}")
    return path


def check_name(path: Path, option: str) -> None:
    """Raise ``ValueError`` for a name that a file system or a page cannot take."""
    try:
        sizes = [len(part.encode()) for part in path.absolute().parts]
    except UnicodeEncodeError as error:
        raise ValueError(f"{option} must be a name in UTF-8, got {str(path)!a}") from error
    if max(sizes) > MAX_NAME or sum(sizes) + len(sizes) > MAX_PATH:
        raise ValueError(
            f"{option} must be a name of at most {MAX_NAME} bytes in a path of at most "
            f"{MAX_PATH}, "
            f"got {max(sizes)} in {sum(sizes) + len(sizes)}"
        )


def check_apart(outputs: Sequence[Path], inputs: Sequence[str | Path]) -> None:
    """Raise ``ValueError`` if one of ``outputs`` is one of ``inputs``, by whatever name, or an
    image in a folder of these.
    """
    for path in outputs:
        for read in (Path(name).expanduser() for name in inputs):
            image = (
                path.suffix.lower() in SUFFIXES
                and path.exists()
                and real(read) in real(path).parents
            )
            if image or is_same(path, read):
                raise ValueError(f"{str(path)!r} must not be written to, for it is read")


def real(path: Path) -> Path:
    """Where ``path`` leads over links, as far as these lead anywhere."""
    return Path(os.path.realpath(path))


def is_same(a: Path, b: Path) -> bool:
    """Whether two paths lead to one file, over links of both kinds, or would."""
    return real(a) == real(b) or (a.exists() and b.exists() and a.samefile(b))


def save_arrays(out: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write ``arrays`` by name to the file ``out``, .npz."""
    with atomic_path(out) as path, path.open("wb") as stream:
        np.savez(stream, **arrays)  # pyright: ignore[reportArgumentType]
