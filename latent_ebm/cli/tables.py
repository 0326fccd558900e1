"""Rows and images that a user names on the command line, checked and with names of their columns and rows."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latent_ebm.cli.commands import array_key
from latent_ebm.data.arrays import read_images, read_rows


class Table(NamedTuple):
    """``x`` (n, d), the file it comes from, and names of its d columns and n rows.

    ``shape`` is the (C, H, W) of rows that are flat images; ``has_header`` tells whether the columns' names are the file's.
    """

    x: NDArray[np.float64]
    path: Path
    columns: list[str]
    rows: list[str]
    shape: tuple[int, ...] | None
    has_header: bool

    @property
    def size(self) -> str:
        """How much it holds, in words."""
        if self.shape is None:
            return f"{len(self.x)} rows of {len(self.columns)} columns"
        channels, height, width = self.shape
        return (
            f"{len(self.x)} images of {height} x {width} pixels, {'grey' if channels == 1 else f'{channels} channels'}"
        )


def read_table(path: Path, image_shape: tuple[int, ...] | None = None) -> Table:
    """What ``path`` holds: a folder of images, or a file of rows; rows of three axes or with ``image_shape`` are images.

    Raises ``ValueError`` for anything else, and if ``image_shape`` (C, H, W) is not that of the images.
    """
    if path.is_dir():
        x, rows = read_images(path)
        names = None
    else:
        x, _, names = read_rows(path, array_key(str(path)))
        rows = [str(i) for i in range(len(x))]
    shape = image_shape if x.ndim == 2 else (1, *x.shape[1:])[-3:]
    if x.ndim > 4 or (image_shape is not None and (np.prod(image_shape) != x[0].size or shape != image_shape)):
        wanted = "(rows, columns) or (images, C, H, W)" if image_shape is None else f"images of shape {image_shape}"
        raise ValueError(f"{path} must hold {wanted}, got rows of shape {x.shape[1:]}")
    flat = x.reshape(len(x), -1)
    columns = names if names is not None else [f"column {j + 1}" for j in range(flat.shape[1])]
    return Table(flat, path, columns, rows, shape, names is not None)


def check_alike(new: Table, columns: list[str], has_header: bool, shape: tuple[int, ...] | None) -> None:
    """Raise ``ValueError`` unless ``new`` has the ``columns`` and ``shape`` that a detector was trained with, in their order.

    Names are compared where both sides have any.
    """
    if new.shape != shape:
        kinds = [f"images of shape {s}" if s else "rows of a table" for s in (shape, new.shape)]
        raise ValueError(f"{new.path} must hold {kinds[0]} as the training data does, got {kinds[1]}")
    if len(new.columns) != len(columns):
        raise ValueError(
            f"{new.path} must have {len(columns)} columns as the training data has, got {len(new.columns)}"
        )
    if has_header and new.has_header and new.columns != columns:
        j = next(j for j, name in enumerate(columns) if new.columns[j] != name)
        raise ValueError(
            f"{new.path} must have the columns of the training data in their order, got {new.columns[j]!r} "
            f"for {columns[j]!r}"
        )
