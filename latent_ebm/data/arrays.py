"""The user's own rows, from ``.npz``, ``.npy``, ``.csv`` or ``.parquet``, and images from a folder.

Nothing is guessed and nothing repaired: a missing value, a word among the numbers or a short row is an error that says
where it is. Files are never unpickled. Standardisation uses the mean and scale of the training rows alone.
"""

import csv
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from latent_ebm.data.base import DataModule, Pair, make_generator

LABEL_KEY, LABEL_COLUMN = "y", "label"
RELATIVE_FLOOR = 1e-6
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


class Rows(NamedTuple):
    """``x`` (n, \\*event); an integer ``label`` (n,) if there is one; the names of the columns if the file has them."""

    x: NDArray[np.float64]
    label: NDArray[np.int64] | None
    names: list[str] | None


class Content(NamedTuple):
    """What a file holds, before it is checked."""

    x: NDArray
    label: NDArray | None
    names: list[str] | None


def read_rows(path: Path, key: str = "X") -> Rows:
    """The rows of a .npz (arrays ``key`` and ``y``), .npy, .csv or .parquet file (a column ``label`` is the label).

    Raises ``ValueError`` for what is not a table of finite numbers, saying where, and ``FileNotFoundError``.
    """
    readers = {".npz": _read_numpy, ".npy": _read_numpy, ".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise ValueError(f"path must end in {', '.join(readers)}, got {str(path)!r}")
    if not path.is_file():
        raise FileNotFoundError(f"path must name a file, got {str(path)!r} (working directory {Path.cwd()})")
    x, label, names = readers[path.suffix](path, key)
    if x.dtype.kind not in "fiub" or x.ndim < 2 or x.size == 0:
        raise ValueError(f"{path} must hold numbers of shape (rows, columns), got {x.dtype} of shape {x.shape}")
    x = x.astype(np.float64)
    bad = np.argwhere(~np.isfinite(x.reshape(len(x), -1)))
    if len(bad):
        rows = len(np.unique(bad[:, 0]))
        raise ValueError(
            f"{path} must be finite: {rows} rows are not, first row {bad[0, 0]}, column {bad[0, 1]} from 0"
        )
    return Rows(x, None if label is None else _as_label(path, label, len(x)), names)


def _as_label(path: Path, label: NDArray, num: int) -> NDArray[np.int64]:
    if label.shape != (num,) or label.dtype.kind not in "fiub" or not np.array_equal(label, np.rint(label)):
        raise ValueError(f"labels of {path} must be {num} integers, got {label.dtype} of shape {label.shape}")
    return label.astype(np.int64)


def _read_numpy(path: Path, key: str) -> Content:
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return Content(content, None, None)
            arrays = {name: content[name] for name in content.files if name in (key, LABEL_KEY)}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} must hold plain arrays, not pickled or damaged ones: {error}") from error
    if key not in arrays:
        raise ValueError(f"key must be one of the arrays of {path}, {', '.join(content.files)}; got {key!r}")
    return Content(arrays[key], arrays.get(LABEL_KEY), None)


def _read_csv(path: Path, key: str) -> Content:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            lines = [(reader.line_num, row) for row in reader if row]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} must be text with comma-separated values: {error}") from error
    names = [cell.strip() for cell in lines[0][1]] if lines else []
    # A header is a first line without numbers, or with a label column; a lone word among numbers is an error below.
    has_header = LABEL_COLUMN in names or not any(_is_number(name) for name in names)
    lines = lines[1:] if has_header else lines
    cells = [_parse_line(f"{path} line {line}", row, len(names)) for line, row in lines]
    table = np.array(cells, dtype=np.float64).reshape(len(cells), len(names))
    return _without_label(table, names) if has_header else Content(table, None, None)


def _without_label(table: NDArray, names: list[str]) -> Content:
    if LABEL_COLUMN not in names:
        return Content(table, None, names)
    column = names.index(LABEL_COLUMN)
    rest = [*names[:column], *names[column + 1 :]]
    return Content(np.delete(table, column, axis=1), table[:, column], rest)


