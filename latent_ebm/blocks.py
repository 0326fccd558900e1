"""Many rows, a block at a time, so that memory does not grow with their number."""

from collections.abc import Callable

import torch
from torch import Tensor

from latent_ebm.conditions import Condition

BLOCK = 500  # rows that are computed at once


def in_blocks(
    function: Callable[[Tensor, Condition], Tensor], x: Tensor, condition: Condition
) -> Tensor:
    """``function(x, condition)`` like rows of ``x`` (num, \\*event), of at most ``BLOCK`` rows at
    once.
    """
    return torch.cat([function(x[rows], condition.rows(rows)) for rows in blocks(len(x))])


def blocks(num: int) -> list[slice]:
    """``num`` rows as slices of at most ``BLOCK`` rows; one of none if there are no rows."""
    return [slice(i, i + BLOCK) for i in range(0, max(num, 1), BLOCK)]
