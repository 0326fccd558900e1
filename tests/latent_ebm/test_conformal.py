"""Conformal p-values keep their promises on simulated rows, whatever the detector; decisions agree
with them.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from latent_ebm.detection import (
    ConformalCalibrator,
    CrossConformalCalibrator,
    LatentEBMDetector,
)
from latent_ebm.detection.selection import METHODS, rows_to_hold_out, select, smallest_selection


class FirstColumn(BaseEstimator):
    """Scores rows by their first number; learns nothing."""

    def fit(self, X: Any, y: Any = None) -> "FirstColumn":
        self.is_fitted_ = True
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        return np.asarray(X)[:, 0]


class Halved(FirstColumn):
    """Scores half as high, and none for odd numbers."""

    def score_samples(self, X: Any) -> np.ndarray:
        first = np.asarray(X)[:, 0]
        return np.where(first % 2 == 1, np.nan, first / 2)


def calibrated(scores: Any, **options: Any) -> ConformalCalibrator:
    """A calibrator whose held-out rows have these scores."""
    return ConformalCalibrator(FirstColumn().fit(None), **options).calibrate(
        np.reshape(scores, (-1, 1))
    )


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
    # A split has an error of its own, of variance alpha (1 - alpha) / (n + 2), beside that of the
    # test rows.
    rng, splits, size = np.random.default_rng(1), 10, 1000
    mixing = rng.normal(size=(3, 3))
    p = []
    for seed in range(splits):
        train, test = (rng.standard_t(4, size=(num, 3)) @ mixing for num in (size + 250, size))
        p.append(
            ConformalCalibrator(detector, calibration_size=0.8, random_state=seed)
            .fit(train)
            .p_values(test)
        )
    for alpha in (0.01, 0.05, 0.1):
        nominal = np.floor(alpha * (size + 1)) / (size + 1)
        error = np.sqrt(nominal * (1 - nominal) * (1 / size + 1 / (size + 2)) / splits)
        assert abs(np.mean(np.array(p) <= alpha) - nominal) < 3 * error


@pytest.mark.parametrize(("method", "least"), [("bh", 0.8 * 0.1), ("by", 0.0)])
def test_false_discovery_rate_is_kept(method: Any, least: float) -> None:
    # 80 normal rows and 20 outliers share 1,000 held-out rows; BH is sharp at alpha times the part
    # of normal rows.
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


def test_rows_exactly_at_the_bar_are_selected() -> None:
    counts = np.repeat(
        [68, 900], [17, 8]
    )  # 68 / 1000 * 25 / 17 is exactly .1, and above it by rounding
    assert select(counts, 1000, 0.1, "bh").sum() == 17
    assert select(counts + 1, 1000, 0.1, "bh").sum() == 0
    calibrator = calibrated(np.arange(999.0))
    assert calibrator.select(counts[:, None] - 1.5, 0.1).sum() == 17
    assert calibrator.select(counts[:, None] - 1.5, np.float32(0.1)).sum() == 17  # pyright: ignore[reportArgumentType]


def test_decisions_are_those_of_rational_arithmetic() -> None:
    rng, differ = np.random.default_rng(11), 0
    for _ in range(900):
        num, size = int(rng.integers(1, 30)), int(rng.integers(2, 300))
        level = Fraction(int(rng.integers(1, 40)), int(rng.choice([20, 40, 100, 1000, size])))
        counts = np.minimum(size, 1 + rng.integers(0, size, num) // int(rng.choice([1, 5, 20])))
        if not level < 1:
            continue
        for method in METHODS:
            expected = rationally(counts, size, level, method)
            assert_array_equal(select(counts, size, float(level), method), expected)  # pyright: ignore
            if method in ("bh", "by"):
                differ += int(
                    (
                        expected
                        != (stats.false_discovery_control(counts / size, method=method) <= level)
                    ).any()
                )
    assert differ > 0  # of binary arithmetic


def rationally(counts: np.ndarray, size: int, level: Fraction, method: str) -> np.ndarray:
    """The definitions of the procedures, word for word."""
    p = sorted(Fraction(int(c), size) for c in counts)
    m = len(p)
    total = sum(Fraction(1, i) for i in range(1, m + 1)) if method == "by" else Fraction(1)
    bars = {"bonferroni": [level / m] * m, "none": [level] * m}
    bars |= {key: [level * k / (m * total) for k in range(1, m + 1)] for key in ("bh", "by")}
    largest = max(
        (q for q, bar in zip(p, bars[method], strict=True) if q <= bar), default=Fraction(0)
    )
    return np.array([Fraction(int(c), size) <= largest for c in counts])


def test_smallest_selection_and_the_rows_that_it_takes() -> None:
    for num, held_out, level in [
        (142, 150, 0.1),
        (10, 99, 0.1),
        (1, 9, 0.1),
        (25, 7, 0.3),
        (60, 1999, 0.01),
    ]:
        least = smallest_selection(num, held_out + 1, level)
        for beyond in (least - 1, least):
            counts = np.repeat([1, held_out + 1], [beyond, max(0, num - beyond)])[:num]
            assert (select(counts, held_out + 1, level).sum() > 0) == (beyond >= least)
        enough = rows_to_hold_out(num, level)
        assert smallest_selection(num, enough + 1, level) == 1
        assert smallest_selection(num, enough, level) > 1
    assert smallest_selection(142, 151, 0.1) == 10


@pytest.mark.parametrize(
    "wrap", [lambda d: d, lambda d: make_pipeline(StandardScaler(), d)], ids=["alone", "pipeline"]
)
def test_detectors_of_pyod_point_the_other_way(wrap: Callable[[Any], Any]) -> None:
    knn = pytest.importorskip("pyod.models.knn", reason="tests of the extra pyod")
    own = pytest.importorskip("latent_ebm.detection.pyod").PyODLatentEBM(random_state=0)
    rng = np.random.default_rng(9)
    x, far = rng.normal(size=(120, 3)), np.full((5, 3), 50.0)
    for detector in (knn.KNN(), own):
        calibrator = ConformalCalibrator(wrap(detector), random_state=0).fit(x)
        assert_allclose(calibrator.p_values(far), 1 / 61)
        assert (calibrator.predict(far) == -1).all()
        assert np.median(calibrator.p_values(rng.normal(size=(200, 3)))) > 0.3


@pytest.mark.parametrize(
    "held_out", [np.arange(40.0), np.repeat(np.arange(8.0), 5)], ids=["distinct", "ties"]
)
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

    assert_array_equal(
        ConformalCalibrator(Norm()).calibrate(x).scores_, np.sort(-np.square(x).sum(1))
    )


def test_detector_with_decision_function_only() -> None:
    class Plain(OutlierMixin, BaseEstimator):
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
        ({"alpha": 0.0}, "alpha must be in"),
        ({"alpha": "small"}, "alpha must be in"),
        ({"calibration_size": 1.0}, "calibration_size must be in"),
        ({"alpha": True}, "alpha must be in"),
        ({"alpha": np.bool_(True)}, "alpha must be in"),
        ({"detector": StandardScaler()}, "detector must have score_samples"),
        (
            {"detector": LogisticRegression()},
            "detector must say which way its decision_function points",
        ),
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


@pytest.mark.parametrize("kind", [ConformalCalibrator, CrossConformalCalibrator])
def test_a_fit_that_fails_leaves_the_last_one(kind: Any) -> None:
    """P-values of one detector with the held-out scores of another would be wrong."""
    calibrator, X = kind(FirstColumn(), random_state=0), np.arange(20.0)[:, None]
    before = calibrator.fit(X).p_values(X)
    X_bad = X.copy()
    X_bad[3] = np.inf
    calibrator.detector = Halved()
    with pytest.raises(ValueError, match="one finite score"):
        calibrator.fit(X)
    assert_array_equal(calibrator.p_values(X), before)
    with pytest.raises(ValueError, match="infinity"):
        calibrator.fit(X_bad)
    assert_array_equal(calibrator.p_values(X), before)


def test_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="method must be one of bh, by, bonferroni, none"):
        calibrated(np.arange(20.0)).select(np.zeros((1, 1)), 0.1, "holm")  # pyright: ignore[reportArgumentType]
