"""Anomaly detection: a detector, p-values for what it finds, and a report, as scikit-learn has it.

The detector is trained by its own ``fit``, on tables or images that are normal for the most part.
"""

from latent_ebm.detection.conformal import ConformalCalibrator
from latent_ebm.detection.cross_conformal import CrossConformalCalibrator
from latent_ebm.detection.detector import Explanation, LatentEBMDetector
from latent_ebm.detection.energies import ModelEnergies
from latent_ebm.detection.features import FrozenFeatures

__all__ = [
    "ConformalCalibrator",
    "CrossConformalCalibrator",
    "Explanation",
    "FrozenFeatures",
    "LatentEBMDetector",
    "ModelEnergies",
]
