"""Cross-conformal p-values: by their definition, within their promise, and able to say more from
few normal rows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from latent_ebm.detection import (
    ConformalCalibrator,
    CrossConformalCalibrator,
    LatentEBMDetector,
)


class Distance(BaseEstimator):
    """Scores rows by their distance from the mean of those it was fitted to."""

    def fit(self, X: Any, y: Any = None) -> "Distance":
        self.X_ = np.asarray(X)
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        return -np.linalg.norm(np.asarray(X) - self.X_.mean(0), axis=1)


@parametrize_with_checks([CrossConformalCalibrator(LatentEBMDetector(), num_folds=2)])
def test_scikit_learn_estimator(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def draw(num: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num, 2))


@pytest.mark.parametrize("num_folds", [2, 4, 11])
def test_p_values_by_their_definition(num_folds: int) -> None:
    x, new = draw(11, 0), 2 * draw(6, 1)
    calibrator = CrossConformalCalibrator(Distance(), num_folds, 0).fit(x)
    folds = [
        np.setdiff1d(np.arange(11), where(x, c.detector_.X_)) for c in calibrator.calibrators_
    ]
    assert_array_equal(np.sort(np.concatenate(folds)), np.arange(11))
    count = np.ones(6)
    for fold in folds:
        detector = Distance().fit(np.delete(x, fold, 0))
        count += (detector.score_samples(x[fold]) <= detector.score_samples(new)[:, None]).sum(1)
    assert_allclose(calibrator.p_values(new), count / 12)
    assert_array_equal(calibrator.select(new, 0.25, "none"), count <= 3)
    assert_allclose(
        calibrator.score_samples(new),
        np.mean([c.score_samples(new) for c in calibrator.calibrators_], 0),
    )


def where(x: np.ndarray, part: np.ndarray) -> np.ndarray:
    return (x[:, None] == part).all(2).any(1).nonzero()[0]


def test_the_promise_is_kept_and_few_rows_say_more() -> None:
    rates, found = [], []
    for seed in range(150):
        new = draw(43, 1000 + seed)
        new[:3] += 20
        both = (
            ConformalCalibrator(Distance(), random_state=seed),
            CrossConformalCalibrator(Distance(), 5, seed),
        )
        fitted = [calibrator.fit(draw(90, seed)) for calibrator in both]
        rates.append([(calibrator.p_values(new[3:]) <= 0.1).mean() for calibrator in fitted])
        found.append([calibrator.select(new, 0.2)[:3].mean() for calibrator in fitted])
    assert (np.mean(rates, 0) < 0.1 + 3 * np.std(rates, 0) / np.sqrt(150)).all()
    # Three rows of 43 at the floor are selected if that is at most .2 * 3 / 43 = 1 / 71.7.
    split, cross = np.mean(found, 0)
    assert split < 0.5
    assert cross == 1


def test_data_frames_stay_data_frames() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is optional")
    frame = pandas.DataFrame(draw(30, 0), columns=["a", "b"])
    calibrator: Any = CrossConformalCalibrator(LatentEBMDetector(random_state=0), 3, 0)
    calibrator.fit(frame)
    assert list(calibrator.calibrators_[0].detector_.feature_names_in_) == ["a", "b"]
    assert calibrator.p_values(frame + 30.0).max() == pytest.approx(1 / 31)


def test_what_is_refused() -> None:
    with pytest.raises(NotFittedError):
        clone(CrossConformalCalibrator(Distance())).p_values(draw(3, 0))
    for folds in (1, 2.0, True, "3"):
        with pytest.raises(ValueError, match="num_folds must be an integer >= 2"):
            CrossConformalCalibrator(Distance(), folds).fit(draw(9, 0))  # pyright: ignore
    with pytest.raises(ValueError, match=r"num_folds must be at most the 9 rows of X, got 10"):
        CrossConformalCalibrator(Distance(), 10).fit(draw(9, 0))
    with pytest.raises(ValueError, match="NaN"):
        CrossConformalCalibrator(Distance(), 3).fit(np.full((9, 2), np.nan))
    fitted = CrossConformalCalibrator(Distance(), 3).fit(draw(9, 0))
    with pytest.raises(ValueError, match=r"alpha must lie in \[0.1, 1\), got 0.05"):
        fitted.select(draw(2, 0), 0.05)
    with pytest.raises(ValueError, match="method must be one of"):
        fitted.select(draw(2, 0), 0.5, "holm")  # pyright: ignore
