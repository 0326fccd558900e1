"""Your own images with a caption for each: a folder with images and a table of captions.

The table is ``captions.csv``, with the columns ``file`` and ``caption``, or ``captions.jsonl``,
with an object ``{"file": ..., "caption": ...}`` per line. Files are named relative to the folder.
A third entry, ``weight``, says how often a training row is drawn, compared to the others.
"""

import csv
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from latent_ebm.data.base import DataModule, Pair, make_generator
from latent_ebm.data.captioned import CaptionedSet, EpochOrder, vocabulary
from latent_ebm.data.images import decode
from latent_ebm.files.images import SUFFIXES, find_images
from latent_ebm.files.limits import MAX_ENTRIES
from latent_ebm.foreign import check_file, reading
from latent_ebm.text import Tokenizer
from latent_ebm.text.tokenizer import check_prompt
from samplers.checks import check_counts, check_kind, check_numbers

TABLES, COLUMNS = ("captions.csv", "captions.jsonl"), ("file", "caption")
WEIGHT, SUFFIX = "weight", (".csv", ".jsonl")
MAX_TABLE = 2**28  # bytes
HELD_SHARE = 0.1  # of the images, for validation and for test


class Line(NamedTuple):
    """A row of a table of captions; ``weight`` is None if the table has no weights."""

    file: str
    caption: str
    weight: float | None


def find_table(folder: Path) -> Path:
    """The table of captions in ``folder``. Raises ``FileNotFoundError`` if there is none, and
    ``ValueError`` if there are two.
    """
    found = [folder / name for name in TABLES if (folder / name).is_file()]
    if not found:
        rule = f"path must name a folder with {' or '.join(TABLES)}"
        raise FileNotFoundError(f"{rule}, got {str(folder)!r}")
    if len(found) > 1:
        raise ValueError(f"{folder} must hold one table of captions, got {' and '.join(TABLES)}")
    return found[0]


def read_table(path: Path) -> list[Line]:
    """Rows of a table of captions. Raises ``ValueError`` if the file is large, unless all rows
    have a file and a caption, and unless all or none have a positive weight.
    """
    check_file(path, "a table of captions")
    if path.suffix not in SUFFIX:
        raise ValueError(f"table must end in {' or '.join(SUFFIX)}, got {str(path)!r}")
    if (size := path.stat().st_size) > MAX_TABLE:
        raise ValueError(f"{path} must have at most {MAX_TABLE:,} bytes, got {size:,}")
    what = "a file and a caption per row"
    with reading(path, what), path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(file, strict=True) if path.suffix == ".csv" else objects(file)
        rows = []
        for number, row in enumerate(lines, 1):
            for name in COLUMNS:
                if not isinstance(row.get(name), str) or not row[name].strip():
                    raise ValueError(f"row {number} has no {name}")
            rows.append(Line(row["file"].strip(), row["caption"].strip(), as_weight(row, number)))
        if not rows:
            raise ValueError("it has no rows")
        without = [number for number, row in enumerate(rows, 1) if row.weight is None]
        if 0 < len(without) < len(rows):
            raise ValueError(f"row {without[0]} has no {WEIGHT}, but others have one")
    return rows


def as_weight(row: Mapping[str, object], number: int) -> float | None:
    """The weight of a row; None if there is none. Raises ``ValueError`` unless it is positive."""
    value = row.get(WEIGHT)
    if value is None or value == "":
        return None
    try:
        weight = float(value) if isinstance(value, str) else value
    except ValueError:
        weight = value
    check_numbers(f"row {number}", "positive", weight=weight)
    return float(str(weight))


def objects(lines: Iterable[str]) -> Iterable[dict[str, str]]:
    """The JSON object of every line that is not blank."""
    for line in lines:
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(
                    f"each line must be an object of JSON, got a {type(row).__name__}"
                )
            yield row


def read_captions(
    folder: Path, table: Path | None = None
) -> tuple[list[Path], list[str], Tensor | None]:
    """Images of ``folder``, their captions, and their weights (n,) if there are any, in the order
    of ``table``; None: the table in the folder.

    Warns of images without a caption, unless ``table`` is given. Raises ``ValueError`` if an image
    is missing, named twice or outside of the folder, or if a caption holds control characters.
    """
    chosen = table is not None
    table = table if chosen else find_table(folder)
    rows = read_table(table)
    names = [str(PurePosixPath(row.file)) for row in rows]
    first: dict[str, int] = {}
    for number, (name, row) in enumerate(zip(names, rows, strict=True), 1):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{table} must name images inside its folder, got {name!r}")
        if (before := first.setdefault(name, number)) != number:
            raise ValueError(
                f"{table} must name every image once, got {name!r} in rows {before} and {number}"
            )
        check_prompt(f"the caption of {name!r} in {table}", row.caption)
    left = check_images(folder, table, names)
    if left and not chosen:
        warnings.warn(f"{left} images of {folder} have no caption and are left out", stacklevel=2)
    weights = torch.tensor([row.weight for row in rows if row.weight is not None])
    return (
        [folder / name for name in names],
        [row.caption for row in rows],
        weights if len(weights) else None,
    )


