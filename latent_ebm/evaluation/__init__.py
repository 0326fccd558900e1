"""How good a model is: on held-out data, in the eyes of raters, and by metrics that are models
themselves.
"""

from latent_ebm.evaluation.figures import evaluation_figures
from latent_ebm.evaluation.held_out import evaluate
from latent_ebm.evaluation.likelihood_bounds import nll_bracket, prior_log_z
from latent_ebm.evaluation.meta_evaluation import (
    Agreement,
    Contest,
    contest,
    differences,
    meta_evaluate,
    rater_orders,
)
from latent_ebm.evaluation.questions import (
    Alignment,
    Question,
    align_by_questions,
    counting_accuracy,
    glyph_questions,
    scene_questions,
)
from latent_ebm.evaluation.ranking import Ranking, rank
from latent_ebm.evaluation.ratings import Rating, rater_shares, win_matrix
from latent_ebm.evaluation.studies import QUESTIONS, Pair, export_study, read_ratings
from latent_ebm.metrics import Share, share_of

__all__ = [
    "QUESTIONS",
    "Agreement",
    "Alignment",
    "Contest",
    "Pair",
    "Question",
    "Ranking",
    "Rating",
    "Share",
    "align_by_questions",
    "contest",
    "counting_accuracy",
    "differences",
    "evaluate",
    "evaluation_figures",
    "export_study",
    "glyph_questions",
    "meta_evaluate",
    "nll_bracket",
    "prior_log_z",
    "rank",
    "rater_orders",
    "rater_shares",
    "read_ratings",
    "scene_questions",
    "share_of",
    "win_matrix",
]
