"""Names by their first path; they live in ``detection``, ``evaluation`` and ``plots``."""

from latent_ebm.detection import (
    ConformalCalibrator,
    CrossConformalCalibrator,
    Explanation,
    FrozenFeatures,
    LatentEBMDetector,
)
from latent_ebm.evaluation import evaluate, evaluation_figures, nll_bracket, prior_log_z
from latent_ebm.plots import image_grid, save_figure, save_grid

__all__ = [
    "ConformalCalibrator",
    "CrossConformalCalibrator",
    "Explanation",
    "FrozenFeatures",
    "LatentEBMDetector",
    "evaluate",
    "evaluation_figures",
    "image_grid",
    "nll_bracket",
    "prior_log_z",
    "save_figure",
    "save_grid",
]
