"""Warnings that promises may not hold: how often they come where all is well, and that they come
where it is not.
"""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.datasets import load_digits

from latent_ebm.detection.exchangeability import (
    FALSE_ALARMS,
    MAX_UNUSUAL,
    order_p_value,
    shift_p_value,
)
from latent_ebm.detection.findings import Findings, shift_warnings


def draw(rng: np.random.Generator, num: int) -> np.ndarray:
    return rng.normal(size=(num, 4))


def counts(rng: np.random.Generator, num: int) -> np.ndarray:
    """Rows of which many are equal, so that nearest neighbours are many."""
    return rng.poisson(0.4, size=(num, 2)).astype(float)


@pytest.mark.parametrize("source", [draw, counts])
def test_order_of_draws_is_a_false_alarm_as_often_as_said(
    source: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latent_ebm.detection.exchangeability.NUM_PERMUTATIONS", 99)
    rng, repetitions = np.random.default_rng(0), 300
    p = np.array([order_p_value(source(rng, 40), seed) for seed in range(repetitions)])
    for level in (0.05, 0.2, 0.5):
        error = np.sqrt(level * (1 - level) / repetitions)
        assert np.mean(p <= level) < level + 3 * error
        assert source is counts or np.mean(p <= level) > level - 3 * error


def drift(rng: np.random.Generator) -> np.ndarray:
    return draw(rng, 200) + np.linspace(0, 4, 200)[:, None]


def groups(rng: np.random.Generator) -> np.ndarray:
    return draw(rng, 200) + np.repeat(draw(rng, 20), 10, 0)


def in_turn(rng: np.random.Generator) -> np.ndarray:
    """Copies of ten rows, always in the same turn, and every other copy beside itself."""
    return np.repeat(np.tile(draw(rng, 50), (2, 1)), 2, 0) + 0.01 * draw(rng, 200)


@pytest.mark.parametrize("source", [drift, groups, in_turn])
def test_order_that_tells_something_is_seen(source: Callable[..., np.ndarray]) -> None:
    x = source(np.random.default_rng(1))
    assert order_p_value(x) <= FALSE_ALARMS
    assert order_p_value(np.random.default_rng(2).permutation(x)) > FALSE_ALARMS
    assert order_p_value(x) == order_p_value(x)


def test_order_of_writers_is_seen() -> None:
    images = load_digits(return_X_y=True)[0].astype(float)
    assert order_p_value(images[:400]) <= FALSE_ALARMS
    assert order_p_value(np.random.default_rng(0).permutation(images)[:400]) > FALSE_ALARMS


def test_few_rows_and_copies_raise_no_alarm() -> None:
    assert order_p_value(np.zeros((50, 3))) > FALSE_ALARMS
    assert order_p_value(np.arange(4.0).reshape(2, 2)) > FALSE_ALARMS


@pytest.mark.parametrize(("held_out", "num"), [(20, 400), (100, 100), (500, 60), (9, 1)])
@pytest.mark.parametrize("unusual", [0.0, MAX_UNUSUAL])
def test_shifts_are_false_alarms_no_more_often_than_said(
    held_out: int, num: int, unusual: float
) -> None:
    rng, repetitions = np.random.default_rng(held_out), 400
    alarms = [
        shift_p_value(p_values(rng, held_out, num, unusual), held_out) <= 0.05
        for _ in range(repetitions)
    ]
    assert np.mean(alarms) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)


def test_shifts_are_seen() -> None:
    rng = np.random.default_rng(0)
    found = [shift_p_value(p_values(rng, 200, 120, 0.0, shift=1.0), 200) for _ in range(50)]
    assert np.mean(np.array(found) <= FALSE_ALARMS) > 0.9
    assert (
        np.mean(
            [shift_p_value(p_values(rng, 200, 120, 0.5), 200) <= FALSE_ALARMS for _ in range(50)]
        )
        == 1
    )


def p_values(
    rng: np.random.Generator, held_out: int, num: int, unusual: float, shift: float = 0.0
) -> np.ndarray:
    scores = rng.normal(size=num) - shift
    scores[: int(unusual * num)] -= 100
    return (1 + (rng.normal(size=held_out) <= scores[:, None]).sum(1)) / (held_out + 1)


def test_the_warning_says_how_many() -> None:
    p = np.concatenate([np.full(45, 0.05), np.full(40, 0.4), np.full(35, 0.8)])
    findings = Findings(p, p, p < 0, np.arange(199.0), 0.0, 0.1)
    (text,) = shift_warnings(findings, "images")
    assert text.startswith(
        "Of the 120 new images, 45 score in the lowest tenth of the normal images and 85 in the "
        "lower"
    )
    assert shift_warnings(findings._replace(p_values=np.linspace(0.01, 1, 120)), "images") == []
