"""Ranges of data, so that rows in other units than the training data's are noticed."""

import torch
from torch import Tensor

TOLERANCE = 0.25  # of a range, by which the ends of images' ranges may differ


def range_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest value: of every column (d,) of rows x (n, d), of all pixels () of
    images.
    """
    return (x.amin(0), x.amax(0)) if x.ndim == 2 else (x.min(), x.max())


def compare_ranges(x: Tensor, low: Tensor, high: Tensor) -> str | None:
    """What is odd about the range of ``x`` (n, \\*event) next to that of the training data;
    ``None`` if nothing is.

    Images are odd if an end of their range is off by a quarter of the training images' range; rows
    are if most of them have an entry further outside the training range than that is wide. A few
    rows may: these are unusual rows.
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
