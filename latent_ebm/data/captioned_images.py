"""Your own images with a caption for each: a folder with images and a table of captions.

The table is ``captions.csv``, with the columns ``file`` and ``caption``, or ``captions.jsonl``,
with an object ``{"file": ..., "caption": ...}`` per line. Files are named relative to the folder.
"""

import csv
import json
import reprlib
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from latent_ebm.data.base import DataModule, Pair, make_generator
from latent_ebm.data.captioned import CaptionedSet
from latent_ebm.data.images import decode
from latent_ebm.files.images import SUFFIXES, find_images
from latent_ebm.files.limits import MAX_ENTRIES
from latent_ebm.foreign import check_file, reading
from latent_ebm.text import Tokenizer, WordTokenizer
from latent_ebm.text.tokenizer import check_prompt, split_words
from samplers.checks import check_counts, check_kind

TABLES, COLUMNS = ("captions.csv", "captions.jsonl"), ("file", "caption")
MAX_TABLE = 2**28  # bytes
MAX_WORDS = 256  # of a caption, unless a tokenizer is given: a batch is as wide as the longest
HELD_SHARE = 0.1  # of the images, for validation and for test


def find_table(folder: Path) -> Path:
    """The table of captions of ``folder``.

    Raises ``FileNotFoundError`` if there is none, ``ValueError`` if there are two or it is large.
    """
    found = [folder / name for name in TABLES if (folder / name).is_file()]
    if not found:
        rule = f"path must name a folder with {' or '.join(TABLES)}"
        raise FileNotFoundError(f"{rule}, got {str(folder)!r}")
    if len(found) > 1:
        raise ValueError(f"{folder} must hold one table of captions, got {' and '.join(TABLES)}")
    if (size := found[0].stat().st_size) > MAX_TABLE:
        raise ValueError(f"{found[0]} must have at most {MAX_TABLE:,} bytes, got {size:,}")
    return check_file(found[0])


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a table of captions. Raises ``ValueError`` unless all have a file and a caption."""
    what = "a file and a caption per row"
    with reading(path, what), path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(file, strict=True) if path.suffix == ".csv" else objects(file)
        rows = []
        for number, row in enumerate(lines, 1):
            for name in COLUMNS:
                if not isinstance(row.get(name), str) or not row[name].strip():
                    raise ValueError(f"row {number} has no {name}")
            rows.append({name: row[name].strip() for name in COLUMNS})
        if not rows:
            raise ValueError("it has no rows")
    return rows


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


def read_captions(folder: Path) -> tuple[list[Path], list[str]]:
    """Images of ``folder`` and their captions, in the order of the table.

    Warns of images without a caption. Raises ``ValueError`` if an image is missing, named twice or
    outside of the folder, or if a caption holds control characters.
    """
    table = find_table(folder)
    rows = read_table(table)
    names = [str(PurePosixPath(row["file"])) for row in rows]
    first: dict[str, int] = {}
    for number, (name, row) in enumerate(zip(names, rows, strict=True), 1):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{table} must name images inside its folder, got {name!r}")
        if (before := first.setdefault(name, number)) != number:
            raise ValueError(
                f"{table} must name every image once, got {name!r} in rows {before} and {number}"
            )
        check_prompt(f"the caption of {name!r} in {table}", row["caption"])
    check_images(folder, table, names)
    return [folder / name for name in names], [row["caption"] for row in rows]


def check_images(folder: Path, table: Path, names: Sequence[str]) -> None:
    """Raise ``ValueError`` for ``names`` that are no images of ``folder``; warn of others."""
    present = {path.relative_to(folder).as_posix() for path in find_images(folder)}
    if odd := [name for name in names if name not in present and (folder / name).is_file()]:
        raise ValueError(f"{table} must name images ({', '.join(SUFFIXES)}), got {odd[0]!r}")
    if missing := [name for name in names if name not in present]:
        raise ValueError(
            f"{table} must name images that exist: {len(missing)} of {len(names)} do not, the "
            f"first {missing[0]!r}"
        )
    if left := len(present - set(names)):
        warnings.warn(f"{left} images of {folder} have no caption and are left out", stacklevel=2)


class CaptionedImageSet(CaptionedSet):
    """Pictures ``x`` (n, 3, side, side), and the caption of each."""

    def __init__(self, x: Tensor, texts: Sequence[str], tokenizer: Tokenizer) -> None:
        super().__init__(x)
        self.texts, self.tokenizer = list(texts), tokenizer

    def rows(self, index: Sequence[int]) -> tuple[Tensor, list[str]]:
        return self.x[torch.as_tensor(index)], [self.texts[i] for i in index]


class CaptionedImages(DataModule):
    """Your own images (3, size, size) in [-1, 1]; batches carry the ``tokens`` of their captions.

    The folder holds the images, also in subfolders, and a table of captions: ``captions.csv`` with
    the columns ``file`` and ``caption``, or ``captions.jsonl`` with such an object per line.

    Args:
        path: The folder.
        size: Side in pixels to which every image is resized; null: images have one size already.
        batch_size: Rows of a batch.
        tokenizer: Turns captions into tokens; null: the words of all captions.
        num_val: Number of images for validation; null: a tenth.
        num_test: Number of images for test; null: a tenth.
        seed: Decides the order and the split.
        max_entries: Largest number of pixel values that are decoded.

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
    ) -> None:
        super().__init__(batch_size, seed)
        given = {"size": size, "num_val": num_val, "num_test": num_test}
        check_counts(self, **{k: v for k, v in given.items() if v is not None})
        check_counts(self, max_entries=max_entries)
        if tokenizer is not None:
            check_kind(self, Tokenizer, tokenizer=tokenizer)
        self.path, self.size, self.tokenizer = path, size, tokenizer
        self.num_val, self.num_test, self.max_entries = num_val, num_test, max_entries

    @property
    def folder(self) -> Path:
        """The folder, with ``~`` expanded."""
        return Path(self.path).expanduser()

    @property
    def files(self) -> list[Path]:
        return [self.folder]

    def load(self) -> tuple[Pair, Pair, Pair]:
        self.setup()
        return (self.train.x, None), (self.val.x, None), (self.test.x, None)

    def setup(self, stage: str | None = None) -> None:
        """Read, check and split everything, once."""
        if hasattr(self, "test"):
            return
        paths, texts = read_captions(self.folder)
        parts = self.split(len(paths))
        tokenizer = self.tokenizer or vocabulary(texts)
        tokenizer(texts)  # a caption that it refuses is refused before training
        x = decode(paths, self.size, self.max_entries)
        self.tokenizer = tokenizer
        self.train, self.val, self.test = (
            CaptionedImageSet(x[rows], [texts[i] for i in rows.tolist()], tokenizer)
            for rows in parts
        )
        super().setup(stage)

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


def vocabulary(texts: Sequence[str]) -> WordTokenizer:
    """The tokenizer of all words of ``texts``, as long as the longest of these.

    Raises ``ValueError`` if that has more than ``MAX_WORDS`` words.
    """
    longest = max(texts, key=lambda text: len(split_words(text)))
    if (num := len(split_words(longest))) > MAX_WORDS:
        raise ValueError(
            f"captions must have at most {MAX_WORDS} words, unless a tokenizer is given, got "
            f"{num:,}: {reprlib.repr(longest)}"
        )
    return WordTokenizer.count(texts, max_words=max(1, num))
