"""Data sets in memory and the data module they share.

A small data set is one tensor, and a batch of it is one indexing operation. A ``DataLoader`` asks
``TensorSet`` for all rows of a batch at once by ``__getitems__``, so that no Python runs per row.
The loader keeps its sampler, and Lightning can replace it by a distributed one.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from latent_ebm.conditions import UNKNOWN, Batch, label_condition
from latent_ebm.data.ranges import range_of
from samplers.checks import check_counts

T = TypeVar("T")
Pair = tuple[Tensor, Tensor | None]  # x (n, *event), label (n,) or None


class TensorSet(Dataset[Batch]):
    """Rows ``x`` (n, \\*event) with ``label`` (n,), all in memory; no label means -1 everywhere.

    Raises ``ValueError`` unless ``x`` is a floating-point tensor, finite, and has a row, and
    ``label`` has one integer per row.
    """

    def __init__(self, x: Tensor, label: Tensor | None = None) -> None:
        if not x.is_floating_point() or x.ndim < 2 or len(x) == 0:
            raise ValueError(
                f"x must be floating with shape (n >= 1, *event), got {x.dtype} {tuple(x.shape)}"
            )
        label = torch.full((len(x),), UNKNOWN) if label is None else label
        if label.shape != x.shape[:1] or label.is_floating_point() or label.is_complex():
            raise ValueError(
                f"label must be integers of shape ({len(x)},), got {label.dtype} "
                f"{tuple(label.shape)}"
            )
        self.x = x.float()
        self.condition = label_condition(label)
        bad = (~torch.isfinite(self.x).flatten(1).all(1)).nonzero().flatten()
        if len(bad):
            raise ValueError(
                f"x must be finite: {len(bad)} of {len(x)} rows are not, the first at index "
                f"{int(bad[0])}"
            )

    @property
    def label(self) -> Tensor:
        """Labels (n,) int64, -1 where unknown."""
        return self.condition["label"]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Batch:
        """One row, without a batch axis."""
        at = torch.tensor(range(len(self))[index])
        return Batch(self.x[index], self.condition.rows(index), at)

    def __getitems__(self, indices: list[int]) -> Batch:
        index = torch.as_tensor(indices)
        return Batch(self.x[index], self.condition.rows(index), index)


def collate(batch: T) -> T:
    """The identity: ``TensorSet.__getitems__`` has made the batch."""
    return batch


class Progress(TypedDict):
    """How far a loader has come: its sampler's ``epoch``, if it has one, and the number of batches
    ``taken`` in this epoch.
    """

    epoch: int | None
    taken: int


class ResumableLoader(DataLoader[Batch]):
    """A loader that can resume in the middle of an epoch: Lightning keeps its state in
    checkpoints.

    The order of an epoch must be a function of the epoch alone, as with a ``DistributedSampler``.
    """

    taken = 0
    resumed: Progress | None = None

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The batches of an epoch, without those taken before a checkpoint in the middle of it."""
        # read at the first batch: by then the sampler knows its epoch
        resumed, self.resumed = self.resumed, None
        self.taken = resumed["taken"] if resumed and resumed["epoch"] == self.epoch else 0
        for batch in islice(super().__iter__(), self.taken, None):
            self.taken += 1
            yield batch

    @property
    def epoch(self) -> int | None:
        """The sampler's epoch; None for a sampler without epochs, which starts anew."""
        return getattr(self.sampler, "epoch", None)

    def state_dict(self) -> Progress:
        return {"epoch": self.epoch, "taken": self.taken}

    def load_state_dict(self, state: Progress) -> None:
        self.resumed = None if state["epoch"] is None else state


