"""Your own images with a caption for each: a folder with images and a table of captions.

The table is ``captions.csv``, with the columns ``file`` and ``caption``, or ``captions.jsonl``,
with an object ``{"file": ..., "caption": ...}`` per line. Files are named relative to the folder.
A third entry, ``weight``, says how often a training row is drawn, compared to the others, and a
fourth, ``cluster``, which rows are near copies of each other.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from latent_ebm.data.base import DataModule, Pair, make_generator
from latent_ebm.data.caption_table import read_captions
from latent_ebm.data.captioned import CaptionedSet, EpochOrder, vocabulary
from latent_ebm.data.images import decode
from latent_ebm.files.limits import MAX_ENTRIES
from latent_ebm.text import Tokenizer
from samplers.checks import check_counts, check_kind

HELD_SHARE = 0.1  # of the images, for validation and for test


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
    drawn in proportion to it, with replacement. Rows with the same ``cluster``, which are near
    copies, stay together: all of them are for training, or validation, or test.

    Args:
        path: The folder.
        size: Side in pixels to which every image is resized; null: images have one size already.
        batch_size: Rows of a batch.
        tokenizer: Turns captions into tokens; null: the words of all captions.
        num_val: Number of images for validation; null: a tenth. Fewer, if clusters do not fit.
        num_test: Number of images for test; null: a tenth. Fewer, if clusters do not fit.
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
        paths, texts, weights, clusters = read_captions(self.folder, table)
        parts = self.split(clusters)
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

    def split(self, clusters: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Positions of training, validation and test images, whose ``clusters`` stay together.

        Clusters come in random order, and go where there is room: to validation, else to test,
        else to training.
        """
        num = len(clusters)
        tenth = max(1, round(HELD_SHARE * num))
        room = [tenth if n is None else n for n in (self.num_val, self.num_test)]
        if sum(room) >= num:
            raise ValueError(
                f"num_val + num_test must be below the number of images {num}, got {room[0]} + "
                f"{room[1]}"
            )
        members: dict[str, list[int]] = {}
        order: list[int] = torch.randperm(num, generator=make_generator(self.seed)).tolist()
        for i in order:
            members.setdefault(clusters[i], []).append(i)
        val, test, train = (list[int]() for _ in range(3))
        for group in members.values():
            fits = (len(val) + len(group) <= room[0], len(test) + len(group) <= room[1], True)
            (val, test, train)[fits.index(True)].extend(group)
        for name, part, size in (("num_val", val, room[0]), ("num_test", test, room[1])):
            if not part:
                raise ValueError(
                    f"{name} must be at least the size of a cluster of near copies, got {size}"
                )
        return torch.tensor(train), torch.tensor(val), torch.tensor(test)
