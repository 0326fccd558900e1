"""CPU times that compare: the contestants take turns, so that a busy machine slows all of them
alike.

A benchmark is a function that returns ``{contestant: (lowest, median, highest) ratio to the
unit}`` and is stored by ``measured``. Run it on one thread (``OMP_NUM_THREADS=1``); ``--fresh``
measures again. Peers come with ``pip install -e ".[bench]"``; those that are not installed are
left out.
"""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from experiments.common import cached

Contestants = Mapping[str, Callable[[], Any]]
Ratios = dict[str, tuple[float, float, float]]


def take_turns(contestants: Contestants, rounds: int = 7) -> dict[str, list[float]]:
    """CPU seconds of each contestant in each of ``rounds`` rounds, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(rounds + 1):
        for name, run in contestants.items():
            start = time.process_time()
            run()
            if round_:
                seconds[name].append(time.process_time() - start)
    return seconds


def ratios(seconds: Mapping[str, list[float]], unit: str) -> Ratios:
    """Lowest, median and highest ratio over the rounds of each contestant to that named
    ``unit``.
    """
    base = np.array(seconds[unit])
    quotients = {name: np.array(times) / base for name, times in seconds.items()}
    return {
        name: (float(q.min()), float(np.median(q)), float(q.max()))
        for name, q in quotients.items()
    }


def compare(contestants: Contestants, unit: str, rounds: int = 7) -> Ratios:
    """Ratios of ``take_turns``; the CPU seconds of the unit are kept as ``"unit, ms"``."""
    seconds = take_turns(contestants, rounds)
    scale = 1e3 * np.array(seconds[unit])
    return {
        "unit, ms": (float(scale.min()), float(np.median(scale)), float(scale.max())),
        **ratios(seconds, unit),
    }


def available(
    builders: Mapping[str, Callable[[], Callable[[], Any]]],
) -> dict[str, Callable[[], Any]]:
    """The contestants whose libraries are installed."""
    found = {}
    for name, build in builders.items():
        try:
            found[name] = build()
        except ModuleNotFoundError as error:
            print(f"{name} left out: {error.name} is not installed", flush=True)
    return found


def repeated(run: Callable[[], Any], times: int) -> Callable[[], None]:
    """``run``, so many times over: clocks are coarse."""

    def many() -> None:
        for _ in range(times):
            run()

    return many


def measured(name: str, measure: Callable[[], dict[str, Any]], **config: Any) -> dict[str, Any]:
    """The result of ``measure``, stored as ``benchmarks/<name>``; computed again under
    ``--fresh``.
    """
    torch.set_num_threads(1)
    return cached(f"benchmarks/{name}", config, measure, fresh="--fresh" in sys.argv[1:])
