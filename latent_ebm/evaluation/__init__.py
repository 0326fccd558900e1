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
from latent_ebm.evaluation.ranking import Ranking, rank
from latent_ebm.evaluation.ratings import Rating, rater_shares, win_matrix
from latent_ebm.evaluation.shares import Share, share_of
from latent_ebm.evaluation.studies import QUESTIONS, Pair, export_study, read_ratings

__all__ = [
    "QUESTIONS",
    "Agreement",
    "Contest",
    "Pair",
    "Ranking",
    "Rating",
    "Share",
    "contest",
    "differences",
    "evaluate",
    "evaluation_figures",
    "export_study",
    "meta_evaluate",
    "nll_bracket",
    "prior_log_z",
    "rank",
    "rater_orders",
    "rater_shares",
    "read_ratings",
    "share_of",
    "win_matrix",
]
