"""Rows and images from the files of a user, checked, and with names for columns and rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latent_ebm.files import Reader, read_images

DEFAULT = Reader()


class Table(NamedTuple):
    """``x`` (n, d), the file it comes from, and names of its d columns and n rows.

    ``rows`` are ids, line numbers or numbers from 0, and ``word`` precedes them in a sentence.
    ``shape`` is (C, H, W) if the rows are flattened images; ``has_header`` tells whether the names
    of the columns come from the file; ``notes`` say what was left out of the file, and why.
    """

    x: NDArray[np.float64]
    path: Path
    columns: list[str]
    rows: list[str]
    shape: tuple[int, ...] | None
    has_header: bool
    word: str
    notes: list[str]

    @property
    def called(self) -> list[str]:
        """The names of the n rows in a sentence."""
        return [f"{self.word} {row}".strip() for row in self.rows]

    @property
    def size(self) -> str:
        """Its size in words."""
        if self.shape is None:
            return f"{len(self.x)} rows of {len(self.columns)} columns"
        channels, height, width = self.shape
        return (
            f"{len(self.x)} images of {height} x {width} pixels, "
            f"{'grey' if channels == 1 else f'{channels} channels'}"
        )


def read_table(
    path: Path,
    image_shape: tuple[int, ...] | None = None,
    reader: Reader = DEFAULT,
    size: int | None = None,
    features: Sequence[str] | None = None,
    colour: bool | None = None,
) -> Table:
    """The content of ``path``: a folder of images, or a file of rows, which are images if they
    have three axes or ``image_shape`` is given.

    ``reader`` reads files of rows; ``size`` and ``colour`` are arguments of ``read_images``;
    ``features`` are the columns that a file with a header must have, in any order. Raises
    ``ValueError`` for other content, and if the images do not have ``image_shape`` (C, H, W).
    """
    path = path.expanduser()
    rows = (
        read_images(path, size, reader.max_entries, colour)
        if path.is_dir()
        else reader.read(path, features)
    )
    x = rows.x
    shape = image_shape if x.ndim == 2 else (1, *x.shape[1:])[-3:]
    if x.ndim > 4 or (
        image_shape is not None and (np.prod(image_shape) != x[0].size or shape != image_shape)
    ):
        wanted = (
            "(rows, columns) or (images, C, H, W)"
            if image_shape is None
            else f"images of shape {image_shape}"
        )
        raise ValueError(f"{path} must hold {wanted}, got rows of shape {x.shape[1:]}")
    flat = x.reshape(len(x), -1)
    columns = rows.names or [f"column {j + 1}" for j in range(flat.shape[1])]
    notes = [*rows.notes, *([] if rows.label is None else ["its labels are left out"])]
    return Table(flat, path, columns, rows.ids, shape, rows.has_header, rows.word, notes)


def check_alike(new: Table, columns: list[str], shape: tuple[int, ...] | None) -> None:
    """Raise ``ValueError`` unless ``new`` has as many ``columns`` as the training data of a
    detector, and its ``shape``.

    Columns with names were matched when they were read.
    """
    if new.shape != shape:
        kinds = [f"images of shape {s}" if s else "rows of a table" for s in (shape, new.shape)]
        raise ValueError(
            f"{new.path} must hold {kinds[0]} as the training data does, got {kinds[1]}"
        )
    if len(new.columns) != len(columns):
        raise ValueError(
            f"{new.path} must have {len(columns)} columns as the training data has, got "
            f"{len(new.columns)}"
        )
