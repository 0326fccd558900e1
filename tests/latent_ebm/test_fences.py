"""The automatic threshold of a detector is that of rows which it has not seen."""

from typing import Any

import numpy as np
import pytest
import torch

from latent_ebm.detection import LatentEBMDetector
from latent_ebm.detection.fences import tukey_fence


def factors(num: int, seed: int = 0, mixing: int = 99) -> np.ndarray:
    """Rows (num, 100) of five factors and unit noise."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(num, 5)) @ np.random.default_rng(mixing).normal(size=(5, 100))
    return shared + rng.normal(size=(num, 100))


def wide(**options: Any) -> LatentEBMDetector:
    return LatentEBMDetector(**{"energy": "reconstruction", "random_state": 0, **options})


@pytest.mark.parametrize(
    ("options", "num", "copies"),
    [
        ({}, 150, 1),
        ({}, 150, 3),
        ({"latent_dim": 5}, 150, 1),
        ({"max_exemplars": 80}, 300, 1),
        ({"trim": 0.1}, 300, 1),
    ],
)
def test_the_fence_of_residuals_is_that_of_new_rows(
    options: dict[str, Any], num: int, copies: int
) -> None:
    detector = wide(**options).fit(np.repeat(factors(num), copies, 0))
    new = factors(2000, seed=1)
    scores = detector.score_samples(new)
    expected = tukey_fence(scores, torch.from_numpy(new))
    assert abs(detector.offset_ - expected) < 0.5 * np.subtract(*np.quantile(scores, [0.75, 0.25]))
    assert (detector.predict(new) == -1).mean() < 0.05
    assert (detector.predict(new + 5 * factors(2000, mixing=98)) == -1).mean() > 0.95


def test_more_axes_than_rows_bear() -> None:
    detector = wide().fit(factors(40))
    new = factors(500, seed=1)
    assert (detector.predict(new) == 1).mean() > 0.95
    assert (detector.predict(new + 5 * factors(500, mixing=98)) == -1).mean() > 0.95


def test_rows_off_the_axes_of_an_older_fit_set_the_fence() -> None:
    detector = wide(warm_start=True, latent_dim=5).fit(factors(150))
    other = factors(150, seed=1, mixing=98)
    assert (detector.predict(other) == -1).mean() > 0.5
    assert (detector.fit(other).predict(other) == 1).mean() > 0.95
