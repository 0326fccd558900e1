"""Wall times that compare: the contestants take turns, so that a busy machine slows all of them alike."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def take_turns(contestants: Mapping[str, Callable[[], Any]], rounds: int = 7) -> dict[str, list[float]]:
    """Seconds of each contestant in each of ``rounds`` rounds, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(rounds + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratios(seconds: Mapping[str, list[float]], unit: str) -> dict[str, tuple[float, float, float]]:
    """Lowest, median and highest ratio over the rounds of each contestant to that named ``unit``."""
    base = np.array(seconds[unit])
    quotients = {name: np.array(times) / base for name, times in seconds.items()}
    return {name: (float(q.min()), float(np.median(q)), float(q.max())) for name, q in quotients.items()}
