"""The detector as one of PyOD's, for its ensembles and its tools: ``pip install
"latent-ebm[pyod]"``.

PyOD's scores are high for outliers, and a detector keeps those of its training rows; see
https://pyod.readthedocs.io. Nothing else of this library imports PyOD.
"""

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from latent_ebm.detection.detector import LatentEBMDetector

try:
    from pyod.models.base import BaseDetector  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise ImportError('PyODLatentEBM needs PyOD: pip install "latent-ebm[pyod]"') from error


class PyODLatentEBM(BaseDetector):
    """``LatentEBMDetector`` with PyOD's signs and attributes.

    After ``fit``, ``decision_scores_`` (n,) are the energies of the training rows, high for
    outliers. ``labels_`` (n,) are 1 for rows above ``threshold_``, which leaves a share of
    ``contamination`` of them, else 0. ``detector_`` is the fitted detector, high when normal.

    Args:
        contamination: The share in (0, 0.5] of training rows that are labelled outliers.
        detector: A ``LatentEBMDetector`` with the settings to use, which is not fitted itself;
            None: its defaults.
        random_state: Replaces that of the detector, unless None.
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

    def fit(self, X: Any, y: Any = None) -> "PyODLatentEBM":
        """Learn from rows X (n >= 2, d). ``y`` is ignored; PyOD warns if it is given."""
        self._set_n_classes(y)
        fresh: Any = LatentEBMDetector() if self.detector is None else clone(self.detector)
        if self.random_state is not None:
            fresh.set_params(random_state=self.random_state)
        self.detector_ = fresh.fit(X)
        self.decision_scores_ = -self.detector_.score_samples(X)
        self._process_decision_scores()
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Energies (n,) of rows X (n, d) in nats, up to a constant; high for outliers."""
        check_is_fitted(self, ["decision_scores_", "threshold_", "labels_"])
        return -self.detector_.score_samples(X)
