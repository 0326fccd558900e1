"""The user's own rows, from a file that ``latent_ebm.files`` can read."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from latent_ebm.data.base import DataModule, Pair, make_generator
from latent_ebm.files import MAX_ENTRIES, Reader
from samplers.checks import check_kind

RELATIVE_FLOOR = 1e-12  # a standard deviation below this share of the mean is a rounding error


class Arrays(DataModule):
    """Rows of a file: .npz (array ``key``, and labels ``y`` if there are any), .npy, .csv, .tsv or
    .parquet (with a column ``label`` of labels, if there is one).

    After ``setup``, ``mean`` and ``scale`` (\\*event) standardise rows, and ``names`` are the
    names of the columns, if there is a header. Checkpoints keep all three: a model reads and
    writes the units of the file, and new rows are standardised like its training rows.

    Args:
        path: the file.
        batch_size: rows of a batch.
        val_fraction: part of the rows, drawn at random, that is held out for validation.
        test_fraction: part of the rows that is held out for testing.
        standardize: shift and scale every column to mean 0 and variance 1 on the training rows; a
            constant column is only shifted.
        key: the array of rows in an .npz.
        seed: seed of the random split.
        id: see ``files.Reader``, as for all arguments below.
        drop: columns to leave out.
        sep: what separates cells.
        header: whether the first line names the columns.
        missing: what to do about rows with missing values.
        max_entries: largest number of entries of the file.
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
        id: str | None = None,
        drop: Sequence[str] = (),
        sep: str | None = None,
        header: bool | None = None,
        missing: str = "refuse",
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        super().__init__(batch_size, seed)
        check_kind(self, bool, standardize=standardize)
        for name, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            if not 0 < value < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        if val_fraction + test_fraction >= 1:
            raise ValueError(
                f"val_fraction + test_fraction must be below 1, got {val_fraction} + "
                f"{test_fraction}"
            )
        self.path, self.standardize = Path(path).expanduser(), standardize
        self.reader = Reader(id, drop, sep, header, missing, key, max_entries)
        self.val_fraction, self.test_fraction = val_fraction, test_fraction

    @property
    def files(self) -> list[Path]:
        return [self.path]

    def load(self) -> tuple[Pair, Pair, Pair]:
        rows = self.reader.read(self.path, self.names)
        for note in rows.notes:
            warnings.warn(f"{self.path}: {note}", stacklevel=2)
        x = torch.from_numpy(rows.x)
        num_val, num_test = (
            max(1, round(f * len(x))) for f in (self.val_fraction, self.test_fraction)
        )
        if len(x) <= num_val + num_test:
            raise ValueError(
                f"{self.path} must hold at least 3 rows to be split in three, got {len(x)}"
            )
        order = torch.randperm(len(x), generator=make_generator(self.seed))
        val, test, train = order.split([num_val, num_test, len(x) - num_val - num_test])
        if not hasattr(self, "mean"):
            self.mean, self.scale = self._statistics(x[train])
            self.names = rows.names if rows.has_header else None
        x = self.transform(x)
        label = torch.full((len(x),), -1) if rows.label is None else torch.from_numpy(rows.label)
        return (x[train], label[train]), (x[val], label[val]), (x[test], label[test])

    def _statistics(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.standardize:
            return torch.zeros_like(x[0]), torch.ones_like(x[0])
        mean, scale = x.mean(0), x.std(0, correction=0)
        return mean, torch.where(scale <= RELATIVE_FLOOR * mean.abs(), 1.0, scale)

    def transform(self, x: torch.Tensor) -> torch.Tensor:
        """Rows of a file (n, \\*event), standardised, in float32."""
        self._prepare(x)
        return ((x.cpu().double() - self.mean) / self.scale).float()

    def inverse_transform(self, x: torch.Tensor) -> torch.Tensor:
        """Standardised rows (n, \\*event) in the units of the file, in float64."""
        self._prepare(x)
        return x.cpu().double() * self.scale + self.mean

    def _prepare(self, x: torch.Tensor) -> None:
        """Make sure that the statistics are known, from a checkpoint or from the rows of ``path``,
        and that they fit ``x``.
        """
        if not hasattr(self, "mean"):
            self.setup()
        if x.shape[1:] != self.mean.shape:
            raise ValueError(
                f"x must have the shape (n, *{tuple(self.mean.shape)}) of the data, got "
                f"{tuple(x.shape)}"
            )

    def as_pictures(self, x: torch.Tensor) -> torch.Tensor:
        """Standardised images in [-1, 1], the range of the training images."""
        x = self.inverse_transform(x)
        low, high = self.range or (x.min(), x.max())
        return 2 * (x - low) / (high - low) - 1

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return {**state, "mean": self.mean, "scale": self.scale} if state else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Standardise by a checkpoint's statistics, including rows that are already loaded."""
        super().load_state_dict(state_dict)
        mean, scale = state_dict["mean"].clone(), state_dict["scale"].clone()
        if mean.shape != scale.shape or not (mean.isfinite().all() and (scale > 0).all()):
            raise ValueError("mean and scale must have one shape, be finite, and scale positive")
        self.mean, self.scale = mean, scale
        if hasattr(self, "test"):
            del self.test
            self.setup()
