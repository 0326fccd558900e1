"""Uses of trained models; what lives in ``detection``, ``evaluation`` and ``plots`` is named here
too, by its first path.
"""

from latent_ebm.applications.inpainting import Inpainter
from latent_ebm.applications.personalization import Subject
from latent_ebm.applications.text_to_image import TextToImage
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
    "Inpainter",
    "LatentEBMDetector",
    "Subject",
    "TextToImage",
    "evaluate",
    "evaluation_figures",
    "image_grid",
    "nll_bracket",
    "prior_log_z",
    "save_figure",
    "save_grid",
]
