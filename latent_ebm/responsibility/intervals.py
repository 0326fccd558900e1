"""Shares with confidence intervals."""

from typing import NamedTuple

import torch
from scipy.stats import binomtest
from torch import Tensor

from samplers.checks import check_counts, check_numbers


class Interval(NamedTuple):
    """An estimate and the ends of its confidence interval."""

    estimate: float
    low: float
    high: float


def share_interval(hits: int, total: int, level: float = 0.95, exact: bool = False) -> Interval:
    """The share ``hits / total`` of independent trials.

    Args:
        hits: Number of hits.
        total: Number of trials, at least 1.
        level: Confidence level.
        exact: Whether the interval is that of Clopper and Pearson, which covers at least
            ``level`` whatever the share, or the shorter one of Wilson, which does so on average.

    Raises:
        ValueError: For numbers out of range.
    """
    check_counts("share_interval", total=total)
    check_counts("share_interval", least=0, hits=hits)
    check_numbers("share_interval", "in (0, 1)", level=level)
    if hits > total:
        raise ValueError(f"hits must be at most total, {total}, got {hits}")
    found = binomtest(hits, total).proportion_ci(level, "exact" if exact else "wilson")
    return Interval(hits / total, float(found.low), float(found.high))


def basic_interval(estimate: float, resampled: Tensor, level: float) -> Interval:
    """The basic bootstrap interval ``2 estimate - quantile`` of ``resampled`` estimates
    (n,).
    """
    ends = resampled.new_tensor([(1 + level) / 2, (1 - level) / 2])
    low, high = (2 * estimate - torch.quantile(resampled, ends)).tolist()
    return Interval(estimate, low, high)
