r"""P-values for any detector, by split conformal inference (Bates et al. 2023, arXiv:2104.08279).

A detector's scores rank rows; how low is too low, it cannot say. Let s_1 .. s_n be the scores (up
is normal) of held-out normal rows, which the detector was not fitted to. The p-value of a new row
with score s is ``(1 + #{i: s_i <= s}) / (n + 1)``. If the row is normal too, exchangeable with the
held-out ones, then ``P(p <= t) <= t`` for every t, whatever the detector and the data. P-values of
many rows share the held-out ones, and are positively dependent: the procedure of Benjamini and
Hochberg still keeps the false discovery rate.
"""

import warnings
from typing import Any, cast

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin, clone, is_outlier_detector
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from latent_ebm.detection.detector import LatentEBMDetector
from latent_ebm.detection.selection import Method, check_level, exact, select
from samplers.checks import check_numbers


class ConformalCalibrator(OutlierMixin, BaseEstimator):
    """P-values and decisions with guaranteed error rates from the scores of ``detector``.

    ``fit`` splits normal rows, fits a clone of the detector to one part and calibrates on the
    other. ``calibrate`` needs a fitted detector, leaves it as it is, and wants rows that the
    detector has not seen. After either, ``detector_`` is the detector in use, ``scores_`` (n,) are
    the sorted scores of the held-out rows, and ``offset_`` is the threshold of ``alpha``.

    No p-value is below 1 / (n + 1). With a smaller ``alpha``, ``fit`` warns, and ``predict`` calls
    no row an outlier (``offset_`` is -inf).

    Args:
        detector: An estimator with ``score_samples``, high when normal; or one with only a
            ``decision_function``: an outlier detector of scikit-learn (high when normal) or of
            PyOD (high when unusual). None: ``LatentEBMDetector()``.
        calibration_size: The share in (0, 1) of the rows given to ``fit`` that is held out from
            the fit of the detector.
        alpha: A level in (0, 1): ``predict`` calls a row an outlier if its p-value is at most
            ``alpha``, so that it does so for at most this share of normal rows.
        random_state: Of the split, as in scikit-learn.
    """

    def __init__(
        self,
        detector: Any = None,
        calibration_size: float = 0.5,
        alpha: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.detector = detector
        self.calibration_size = calibration_size
        self.alpha = alpha
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> "ConformalCalibrator":
        """Fit a clone of the detector to one part of normal rows X (n >= 4, d), calibrate on the
        other. ``y`` is ignored.
        """
        self._check_parameters()
        rows = self._rows(X, ensure_min_samples=4)
        held = max(2, min(len(rows) - 2, round(self.calibration_size * len(rows))))
        train, rest = train_test_split(
            rows, test_size=held, random_state=check_random_state(self.random_state)
        )
        return self._calibrate(cast(Any, clone(self._detector())).fit(train), rest)

    def calibrate(self, X: Any) -> "ConformalCalibrator":
        """Calibrate on normal rows X (n, d) that ``detector``, already fitted or any object that
        scores rows, has not seen.

        Raises ``NotFittedError`` for a detector that is not fitted.
        """
        self._check_parameters()
        detector = self._detector()
        if isinstance(detector, BaseEstimator):
            check_is_fitted(detector)
        return self._calibrate(detector, self._rows(X))

    def score_samples(self, X: Any) -> np.ndarray:
        """The detector's scores (n,) of rows X (n, d), up when normal."""
        check_is_fitted(self)
        return self._score(self._rows(X, reset=False))

    def p_values(self, X: Any) -> np.ndarray:
        """``(1 + #{i: s_i <= s}) / (n + 1)`` (m,) of rows X (m, d): small for outliers, never
        smaller for ties.
        """
        return self._counts(X) / (len(self.scores_) + 1)

    def select(self, X: Any, alpha: float | None = None, method: Method = "bh") -> np.ndarray:
        """Which (m,) of rows X (m, d), tested together, are outliers.

        ``method``: "bh" (Benjamini-Hochberg) keeps the expected part of normal rows among those
        selected at most ``alpha``; "by" (Benjamini-Yekutieli) does so under any dependence, and
        selects fewer; "bonferroni" keeps the probability of selecting any normal row at most
        ``alpha``; "none" that of each. ``alpha``: the calibrator's if None. "bh" selects at least
        ``m / (alpha (n + 1))`` rows or none, and a single one only if n is about ``m / alpha``.
        Raises ``ValueError`` for another method, and for an ``alpha`` outside [1 / (n + 1), 1),
        below which nothing can be selected, however far out.
        """
        check_is_fitted(self)
        size, alpha = len(self.scores_) + 1, self.alpha if alpha is None else alpha
        check_level("alpha", alpha, size)
        return select(self._counts(X), size, alpha, method)

    def infer_threshold(self, fpr: float) -> float:
        """The score below which p-values are at most ``fpr``: normal rows score there with
        probability at most ``fpr``.

        Raises ``ValueError`` for ``fpr`` outside [1 / (n + 1), 1), below which there is no such
        score.
        """
        check_is_fitted(self)
        check_level("fpr", fpr, len(self.scores_) + 1)
        return float(self.scores_[int(exact(fpr) * (len(self.scores_) + 1)) - 1])

    def decision_function(self, X: Any) -> np.ndarray:
        """``score_samples`` above the threshold of ``alpha`` (n,): negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """+1 (n,) for inliers, -1 for rows whose p-value is at most ``alpha``."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _calibrate(self, detector: Any, rows: Any) -> "ConformalCalibrator":
        self.detector_ = detector
        self.scores_ = np.sort(self._score(rows))
        least = 1 / (len(self.scores_) + 1)
        if self.alpha < least:
            warnings.warn(
                f"alpha = {self.alpha} is below the least p-value, {least:.3g}: no row is an "
                "outlier",
                stacklevel=3,
            )
        self.offset_ = -np.inf if self.alpha < least else self.infer_threshold(self.alpha)
        return self

    def _detector(self) -> Any:
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

    def _rows(self, X: Any, **rules: Any) -> Any:
        """X, checked; a data frame stays one, as its detector may know columns by their names."""
        checked = validate_data(self, X, dtype=np.float64, **rules)
        return X if hasattr(X, "iloc") else checked

    def _score(self, X: Any) -> np.ndarray:
        """Scores (n,) by the detector in use, up when normal. Raises ``ValueError`` for any that
        are not finite.
        """
        name = "score_samples" if hasattr(self.detector_, "score_samples") else "decision_function"
        scores = np.asarray(getattr(self.detector_, name)(X), dtype=np.float64)
        if scores.shape != (len(X),) or not np.isfinite(scores).all():
            raise ValueError(
                f"detector must give every row one finite score, got {scores!r} from {name}"
            )
        return -scores if is_high_for_outliers(self.detector_) else scores

    def _counts(self, X: Any) -> np.ndarray:
        """One plus how many of the held-out rows score at most as each row of X (m, d) does."""
        check_is_fitted(self)
        return 1 + np.searchsorted(self.scores_, self.score_samples(X), side="right")

    def _check_parameters(self) -> None:
        check_numbers(self, "in (0, 1)", calibration_size=self.calibration_size, alpha=self.alpha)


def is_high_for_outliers(detector: Any) -> bool:
    """Whether ``detector``, or the last step of a pipeline, is one of PyOD's, whose scores point
    the other way.
    """
    last = detector[-1] if isinstance(detector, Pipeline) else detector
    return any(base.__module__.split(".")[0] == "pyod" for base in type(last).__mro__)
