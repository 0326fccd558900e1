"""Claims, decided by the seeds of a run: a Student interval of their mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t

from experiments.common import of_seeds
from experiments.tables import table
from latent_ebm.metrics.intervals import Interval, Share

LEVEL, SEEDS = 0.95, 3  # of intervals; seeds that decide
HEAD = ("claim", "difference", "limit", "verdict")
EQUAL = -0.05  # what a share may lose and still count as equal
Found = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """The claim ``text`` holds if ``value``, of the results of one seed by arm, exceeds
    ``least``.
    """

    text: str
    value: Callable[[dict[str, Found]], float]
    least: float = 0.0

    def row(self, seeds: Sequence[dict[str, Found]]) -> list[str]:
        """The claim, its mean and interval over ``seeds``, and whether it holds."""
        values = [self.value(arms) for arms in seeds]
        mean, low, high = interval(values)
        shown = f"{mean:.3f}" if len(values) < 2 else f"{mean:.3f} ({low:.3f} to {high:.3f})"
        limit = f"> {self.least:g}" if self.least else "> 0"
        number = f"{len(values)} seed{'s' if len(values) > 1 else ''}"
        return [self.text, shown, limit, f"{decide(values, self.least)}, {number}"]


def decided(claims: Sequence[Claim], seeds: Sequence[dict[str, Found]]) -> str:
    """A table of claims."""
    return table(HEAD, [claim.row(seeds) for claim in claims])


def by_seed(stored: Found, keys: Mapping[str, str]) -> list[dict[str, Found]]:
    """The results by arm of every seed that has all arms; ``keys`` holds the names of their runs,
    with {} for the seed.
    """
    found = {arm: of_seeds(stored, key) for arm, key in keys.items()}
    shared = set.intersection(*map(set, found.values()))
    return [{arm: runs[seed] for arm, runs in found.items()} for seed in sorted(shared)]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean, and the ends of its interval, if values are normal over seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, -np.inf, np.inf
    reach = t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return mean, mean - float(reach), mean + float(reach)


def decide(values: Sequence[float], least: float = 0.0) -> str:
    """Whether the mean exceeds ``least``: "holds" or "refuted" if the interval of at least three
    seeds lies on one side, else "undecided".
    """
    _, low, high = interval(values)
    if len(values) < SEEDS or low <= least <= high:
        return "undecided"
    return "holds" if low > least else "refuted"


def difference(key: str, first: str, second: str) -> Callable[[dict[str, Found]], float]:
    """How much larger a metric is of the arm ``first`` than of ``second``."""
    return lambda arms: estimate(arms[first][key]) - estimate(arms[second][key])


def as_list(found: Share | Interval) -> list[float]:
    """An estimate and the ends of its interval."""
    return [found.estimate, found.low, found.high]


def estimate(value: float | Sequence[float]) -> float:
    """The estimate of an interval, or the number."""
    return float(value[0] if isinstance(value, Sequence) else value)
