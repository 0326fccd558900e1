"""How good a model is: on held-out data, in the eyes of raters, and by metrics that are models
themselves.
"""

from latent_ebm.evaluation.distances import cmmd, frechet
from latent_ebm.evaluation.figures import evaluation_figures
from latent_ebm.evaluation.held_out import evaluate
from latent_ebm.evaluation.likelihood_bounds import nll_bracket
from latent_ebm.evaluation.meta_evaluation import (
    Agreement,
    Contest,
    contest,
    differences,
    meta_evaluate,
    rater_orders,
)
from latent_ebm.evaluation.normaliser import LogZ, prior_log_z
from latent_ebm.evaluation.open_prompts import (
    OpenCoverage,
    category_histogram,
    histogram_kl,
    open_coverage,
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
from latent_ebm.evaluation.retrieval import retrieval_recall
from latent_ebm.evaluation.studies import QUESTIONS, Pair, export_study, read_ratings
from latent_ebm.metrics import Share, share_of

__all__ = [
    "QUESTIONS",
    "Agreement",
    "Alignment",
    "Contest",
    "LogZ",
    "OpenCoverage",
    "Pair",
    "Question",
    "Ranking",
    "Rating",
    "Share",
    "align_by_questions",
    "category_histogram",
    "cmmd",
    "contest",
    "counting_accuracy",
    "differences",
    "evaluate",
    "evaluation_figures",
    "export_study",
    "frechet",
    "glyph_questions",
    "histogram_kl",
    "meta_evaluate",
    "nll_bracket",
    "open_coverage",
    "prior_log_z",
    "rank",
    "rater_orders",
    "rater_shares",
    "read_ratings",
    "retrieval_recall",
    "scene_questions",
    "share_of",
    "win_matrix",
]
