"""Shares of right answers, with the intervals that belong to counts."""

from dataclasses import dataclass

from scipy.stats import binomtest

from samplers.checks import check_counts, check_number


@dataclass(frozen=True)
class Share:
    """``correct`` of ``num``, and the Wilson interval ``low`` to ``high`` of the share."""

    correct: int
    num: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.correct / self.num


def share_of(correct: int, num: int, confidence: float = 0.99) -> Share:
    """The share ``correct`` / ``num`` with its Wilson interval.

    Raises ``ValueError`` unless 0 <= ``correct`` <= ``num``, ``num`` >= 1 and ``confidence`` lies
    in (0, 1).
    """
    check_counts("share_of", num=num)
    check_counts("share_of", least=0, correct=correct)
    check_number("share_of", "confidence", "in (0, 1)", confidence)
    if correct > num:
        raise ValueError(f"correct must be at most num, {num}, got {correct}")
    interval = binomtest(correct, num).proportion_ci(confidence, "wilson")
    return Share(correct, num, float(interval.low), float(interval.high))
