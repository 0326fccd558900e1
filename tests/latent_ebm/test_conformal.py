"""Conformal p-values keep their promises on simulated rows, whatever the detector; decisions agree with them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from latent_ebm.applications import ConformalCalibrator, LatentEBMDetector


class FirstColumn(BaseEstimator):
    """Scores rows by their first number; learns nothing."""

    def fit(self, X: Any, y: Any = None) -> "FirstColumn":
        self.is_fitted_ = True
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        return np.asarray(X)[:, 0]


def calibrated(scores: Any, **options: Any) -> ConformalCalibrator:
    """A calibrator whose held-out rows have these scores."""
    return ConformalCalibrator(FirstColumn().fit(None), **options).calibrate(np.reshape(scores, (-1, 1)))


@pytest.mark.filterwarnings("ignore:alpha = 0.1 is below the least p-value")
@parametrize_with_checks([ConformalCalibrator(LatentEBMDetector(max_stages=0))])
def test_scikit_learn_estimator(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_p_values_by_hand_never_smaller_for_ties() -> None:
    calibrator = calibrated([3.0, 1.0, 2.0, 2.0], alpha=0.5)
    p = calibrator.p_values(np.array([[0.0], [1.0], [1.5], [2.0], [2.5], [9.0]]))
    assert_allclose(p, np.array([1, 2, 2, 4, 4, 5]) / 5)


def test_p_values_of_normal_rows_are_uniform_on_their_lattice() -> None:
    # Exchangeable scores: with n held-out ones, p is uniform on 1/(n+1), ..., 1 exactly.
    n, repetitions = 19, 20_000
    scores = np.random.default_rng(0).normal(size=(repetitions, n + 1))
    levels = np.array([calibrated(s[:-1]).p_values(s[-1:, None])[0] for s in scores[:2000]])
    counts = np.bincount(np.rint(levels * (n + 1)).astype(int), minlength=n + 2)[1:]
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(
    "detector",
    [
        LatentEBMDetector(max_stages=0, latent_dim=2),
        IsolationForest(n_estimators=20, random_state=0),
        LocalOutlierFactor(novelty=True),
        make_pipeline(StandardScaler(), EllipticEnvelope(random_state=0)),
    ],
    ids=lambda d: type(d).__name__,
)
def test_false_positive_rates_are_the_nominal_ones(detector: Any) -> None:
    # A split has an error of its own, of variance alpha (1 - alpha) / (n + 2), beside that of the test rows.
    rng, splits, size = np.random.default_rng(1), 10, 1000
    mixing = rng.normal(size=(3, 3))
    p = []
    for seed in range(splits):
        train, test = (rng.standard_t(4, size=(num, 3)) @ mixing for num in (size + 250, size))
        p.append(ConformalCalibrator(detector, calibration_size=0.8, random_state=seed).fit(train).p_values(test))
    for alpha in (0.01, 0.05, 0.1):
        nominal = np.floor(alpha * (size + 1)) / (size + 1)
        error = np.sqrt(nominal * (1 - nominal) * (1 / size + 1 / (size + 2)) / splits)
        assert abs(np.mean(np.array(p) <= alpha) - nominal) < 3 * error


@pytest.mark.parametrize(("method", "least"), [("bh", 0.8 * 0.1), ("by", 0.0)])
def test_false_discovery_rate_is_kept(method: Any, least: float) -> None:
    # 80 normal rows and 20 outliers share 1,000 held-out rows; BH is sharp at alpha times the part of normal rows.
    rng, alpha, repetitions = np.random.default_rng(2), 0.1, 600
    outlier = np.arange(100) < 20
    proportions, power = [], []
    for _ in range(repetitions):
        scores = rng.normal(size=100) - 3.0 * outlier
        chosen = calibrated(rng.normal(size=1000)).select(scores[:, None], alpha, method)
        proportions.append((chosen & ~outlier).sum() / max(1, chosen.sum()))
        power.append(chosen[outlier].mean())
    error = 3 * np.std(proportions) / np.sqrt(repetitions)
    assert least - error < np.mean(proportions) < 0.8 * alpha + error
    assert np.mean(power) > 0.3


def test_procedures_are_those_of_their_names() -> None:
    rng = np.random.default_rng(3)
    calibrator, x = calibrated(rng.normal(size=9999)), rng.normal(size=(50, 1)) - 2
    p = np.sort(calibrator.p_values(x))
    ranks = np.arange(1, 51)
    harmonic = (1 / ranks).sum()
    expected = {
        "bh": max((k for k in ranks if p[k - 1] <= 0.1 * k / 50), default=0),
        "by": max((k for k in ranks if p[k - 1] <= 0.1 * k / 50 / harmonic), default=0),
        "bonferroni": (p <= 0.1 / 50).sum(),
        "none": (p <= 0.1).sum(),
    }
    assert expected["none"] > expected["bh"] > expected["by"] > expected["bonferroni"] > 0
    for method, count in expected.items():
        chosen = calibrator.select(x, 0.1, method)  # pyright: ignore[reportArgumentType]
        assert chosen.sum() == count
        assert x[chosen].max() < x[~chosen].min()
    assert_array_equal(calibrator.select(x), calibrator.select(x, 0.1, "bh"))


@pytest.mark.parametrize("held_out", [np.arange(40.0), np.repeat(np.arange(8.0), 5)], ids=["distinct", "ties"])
def test_thresholds_agree_with_p_values(held_out: np.ndarray) -> None:
    x = np.arange(-1, 41, 0.25)[:, None]
    for fpr in (1 / 41, 0.1, 0.25, 0.5, 40 / 41):
        calibrator = calibrated(held_out, alpha=fpr)
        low = calibrator.p_values(x) <= fpr
        assert_array_equal(x[:, 0] < calibrator.infer_threshold(fpr), low)
        assert_array_equal(calibrator.predict(x) == -1, low)
        assert_array_equal(calibrator.select(x, fpr, "none"), low)
        assert_allclose(calibrator.decision_function(x), x[:, 0] - calibrator.offset_)


def test_levels_that_cannot_be_reached_are_named() -> None:
    calibrator, x = calibrated(np.arange(9.0)), np.array([[-100.0]])
    assert calibrator.select(x, 0.1).all()
    for level in (0.09, 0.0, -1.0, 1.0, np.nan):
        with pytest.raises(ValueError, match=r"alpha must lie in \[0.1, 1\).*n = 9 rows"):
            calibrator.select(x, level)
        with pytest.raises(ValueError, match=r"fpr must lie in \[0.1, 1\)"):
            calibrator.infer_threshold(level)
    with pytest.warns(UserWarning, match="alpha = 0.05 is below the least p-value, 0.1"):
        calibrator = calibrated(np.arange(9.0), alpha=0.05)
    assert (calibrator.predict(x) == 1).all()


def test_fit_holds_rows_out_and_leaves_the_detector_alone() -> None:
    x = np.random.default_rng(4).normal(size=(200, 2))
    detector = LatentEBMDetector(max_stages=0, random_state=0)
    calibrator = ConformalCalibrator(detector, calibration_size=0.25, random_state=0).fit(x)
    assert not hasattr(detector, "views_")
    assert len(calibrator.scores_) == 50
    assert len(calibrator.detector_.rows_) == 150
    held_out = [score for score in calibrator.score_samples(x) if score in calibrator.scores_]
    assert len(held_out) == 50
    same = ConformalCalibrator(detector, calibration_size=0.25, random_state=0).fit(x)
    assert_array_equal(same.p_values(x), calibrator.p_values(x))


def test_calibration_of_a_fitted_detector() -> None:
    rng = np.random.default_rng(5)
    detector = IsolationForest(random_state=0).fit(rng.normal(size=(100, 2)))
    x = rng.normal(size=(60, 2))
    calibrator = ConformalCalibrator(detector).calibrate(x)
    assert calibrator.detector_ is detector
    assert_array_equal(calibrator.scores_, np.sort(detector.score_samples(x)))
    with pytest.raises(NotFittedError):
        ConformalCalibrator(IsolationForest()).calibrate(x)

    class Norm:
        def score_samples(self, X: Any) -> np.ndarray:
            return -np.square(X).sum(1)

    assert_array_equal(ConformalCalibrator(Norm()).calibrate(x).scores_, np.sort(-np.square(x).sum(1)))


def test_detector_with_decision_function_only() -> None:
    class Plain(BaseEstimator):
        def fit(self, X: Any, y: Any = None) -> "Plain":
            self.center_ = X.mean(0)
            return self

        def decision_function(self, X: Any) -> np.ndarray:
            return 1 - np.square(X - self.center_).sum(1)

    x = np.random.default_rng(6).normal(size=(80, 2))
    calibrator = ConformalCalibrator(Plain(), random_state=0).fit(x)
    assert_array_equal(calibrator.score_samples(x), calibrator.detector_.decision_function(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha must be a number"),
        ({"alpha": "small"}, "alpha must be a number"),
        ({"calibration_size": 1.0}, "calibration_size must be a number"),
        ({"detector": StandardScaler()}, "detector must have score_samples"),
    ],
)
def test_bad_parameters_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConformalCalibrator(**options).fit(np.zeros((10, 2)))


def test_scores_that_are_not_finite_are_refused() -> None:
    class Broken(FirstColumn):
        def score_samples(self, X: Any) -> np.ndarray:
            return np.full(len(X), np.nan)

    with pytest.raises(ValueError, match="one finite score"):
        ConformalCalibrator(Broken()).fit(np.zeros((10, 2)))


def test_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="method must be one of bh, by, bonferroni, none"):
        calibrated(np.arange(20.0)).select(np.zeros((1, 1)), 0.1, "holm")  # pyright: ignore[reportArgumentType]
