"""``latent-ebm predict``: what a rule says of every row of a data set, as a table."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from latent_ebm.cli.files import check_folder
from latent_ebm.model import EnergyTerms
from latent_ebm.writing import atomic_path


def predictions_path(checkpoint: Path | None) -> Path:
    """Where predictions of a ``checkpoint`` go: ``NAME-predictions.csv`` beside it, or
    ``predictions.csv`` here without one.

    Raises ``FileExistsError`` if that is there already, ``OSError`` if it cannot be written.
    """
    path = (
        Path("predictions.csv")
        if checkpoint is None
        else checkpoint.with_name(f"{checkpoint.stem}-predictions.csv")
    )
    if path.exists():
        raise FileExistsError(f"{str(path)!r} holds earlier predictions: move or remove it")
    check_folder(path.parent)
    return path


def write_predictions(path: Path, predictions: list[Any]) -> int:
    """Write ``predictions``, one a batch, or lists of these, one a loader, as rows of a table.
    Returns their number.
    """
    table = pd.concat(
        [pd.DataFrame(columns(batch)) for batch in batches(predictions)], ignore_index=True
    )
    with atomic_path(path) as draft:
        table.to_csv(draft, index_label="index", float_format="%.6g")
    return len(table)


def batches(predictions: list[Any]) -> Iterator[Any]:
    for part in predictions:
        yield from part if isinstance(part, list) else [part]


def columns(batch: Any) -> dict[str, Any]:
    """The columns (batch,) of what a rule predicts: energy terms, figures by name, or features
    (batch, d).
    """
    if isinstance(batch, EnergyTerms):
        batch = batch.columns()
    if isinstance(batch, Tensor):
        batch = {f"feature_{j}": column for j, column in enumerate(batch.flatten(1).T)}
    if not isinstance(batch, Mapping):
        raise ValueError(
            "predict_step must give energy terms, a tensor or figures by name, got "
            f"{type(batch).__name__}"
        )
    return {name: numbers(value) for name, value in batch.items()}


def numbers(column: Tensor) -> np.ndarray:
    """``column`` in a precision that NumPy knows."""
    narrow = column.is_floating_point() and column.itemsize < 4
    return column.detach().cpu().to(torch.float32 if narrow else column.dtype).numpy()
