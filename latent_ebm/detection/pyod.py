"""The detector with the interface of PyOD, for its ensembles and tools: ``pip install
"latent-ebm[pyod]"``.

Scores of PyOD are high for outliers, and its detectors keep the scores of the training rows; see
https://pyod.readthedocs.io. No other module of this library imports PyOD.
"""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from latent_ebm.detection.detector import LatentEBMDetector

try:
    from pyod.models.base import BaseDetector  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise ImportError('PyODLatentEBM needs PyOD: pip install "latent-ebm[pyod]"') from error


class PyODLatentEBM(BaseDetector):
    """``LatentEBMDetector`` with PyOD's signs and attributes.

    After ``fit``, ``decision_scores_`` (n,) are the energies of the training rows, high for
    outliers. ``labels_`` (n,) are 1 for rows above ``threshold_``, a part ``contamination`` of
    them, and else 0. ``detector_`` is the fitted detector, whose scores are high when normal.

    Args:
        contamination: fraction in (0, .5] of training rows that are labelled outliers.
        detector: a ``LatentEBMDetector`` with the settings to use, not fitted; None: its defaults.
        random_state: replaces that of ``detector`` unless None.
    """

    def __init__(
        self,
        contamination: float = 0.1,
        detector: LatentEBMDetector | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(contamination=contamination)
        self.detector = detector
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> "PyODLatentEBM":
        """Learn from rows X (n >= 2, d). ``y`` is ignored; PyOD warns if it is given."""
        self._set_n_classes(y)
        settings = {} if self.detector is None else self.detector.get_params(deep=False)
        if self.random_state is not None:
            settings["random_state"] = self.random_state
        self.detector_ = LatentEBMDetector(**settings).fit(X)
        self.decision_scores_ = -self.detector_.score_samples(X)
        self._process_decision_scores()
        return self

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Energies (n,) of rows X (n, d) in nats, up to a constant; high for outliers."""
        check_is_fitted(self, ["decision_scores_", "threshold_", "labels_"])
        return -self.detector_.score_samples(X)
