"""What a trained model is used for: inference only, from public objects, on plain tensors."""

from latent_ebm.applications.anomaly import Explanation, LatentEBMDetector
from latent_ebm.applications.conformal import ConformalCalibrator
from latent_ebm.applications.cross_conformal import CrossConformalCalibrator
from latent_ebm.applications.evaluation import evaluate, evaluation_figures
from latent_ebm.applications.features import FrozenFeatures
from latent_ebm.applications.likelihood_bounds import nll_bracket, prior_log_z
from latent_ebm.applications.pictures import image_grid, save_figure, save_grid

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
