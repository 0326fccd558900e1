"""Estimates with confidence intervals; those of shares come with the counts behind them."""

from typing import NamedTuple

import torch
from scipy.stats import binomtest
from torch import Tensor

from samplers.checks import check_counts, check_number


class Interval(NamedTuple):
    """An estimate and the ends of its confidence interval."""

    estimate: float
    low: float
    high: float


class Share(NamedTuple):
    """``correct`` of ``num``, and the confidence interval ``low`` to ``high`` of the share."""

    correct: int
    num: int
    low: float
    high: float

    @property
    def estimate(self) -> float:
        """The share ``correct / num``."""
        return self.correct / self.num


def share_of(correct: int, num: int, confidence: float = 0.99, exact: bool = False) -> Share:
    """The share ``correct / num`` of independent trials, with its interval.

    Args:
        correct: Number of trials that count.
        num: Number of trials, at least 1.
        confidence: Coverage of the interval, in (0, 1).
        exact: Whether the interval is that of Clopper and Pearson, which covers at least
            ``confidence`` whatever the share, or the shorter one of Wilson, which does so on
            average.

    Raises:
        ValueError: For numbers out of range.
    """
    check_counts("share_of", num=num)
    check_counts("share_of", least=0, correct=correct)
    check_number("share_of", "confidence", "in (0, 1)", confidence)
    if correct > num:
        raise ValueError(f"correct must be at most num, {num}, got {correct}")
    found = binomtest(correct, num).proportion_ci(confidence, "exact" if exact else "wilson")
    return Share(correct, num, float(found.low), float(found.high))


def basic_interval(estimate: float, resampled: Tensor, confidence: float) -> Interval:
    """The basic bootstrap interval ``2 estimate - quantile`` of ``resampled`` estimates
    (n,).
    """
    ends = resampled.new_tensor([(1 + confidence) / 2, (1 - confidence) / 2])
    low, high = (2 * estimate - torch.quantile(resampled, ends)).tolist()
    return Interval(estimate, low, high)
