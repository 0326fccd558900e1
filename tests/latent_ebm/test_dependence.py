"""What no training row does stands out, although each column alone would allow it; a rule that
follows from few rows is none.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from latent_ebm.detection import LatentEBMDetector
from latent_ebm.detection.dependence import (
    APART,
    constant_combinations,
    dependence,
    two_valued_columns,
)


def one_hot(num: int, seed: int, extra: int = 0) -> np.ndarray:
    """Two one-hot codes of three levels, whose last levels never meet, and ``extra`` columns."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 3, (2, num))
    a[(a == 2) & (b == 2)] = 0
    return np.concatenate([np.eye(3)[a], np.eye(3)[b], rng.normal(size=(num, extra))], axis=1)


def identity(num: int, seed: int, error: float = 0.0, dim: int = 10) -> np.ndarray:
    """Columns of which the third is the first, up to ``error``."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num, dim)) * np.arange(1, dim + 1)
    x[:, 2] = x[:, 0] + error * rng.choice([-1, 1], num)
    return x


def total(num: int, seed: int, error: float = 0.0) -> np.ndarray:
    """Three parts and their total, rounded to two digits."""
    parts = np.random.default_rng(seed).gamma(2, 10, size=(num, 3))
    return np.concatenate([parts, parts.sum(1, keepdims=True) + error], axis=1).round(2)


@pytest.mark.parametrize("extra", [0, 2, 10, 20])
def test_a_combination_of_one_hot_codes_that_no_row_has_stands_out(extra: int) -> None:
    detector = LatentEBMDetector(random_state=0).fit(one_hot(400, 0, extra))
    usual, unseen, twice = (one_hot(100, seed, extra) for seed in (1, 2, 3))
    unseen[:, :6] = [0, 0, 1, 0, 0, 1]
    twice[:, :3] = [1, 1, 0]
    for broken in (unseen, twice):
        assert detector.score_samples(broken).max() < detector.score_samples(usual).min()
        assert (detector.predict(broken) == -1).all()
    assert (detector.predict(usual) == 1).mean() > 0.85


@pytest.mark.parametrize("error", [0.1, 1.0])
def test_a_broken_identity_stands_out(error: float) -> None:
    detector = LatentEBMDetector(random_state=0).fit(identity(300, 0))
    usual, broken = identity(100, 1), identity(100, 2, error)
    assert detector.score_samples(broken).max() < detector.score_samples(usual).min()
    worst = np.abs(detector.explain(broken).contribution).argsort(1)[:, -2:]
    assert_array_equal(np.sort(worst, 1), np.tile([0, 2], (100, 1)))


def test_parts_that_miss_their_total_stand_out_but_rounding_does_not() -> None:
    detector = LatentEBMDetector(random_state=0).fit(total(300, 0))
    usual, broken = total(100, 1), total(100, 2, 3.0)
    exact = usual.copy()
    exact[:, 3] = exact[:, :3].sum(1)
    assert detector.score_samples(broken).max() < detector.score_samples(usual).min()
    assert_allclose(detector.score_samples(exact), detector.score_samples(usual), atol=0.5)


def test_the_map_shows_the_identity_and_nothing_else() -> None:
    x = torch.as_tensor(identity(200, 0))
    x = (x - x.mean(0)) / x.std(0, correction=0)
    (axis,) = constant_combinations(x)
    assert_allclose(
        (axis / axis.norm()).abs().numpy(), np.eye(10)[[0, 2]].sum(0) / 2**0.5, atol=1e-9
    )
    assert float(axis.norm()) == pytest.approx(1000)  # not infinite, however exact it is
    assert not len(two_valued_columns(x))


@pytest.mark.parametrize(
    "x",
    [
        np.random.default_rng(0).normal(size=(10, 40)),  # each row adds an axis
        np.random.default_rng(0).normal(size=(200, 5)),
        np.concatenate([np.random.default_rng(0).normal(size=(50, 3)), np.ones((50, 2))], 1),
        np.concatenate([identity(100, 0), identity(5, 1, 2.0)] * 2),  # some rows break it
        np.random.default_rng(0).integers(0, 2, (300, 1)),
    ],
    ids=["few rows", "independent", "constant columns", "broken", "one column"],
)
def test_tables_without_rules(x: np.ndarray) -> None:
    assert dependence(torch.as_tensor(x, dtype=torch.float64)) is None


def test_columns_whose_combinations_are_rarely_repeated_are_no_code() -> None:
    x = torch.as_tensor(np.random.default_rng(0).integers(0, 2, (300, 12)).astype(float))
    used = two_valued_columns(x).abs().sum(0) > 0
    _, counts = x[:, used].unique(dim=0, return_counts=True)
    assert 1 < int(used.sum()) < 12
    assert int((counts == 1).sum()) <= 3


def test_rules_are_saved_and_new_rows_may_lift_them(tmp_path: Path) -> None:
    detector = LatentEBMDetector(random_state=0).fit(identity(300, 0))
    new = identity(50, 1, 1.0)
    detector.save(tmp_path)
    scores = detector.score_samples(new)
    assert_array_equal(LatentEBMDetector.load(tmp_path).score_samples(new), scores)
    assert (detector.partial_fit(new).score_samples(new) > scores + 1000).all()


def test_a_column_that_spreads_more_is_not_further_apart() -> None:
    code = torch.randint(2, (400, 2), generator=torch.Generator().manual_seed(0)).double()
    x = code * torch.tensor([1.0, 5.0])
    shown = two_valued_columns(x) @ torch.diag(torch.tensor([1.0, 5.0]).double())
    torch.testing.assert_close(shown, APART * torch.eye(2).double())


def test_a_rule_of_half_of_the_rows_is_none() -> None:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).double()
    for half in (0, 1):
        x[half::2] -= x[half::2].mean(0)
    for half in (0, 1):
        broken = x.clone()
        broken[half::2, 2] = broken[half::2, 0]
        assert not len(constant_combinations(broken))
    x[:, 2] = x[:, 0]
    assert len(constant_combinations(x)) == 1


def test_copies_do_not_narrow_the_automatic_threshold() -> None:
    ramp = np.linspace(0, 1, 100)[:, None] * [1, -1]
    X = np.concatenate([np.zeros((900, 2)), ramp])
    detector = LatentEBMDetector(random_state=0).fit(X)
    assert (detector.predict(ramp) == 1).mean() > 0.9
    assert (detector.predict(ramp + 3.0) == -1).all()
