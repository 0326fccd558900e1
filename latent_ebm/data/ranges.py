"""Ranges of data, to notice rows in other units than those of the training data."""

import torch
from torch import Tensor

TOLERANCE = 0.25  # of a range, by which the ends of images' ranges may differ


def range_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value of every column (d,) of rows x (n, d), or of all pixels
    () of images.
    """
    return (x.amin(0), x.amax(0)) if x.ndim == 2 else (x.min(), x.max())


def compare_ranges(x: Tensor, low: Tensor, high: Tensor) -> str | None:
    """What is odd about the range of ``x`` (n, \\*event) compared with the range ``low`` to
    ``high`` of the training data; ``None`` if nothing is.

    Images are odd if an end of their range is off by more than a quarter of the training range.
    Rows are odd if most of them have an entry that lies outside the training range by more than
    its width. A few such rows are not odd, but anomalies.
    """
    width = (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    if x.ndim > 2:
        least, most = range_of(x)
        off = max((least - low).abs(), (most - high).abs()) > TOLERANCE * width
        return (
            f"pixels have the range {span(least, most)}, those of the training data "
            f"{span(low, high)}"
            if off
            else None
        )
    far = ((x < low - width) | (x > high + width)).any(1)
    if 2 * int(far.sum()) <= len(x):
        return None
    j = int(((x.amin(0) - low).abs() / width).argmax())
    return (
        f"{int(far.sum())} of {len(x)} rows lie far outside the range of the training data; "
        f"entry {j} from 0 has the "
        f"range {span(x[:, j].min(), x[:, j].max())}, in the training data {span(low[j], high[j])}"
    )


def span(low: Tensor, high: Tensor) -> str:
    return f"[{low.item():.4g}, {high.item():.4g}]"
