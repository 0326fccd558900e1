"""How good a trained latent model is on held-out data."""

from latent_ebm.evaluation.figures import evaluation_figures
from latent_ebm.evaluation.held_out import evaluate
from latent_ebm.evaluation.likelihood_bounds import nll_bracket, prior_log_z

__all__ = ["evaluate", "evaluation_figures", "nll_bracket", "prior_log_z"]