def check_images(folder: Path, table: Path, names: Sequence[str]) -> int:
    """The number of images of ``folder`` that are not among ``names``. Raises ``ValueError`` for
    ``names`` that are no images of it.
    """
    present = {path.relative_to(folder).as_posix() for path in find_images(folder)}
    if odd := [name for name in names if name not in present and (folder / name).is_file()]:
        raise ValueError(f"{table} must name images ({', '.join(SUFFIXES)}), got {odd[0]!r}")
    if missing := [name for name in names if name not in present]:
        raise ValueError(
            f"{table} must name images that exist: {len(missing)} of {len(names)} do not, the "
            f"first {missing[0]!r}"
        )
    return len(present - set(names))


class CaptionedImageSet(CaptionedSet):
    """Pictures ``x`` (n, 3, side, side), the caption of each, and their ``weights`` (n,), if
    there are any.
    """

    def __init__(
        self,
        x: Tensor,
        texts: Sequence[str],
        tokenizer: Tokenizer,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__(x)
        self.texts, self.tokenizer, self.weights = list(texts), tokenizer, weights

    def rows(self, index: Sequence[int]) -> tuple[Tensor, list[str]]:
        return self.x[torch.as_tensor(index)], [self.texts[i] for i in index]


class CaptionedImages(DataModule):
    """Your own images (3, size, size) in [-1, 1]; batches carry the ``tokens`` of their captions.

    The folder holds the images, also in subfolders, and a table of captions: ``captions.csv`` with
    the columns ``file`` and ``caption``, or ``captions.jsonl`` with such an object per line. If it
    has a ``weight`` per row, as those that ``latent_ebm.data.curation`` writes, training rows are
    drawn in proportion to it, with replacement.

    Args:
        path: The folder.
        size: Side in pixels to which every image is resized; null: images have one size already.
        batch_size: Rows of a batch.
        tokenizer: Turns captions into tokens; null: the words of all captions.
        num_val: Number of images for validation; null: a tenth.
        num_test: Number of images for test; null: a tenth.
        seed: Decides the order and the split.
        max_entries: Largest number of pixel values that are decoded.
        table: The table of captions, if it is elsewhere; null: the one in the folder.

    Raises:
        ValueError: For numbers out of range.
    """

    train: CaptionedImageSet
    val: CaptionedImageSet
    test: CaptionedImageSet

    def __init__(
        self,
        path: str,
        size: int | None = None,
        batch_size: int = 64,
        tokenizer: Tokenizer | None = None,
        num_val: int | None = None,
        num_test: int | None = None,
        seed: int = 0,
        max_entries: int = MAX_ENTRIES,
        table: str | None = None,
    ) -> None:
        super().__init__(batch_size, seed)
        given = {"size": size, "num_val": num_val, "num_test": num_test}
        check_counts(self, **{k: v for k, v in given.items() if v is not None})
        check_counts(self, max_entries=max_entries)
        if tokenizer is not None:
            check_kind(self, Tokenizer, tokenizer=tokenizer)
        self.path, self.size, self.tokenizer = path, size, tokenizer
        self.num_val, self.num_test, self.max_entries = num_val, num_test, max_entries
        self.table = table

    @property
    def folder(self) -> Path:
        """The folder, with ``~`` expanded."""
        return Path(self.path).expanduser()

    @property
    def files(self) -> list[Path]:
        return [self.folder, *([] if self.table is None else [Path(self.table).expanduser()])]

    def load(self) -> tuple[Pair, Pair, Pair]:
        self.setup()
        return (self.train.x, None), (self.val.x, None), (self.test.x, None)

    def setup(self, stage: str | None = None) -> None:
        """Read, check and split everything, once."""
        if hasattr(self, "test"):
            return
        table = None if self.table is None else Path(self.table).expanduser()
        paths, texts, weights = read_captions(self.folder, table)
        parts = self.split(len(paths))
        tokenizer = self.tokenizer or vocabulary(texts)
        tokenizer(texts)  # a caption that it refuses is refused before training
        x = decode(paths, self.size, self.max_entries)
        self.tokenizer = tokenizer
        self.train, self.val, self.test = (
            CaptionedImageSet(
                x[rows],
                [texts[i] for i in rows.tolist()],
                tokenizer,
                None if weights is None else weights[rows],
            )
            for rows in parts
        )
        super().setup(stage)

    def order(self, processes: int, rank: int, seed: int) -> DistributedSampler[int]:
        if self.train.weights is None:
            return super().order(processes, rank, seed)
        return EpochOrder(self.train, processes, rank, seed, self.train.weights)

    def split(self, num: int) -> tuple[Tensor, Tensor, Tensor]:
        """Positions of training, validation and test images among ``num``."""
        tenth = max(1, round(HELD_SHARE * num))
        val, test = (tenth if n is None else n for n in (self.num_val, self.num_test))
        if val + test >= num:
            raise ValueError(
                f"num_val + num_test must be below the number of images {num}, got {val} + {test}"
            )
        order = torch.randperm(num, generator=make_generator(self.seed))
        return order[val + test :], order[:val], order[val : val + test]
