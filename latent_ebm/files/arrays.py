"""Arrays from ``.npy`` and ``.npz`` files. They are never unpickled, and their headers are checked
before memory is allocated.
"""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from latent_ebm.files.limits import check_entries
from latent_ebm.foreign import reading

PLAIN = "plain arrays, not pickled or damaged ones"
KINDS = {"numbers": "fiub", "numbers or texts": "fiubU"}  # of NumPy's types
SAMPLED, DEFAULT, LABEL = "x", "X", "y"  # names of arrays in an .npz


def read_arrays(path: Path, key: str | None, max_entries: int) -> tuple[NDArray, NDArray | None]:
    """The rows and, if an ``.npz`` holds it, the array ``y`` of labels.

    ``key`` names the array of rows in an ``.npz``. The default is ``x``, as ``latent-ebm sample``
    writes it, or ``X`` if there is no ``x``. Raises ``ValueError`` for a file that is damaged, too
    large or has no such array.
    """
    names = array_names(path)
    if names is None:
        return load_array(path, None, max_entries), None
    key = key or (SAMPLED if SAMPLED in names else DEFAULT)
    if key not in names:
        raise ValueError(
            f"key must be one of the arrays of {path}, {', '.join(names)}; got {key!r}"
        )
    label = load_array(path, LABEL, max_entries) if LABEL in names and key != LABEL else None
    return load_array(path, key, max_entries), label


def array_names(path: Path) -> list[str] | None:
    """Names of the arrays in an ``.npz``; ``None`` if the file is not an archive."""
    with reading(path, PLAIN):
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                return None
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]


def load_array(path: Path, name: str | None, max_entries: int, what: str = "numbers") -> NDArray:
    """The array ``name`` of an ``.npz``, or the array of an ``.npy``, which must hold ``what``, of
    ``KINDS``. Raises ``ValueError`` as ``read_arrays`` does.
    """
    with reading(path, PLAIN), open_array(path, name) as (file, size):
        shape, dtype = read_header(file)
        if dtype.hasobject or min(shape, default=0) < 0:
            raise ValueError(f"it has an array of {dtype} and shape {shape}")
        if dtype.kind not in KINDS[what]:
            place = f" in {name}" if name else ""
            raise ValueError(f"{path} must hold {what}{place}, got {dtype} of shape {shape}")
        check_entries(path, math.prod(shape), max_entries)
        if file.tell() + math.prod(shape) * dtype.itemsize > size:
            raise ValueError(
                f"an array of {dtype} and shape {shape} does not fit into {size:,} bytes"
            )
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


@contextmanager
def open_array(path: Path, name: str | None) -> Iterator[tuple[IO[bytes], int]]:
    """An ``.npy`` file, alone or inside an archive, opened for reading, and its size in bytes."""
    if name is None:
        with path.open("rb") as file:
            yield file, path.stat().st_size
    else:
        with zipfile.ZipFile(path) as archive:
            found = f"{name}.npy" if f"{name}.npy" in archive.namelist() else name
            with archive.open(found) as file:
                yield file, archive.getinfo(found).file_size


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array at the beginning of ``file``."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, dtype = read[version](file)
    return shape, dtype