def _parse_line(place: str, row: list[str], num: int) -> list[float]:
    if len(row) != num:
        raise ValueError(f"{place} must have {num} cells as the first line has, got {len(row)}")
    for column, cell in enumerate(row, 1):
        if not _is_number(cell):
            raise ValueError(f"{place}, column {column} must be a number, got {cell!r}")
    return [float(cell) for cell in row]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path, key: str) -> Content:
    try:
        import pandas as pd  # pyright: ignore[reportMissingImports]
        import pyarrow  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(f"{path} needs pandas and pyarrow: pip install latent-ebm[parquet]") from error
    frame = pd.read_parquet(path)
    for name, dtype in frame.dtypes.items():
        if not pd.api.types.is_numeric_dtype(dtype):
            raise ValueError(f"{path}, column {str(name)!r} must hold numbers, got {dtype}")
    return _without_label(frame.to_numpy(np.float64, na_value=np.nan), [str(name) for name in frame.columns])


def read_images(folder: Path) -> tuple[NDArray[np.float64], list[str]]:
    """Images (n, C, H, W) in [-1, 1] of a folder, and the names of their files in alphabetical order.

    Files of other kinds are left alone. Raises ``ValueError`` unless there is an image, and all have the same size and are
    all grey or all RGB, without transparency.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"{folder} must hold images ({', '.join(IMAGE_SUFFIXES)}), got none")
    images = [_read_image(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            raise ValueError(
                f"images of a folder must have one shape (C, H, W), got {images[0].shape} of {paths[0]} "
                f"and {image.shape} of {path}"
            )
    return np.stack(images), [path.name for path in paths]


def _read_image(path: Path) -> NDArray[np.float64]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode not in ("1", "L", "P", "RGB") or "transparency" in image.info:
                raise ValueError(f"it has mode {image.mode}, not 8 bits of grey or RGB without transparency")
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} must be a plain image: {error}") from error
    return np.moveaxis(np.atleast_3d(pixels), 2, 0) / 127.5 - 1


class Arrays(DataModule):
    """Rows of ``path``: .npz (array ``key``, labels ``y`` if there), .npy, .csv or .parquet (column ``label``: the label).

    ``val_fraction`` and ``test_fraction`` of the rows, drawn by ``seed``, are held out. With ``standardize`` every
    column is shifted and scaled to mean 0 and variance 1 on the training rows; a constant column is only shifted.
    ``mean`` and ``scale`` (\\*event), there after ``setup``, take ``x`` back to the units of the file by
    ``x * scale + mean``.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self,
        path: str,
        batch_size: int = 100,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        standardize: bool = True,
        key: str = "X",
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        for name, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            if not 0 < value < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        if val_fraction + test_fraction >= 1:
            raise ValueError(f"val_fraction + test_fraction must be below 1, got {val_fraction} + {test_fraction}")
        self.path, self.key, self.standardize = path, key, standardize
        self.val_fraction, self.test_fraction = val_fraction, test_fraction

    def load(self) -> tuple[Pair, Pair, Pair]:
        rows, labels, _ = read_rows(Path(self.path), self.key)
        x = torch.from_numpy(rows)
        num_val, num_test = (max(1, round(f * len(x))) for f in (self.val_fraction, self.test_fraction))
        if len(x) <= num_val + num_test:
            raise ValueError(f"{self.path} must hold at least 3 rows to be split in three, got {len(x)}")
        order = torch.randperm(len(x), generator=make_generator(self.seed))
        val, test, train = order.split([num_val, num_test, len(x) - num_val - num_test])
        self.mean, self.scale = self._statistics(x[train])
        x = ((x - self.mean) / self.scale).float()
        label = torch.full((len(x),), -1) if labels is None else torch.from_numpy(labels)
        return (x[train], label[train]), (x[val], label[val]), (x[test], label[test])

    def _statistics(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.standardize:
            return torch.zeros_like(x[0]), torch.ones_like(x[0])
        mean, scale = x.mean(0), x.std(0, correction=0)
        constant = scale <= RELATIVE_FLOOR * mean.abs().clamp(min=RELATIVE_FLOOR)
        return mean, torch.where(constant, 1.0, scale)
