r"""P-values for any detector, by split conformal inference (Bates et al. 2023, arXiv:2104.08279).

The scores of a detector rank rows, but do not say which score is too low. Let s_1 .. s_n be the
scores (high is normal) of normal rows that were held out: the detector was not fitted to them. The
p-value of a new row with score s is ``(1 + #{i: s_i <= s}) / (n + 1)``. If the new row is normal
too, exchangeable with the held-out rows, then ``P(p <= t) <= t`` for every t, whatever the
detector and the data. P-values of many rows share the held-out rows, so they depend on each other,
but positively: the procedure of Benjamini and Hochberg still keeps the false discovery rate.
"""

import warnings
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OutlierMixin, clone, is_outlier_detector
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from latent_ebm.detection.checks import all_or_nothing, validated
from latent_ebm.detection.detector import LatentEBMDetector
from latent_ebm.detection.selection import Method, check_level, exact, select
from samplers.checks import check_numbers

if TYPE_CHECKING:
    import pandas as pd


@runtime_checkable
class Fittable(Protocol):
    """What can be fitted to rows."""

    def fit(self, X: "np.ndarray | pd.DataFrame", /) -> object: ...


class ConformalCalibrator(OutlierMixin, BaseEstimator):
    """P-values and decisions with guaranteed error rates from the scores of ``detector``.

    ``fit`` splits normal rows, fits a clone of the detector to one part and calibrates on the
    other. ``calibrate`` takes a detector that is fitted already, and normal rows that it has not
    seen. Afterwards, ``detector_`` is the detector in use, ``scores_`` (n,) are the sorted scores
    of the held-out rows, and ``offset_`` is the threshold of ``alpha``. No p-value is below 1 /
    (n + 1): with a smaller ``alpha``, ``fit`` warns, and ``predict`` calls no row an outlier
    (``offset_`` is -inf).

    Args:
        detector: an estimator with ``score_samples``, high when normal; or with only a
            ``decision_function``, of scikit-learn (high when normal) or of PyOD (high when
            unusual). None: ``LatentEBMDetector()``.
        calibration_size: fraction in (0, 1) of the rows given to ``fit`` that are held out from
            the detector's own fit.
        alpha: in (0, 1). ``predict`` calls a row an outlier if its p-value is at most ``alpha``,
            so that it does so with at most this part of normal rows.
        random_state: of the split, as in scikit-learn.
    """

    def __init__(
        self,
        detector: object = None,
        calibration_size: float = 0.5,
        alpha: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.detector = detector
        self.calibration_size = calibration_size
        self.alpha = alpha
        self.random_state = random_state

    @all_or_nothing
    def fit(self, X: ArrayLike, y: object = None) -> "ConformalCalibrator":
        """Fit a clone of the detector to one part of normal rows X (n >= 4, d), and calibrate on
        the other. ``y`` is ignored.
        """
        self._check_parameters()
        rows = as_rows(self, X, ensure_min_samples=4)
        held = max(2, min(len(rows) - 2, round(self.calibration_size * len(rows))))
        state = check_random_state(self.random_state)
        split = train_test_split(np.arange(len(rows)), test_size=held, random_state=state)
        train, rest = (take(rows, np.asarray(part)) for part in split)
        return self._calibrate(fitted_clone(self._detector(), train), rest)

    @all_or_nothing
    def calibrate(self, X: ArrayLike) -> "ConformalCalibrator":
        """Calibrate on normal rows X (n, d) that ``detector`` has not seen; it is fitted already,
        or any object that scores rows.

        Raises ``NotFittedError`` for a detector that is not fitted.
        """
        self._check_parameters()
        detector = self._detector()
        if isinstance(detector, BaseEstimator):
            check_is_fitted(detector)
        return self._calibrate(detector, as_rows(self, X))

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """The detector's scores (n,) of rows X (n, d), high when normal."""
        check_is_fitted(self)
        return self._score(as_rows(self, X, reset=False))

    def p_values(self, X: ArrayLike) -> np.ndarray:
        """P-values ``(1 + #{i: s_i <= s}) / (n + 1)`` (m,) of rows X (m, d): small for
        outliers.
        """
        return self._counts(X) / (len(self.scores_) + 1)

    def select(
        self, X: ArrayLike, alpha: float | None = None, method: Method = "bh"
    ) -> np.ndarray:
        """Which (m,) of rows X (m, d), tested together, are outliers.

        Args:
            X: the rows.
            alpha: the level; None: the calibrator's.
            method: "bh" (Benjamini-Hochberg) keeps the expected part of normal rows among the
                selected ones at most ``alpha``. It selects at least ``m / (alpha (n + 1))`` rows
                or none; to select a single row, n must be about ``m / alpha``. "by"
                (Benjamini-Yekutieli) keeps the promise under any dependence, and selects fewer.
                "bonferroni" keeps the probability of selecting any normal row at most ``alpha``;
                "none" keeps the probability of selecting a given normal row at most ``alpha``.

        Raises:
            ValueError: another method, or an ``alpha`` outside [1 / (n + 1), 1): no p-value is
                below 1 / (n + 1).
        """
        check_is_fitted(self)
        size, alpha = len(self.scores_) + 1, self.alpha if alpha is None else alpha
        check_level("alpha", alpha, size)
        return select(self._counts(X), size, alpha, method)

    def infer_threshold(self, fpr: float) -> float:
        """The score below which p-values are at most ``fpr``. A normal row scores below it with
        probability at most ``fpr``.

        Raises ``ValueError`` for ``fpr`` outside [1 / (n + 1), 1): there is no such score.
        """
        check_is_fitted(self)
        check_level("fpr", fpr, len(self.scores_) + 1)
        return float(self.scores_[int(exact(fpr) * (len(self.scores_) + 1)) - 1])

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """``score_samples`` above the threshold of ``alpha`` (n,): negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> np.ndarray:
        """+1 (n,) for inliers, -1 for rows whose p-value is at most ``alpha``."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _calibrate(
        self, detector: object, rows: "np.ndarray | pd.DataFrame"
    ) -> "ConformalCalibrator":
        self.detector_ = detector
        self.scores_ = np.sort(self._score(rows))
        least = 1 / (len(self.scores_) + 1)
        if self.alpha < least:
            warnings.warn(
                f"alpha = {self.alpha} is below the least p-value, {least:.3g}: no row is an "
                "outlier",
                stacklevel=4,
            )
        self.offset_ = -np.inf if self.alpha < least else self.infer_threshold(self.alpha)
        return self

    def _detector(self) -> object:
        detector = LatentEBMDetector() if self.detector is None else self.detector
        if isinstance(detector, type):
            raise ValueError(f"detector must be an object, got the class {detector.__name__}")
        if hasattr(detector, "score_samples"):
            return detector
        if not hasattr(detector, "decision_function"):
            raise ValueError(
                f"detector must have score_samples or decision_function, got {detector!r}"
            )
        if not (is_high_for_outliers(detector) or is_outlier_detector(detector)):
            raise ValueError(
                "detector must say which way its decision_function points, by being an "
                "OutlierMixin of scikit-learn (low "
                "for outliers), a detector of PyOD (high), or by score_samples (low), got "
                f"{detector!r}"
            )
        return detector

    def _score(self, X: "np.ndarray | pd.DataFrame") -> np.ndarray:
        """Scores (n,) by the detector in use, high when normal. Raises ``ValueError`` for scores
        that are not finite.
        """
        name = "score_samples" if hasattr(self.detector_, "score_samples") else "decision_function"
        scores = np.asarray(getattr(self.detector_, name)(X), dtype=np.float64)
        if scores.shape != (len(X),) or not np.isfinite(scores).all():
            raise ValueError(
                f"detector must give every row one finite score, got {scores!r} from {name}"
            )
        return -scores if is_high_for_outliers(self.detector_) else scores

    def _counts(self, X: ArrayLike) -> np.ndarray:
        """One plus the number of held-out rows that score at most as high as each row of X (m,
        d).
        """
        check_is_fitted(self)
        return 1 + np.searchsorted(self.scores_, self.score_samples(X), side="right")

    def _check_parameters(self) -> None:
        check_numbers(self, "in (0, 1)", calibration_size=self.calibration_size, alpha=self.alpha)


def as_rows(estimator: BaseEstimator, X: ArrayLike, **rules: Any) -> "np.ndarray | pd.DataFrame":
    """X, checked; a data frame stays one, because a detector may look for names of columns."""
    import pandas as pd

    checked = validated(estimator, X, **rules)
    return X if isinstance(X, pd.DataFrame) else checked


def take(rows: "np.ndarray | pd.DataFrame", index: np.ndarray) -> "np.ndarray | pd.DataFrame":
    """The rows with the numbers ``index``."""
    return rows[index] if isinstance(rows, np.ndarray) else rows.iloc[index]


def fitted_clone(detector: object, rows: "np.ndarray | pd.DataFrame") -> object:
    """A clone of ``detector``, fitted to ``rows`` (n, d)."""
    blank = clone(detector)
    if not isinstance(blank, Fittable):
        raise ValueError(f"detector must have a method fit, got {detector!r}")
    blank.fit(rows)
    return blank


def is_high_for_outliers(detector: object) -> bool:
    """Whether ``detector``, or the last step of a pipeline, comes from PyOD, whose scores are high
    for outliers.
    """
    last = detector[-1] if isinstance(detector, Pipeline) else detector
    return any(base.__module__.split(".")[0] == "pyod" for base in type(last).__mro__)
