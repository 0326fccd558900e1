"""Fitting a detector and scoring 10,000 rows with it: ``python -m
experiments.benchmarks.detector``

Tables of 20 columns, a mixture of five Gaussians; PyOD at its defaults. The unit is PyOD's
AutoEncoder.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from experiments.benchmarks.timing import Ratios, available, compare, measured
from latent_ebm.detection import LatentEBMDetector

ROWS, COLUMNS, SCORED, ROUNDS = 2000, 20, 10_000, 7


def rows(num: int, seed: int) -> np.ndarray:
    """Rows of the mixture."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(scale=3, size=(5, COLUMNS))
    return centres[rng.integers(5, size=num)] + rng.normal(size=(num, COLUMNS))


def auto_encoder() -> Any:
    from pyod.models.auto_encoder import AutoEncoder  # pyright: ignore[reportMissingImports]

    return AutoEncoder(verbose=0)


def variational() -> Any:
    from pyod.models.vae import VAE  # pyright: ignore[reportMissingImports]

    return VAE(verbose=0)


def builders(
    run: Callable[[Any], Callable[[], Any]],
) -> dict[str, Callable[[], Callable[[], Any]]]:
    """What is done with each detector, once its library is there."""
    makers = {
        "PyOD AutoEncoder": auto_encoder,
        "PyOD VAE": variational,
        "LatentEBMDetector": partial(LatentEBMDetector, max_stages=4),
        "LatentEBMDetector, no stages": partial(LatentEBMDetector, max_stages=0),
    }
    return {name: lambda make=make: run(make()) for name, make in makers.items()}


def fit() -> Ratios:
    """Time to fit."""
    x = rows(ROWS, 1)
    contestants = available(builders(lambda detector: lambda: detector.fit(x)))
    return compare(contestants, next(iter(contestants)), 3)


def score() -> Ratios:
    """Time to score."""
    train, x = rows(ROWS, 1), rows(SCORED, 2)
    contestants = available(
        builders(lambda detector: partial(detector.fit(train).decision_function, x))
    )
    return compare(contestants, next(iter(contestants)), ROUNDS)


def main() -> None:
    measured("detector-score", score, rows=ROWS, columns=COLUMNS, scored=SCORED)
    measured("detector-fit", fit, rows=ROWS, columns=COLUMNS)


if __name__ == "__main__":
    main()