def make_generator(seed: int, *stream: int) -> torch.Generator:
    """A separate generator for every ``(seed, *stream)``, independent of the global one."""
    state = np.random.SeedSequence([seed, *stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


class DataModule(LightningDataModule, ABC):
    """Base of all data modules. After ``setup``, ``train``, ``val`` and ``test`` are
    ``TensorSet``.

    A subclass defines ``load``. The training loader shuffles the rows; the order depends on
    ``seed``, the seed of ``seed_everything`` and the epoch alone. It drops an incomplete last
    batch if a whole one remains. Loaders do not touch the global random state. Checkpoints keep
    the ``range`` of the training rows in the units of the user's files (the least and the greatest
    value of every column, or of all pixels), and the ``names`` of the columns, if a header gives
    them. Batches are made by ``num_workers`` processes, or by the training process if it is 0: set
    it to more where rows are drawn anew, as in ``Scenes``, and a GPU waits for them.
    """

    train: TensorSet
    val: TensorSet
    test: TensorSet
    range: tuple[Tensor, Tensor] | None = None
    names: list[str] | None = None
    num_workers = 0

    def __init__(self, batch_size: int, seed: int) -> None:
        super().__init__()
        check_counts(self, batch_size=batch_size)
        check_counts(self, least=0, seed=seed)
        self.batch_size = batch_size
        self.seed = seed

    @abstractmethod
    def load(self) -> tuple[Pair, Pair, Pair]:
        """The training, validation and test rows, each ``(x, label)``; they depend on the
        arguments alone.
        """

    def setup(self, stage: str | None = None) -> None:
        """Load and split, once."""
        if not hasattr(self, "test"):
            self.train, self.val, self.test = (TensorSet(*pair) for pair in self.load())
        if self.range is None:
            self.range = range_of(self.inverse_transform(self.train.x))

    @property
    def files(self) -> list[Path]:
        """The files that are read. No command may write to them."""
        return []

    def transform(self, x: Tensor) -> Tensor:
        """Rows in the units of the user's files, converted to those of the model. Unchanged,
        unless a subclass overrides this.
        """
        return x

    def inverse_transform(self, x: Tensor) -> Tensor:
        """The inverse of ``transform``."""
        return x

    def as_pictures(self, x: Tensor) -> Tensor:
        """Images from a model, in [-1, 1]."""
        return x

    def state_dict(self) -> dict[str, object]:
        """What checkpoints keep of the training data, so that the model can read and write other
        data.
        """
        return {"range": self.range, "names": self.names} if self.range else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises ``ValueError`` for a state that ``state_dict`` cannot have written."""
        low, high = (end.clone() for end in state_dict["range"])
        names = state_dict["names"]
        if low.shape != high.shape or not (low <= high).all():
            raise ValueError(
                f"range must be two tensors of one shape in order, got {low} and {high}"
            )
        if names is not None and not (
            isinstance(names, list) and all(isinstance(n, str) for n in names)
        ):
            raise ValueError(f"names must be None or a list of texts, got {type(names).__name__}")
        self.range, self.names = (low, high), names

    def train_dataloader(self) -> DataLoader[Batch]:
        processes, rank = (
            (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        )
        # as Lightning seeds distributed samplers
        seed = self.seed + int(os.environ.get("PL_GLOBAL_SEED", "0"))
        order = self.order(processes, rank, seed)
        whole = len(self.train) // processes >= self.batch_size
        return ResumableLoader(**self.loading(self.train), sampler=order, drop_last=whole)

    def order(self, processes: int, rank: int, seed: int) -> DistributedSampler[int]:
        """The order of the training rows, for the process ``rank`` of all ``processes``."""
        return DistributedSampler(self.train, processes, rank, seed=seed)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(**self.loading(self.val))

    def test_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(**self.loading(self.test))

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self.test_dataloader()

    def loading(self, rows: TensorSet) -> dict[str, Any]:
        """The arguments that all loaders of ``rows`` share, as keywords, because Lightning
        rebuilds loaders from their keywords.
        """
        own = torch.Generator()  # without it, loaders would draw from the global random state
        return {
            "dataset": rows,
            "batch_size": self.batch_size,
            "collate_fn": collate,
            "generator": own,
            "num_workers": self.num_workers,
        }


class OtherData(DataModule):
    """Stands for a data module of another library, whose rows, files and units are unknown."""

    def __init__(self, module: LightningDataModule) -> None:
        super().__init__(batch_size=1, seed=0)
        self.kind = type(module).__name__

    def load(self) -> tuple[Pair, Pair, Pair]:
        raise ValueError(
            f"the rows of a {self.kind} must be named by a file: it is no data module of this "
            "library"
        )
