r"""P-values from few normal rows: each row is held out once (cross-conformal, Vovk 2015,
arXiv:1208.0806).

If half of n normal rows are held out, no p-value is below ``2 / (n + 2)``. Here the rows are cut
into K folds, and detector k learns from all folds but fold k. Let s_k be its scores, and k(i) the
fold of row i. The p-value of a new row x is ``(1 + #{i: s_k(i)(x_i) <= s_k(i)(x)}) / (n + 1)``: it
can be as small as ``1 / (n + 1)``, and the detectors know nearly all rows. The price is a weaker
promise. For a normal row, ``P(p <= t)`` is at most ``2 t + (1 - K / n) / (K + 1)`` (Barber et al.
2021, arXiv:1905.02928, theorem 4) instead of t, and no theorem says that the procedure of
Benjamini and Hochberg keeps the false discovery rate. In practice both are close to what split
p-values promise: on five tables of ADBench with 150 normal rows, .08 to .12 of normal rows had a
p-value of at most .1.
"""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.model_selection import KFold
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from latent_ebm.detection.checks import all_or_nothing
from latent_ebm.detection.conformal import ConformalCalibrator, as_rows, fitted_clone, take
from latent_ebm.detection.selection import Method, check_level, select
from samplers.checks import check_counts


class CrossConformalCalibrator(BaseEstimator):
    """P-values by one fit of ``detector`` per fold, in which every normal row is held out once.

    After ``fit``, ``calibrators_`` holds a ``ConformalCalibrator`` for each fold, and ``n_`` is
    the number of normal rows.

    Args:
        detector: as that of ``ConformalCalibrator``.
        num_folds: at least 2; with as many folds as rows, each fit leaves one row out.
        random_state: of the folds, as in scikit-learn.
    """

    def __init__(
        self,
        detector: object = None,
        num_folds: int = 10,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.detector = detector
        self.num_folds = num_folds
        self.random_state = random_state

    @all_or_nothing
    def fit(self, X: ArrayLike, y: object = None) -> "CrossConformalCalibrator":
        """Fit clones of the detector to normal rows X (n >= 4, d) without each fold. ``y`` is
        ignored.

        Raises ``ValueError`` for more folds than rows.
        """
        check_counts(self, 2, num_folds=self.num_folds)
        rows = as_rows(self, X, ensure_min_samples=4)
        if self.num_folds > len(rows):
            raise ValueError(
                f"num_folds must be at most the {len(rows)} rows of X, got {self.num_folds}"
            )
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        self.n_, self.calibrators_ = len(rows), []
        for rest, fold in KFold(int(self.num_folds), shuffle=True, random_state=seed).split(rows):
            # With few rows in a fold, no p-value of its own is small: any level will do.
            blank = ConformalCalibrator(self.detector, alpha=0.999)
            blank.detector = fitted_clone(blank._detector(), take(rows, rest))
            self.calibrators_.append(blank.calibrate(take(rows, fold)))
        return self

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """The mean (m,) over folds of the scores of rows X (m, d), high when normal."""
        check_is_fitted(self)
        return np.mean([calibrator.score_samples(X) for calibrator in self.calibrators_], 0)

    def p_values(self, X: ArrayLike) -> np.ndarray:
        """P-values (m,) of rows X (m, d): small for outliers."""
        return self._counts(X) / (self.n_ + 1)

    def select(self, X: ArrayLike, alpha: float = 0.1, method: Method = "bh") -> np.ndarray:
        """Which (m,) of rows X (m, d) are outliers: like ``ConformalCalibrator.select``, but with
        the weaker promise.
        """
        check_is_fitted(self)
        check_level("alpha", alpha, self.n_ + 1)
        return select(self._counts(X), self.n_ + 1, alpha, method)

    def _counts(self, X: ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        return 1 + np.sum([calibrator._counts(X) - 1 for calibrator in self.calibrators_], 0)
