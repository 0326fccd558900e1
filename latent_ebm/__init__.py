"""Generator models ``p(z) p(x|z)`` with energy-based priors in latent space."""

from latent_ebm.artefacts import load, save
from latent_ebm.likelihoods import BernoulliLikelihood, GaussianLikelihood, Likelihood, Masked
from latent_ebm.model import EnergyTerms, LatentModel
from latent_ebm.posteriors import (
    AmortizedPosterior,
    MCMCPosterior,
    Posterior,
    PosteriorLatents,
    Restarts,
    WarmStart,
)
from latent_ebm.priors import EnergyPrior, GaussianPrior, Prior, RatioPrior

__all__ = [
    "AmortizedPosterior",
    "BernoulliLikelihood",
    "EnergyPrior",
    "EnergyTerms",
    "GaussianLikelihood",
    "GaussianPrior",
    "LatentModel",
    "Likelihood",
    "MCMCPosterior",
    "Masked",
    "Posterior",
    "PosteriorLatents",
    "Prior",
    "RatioPrior",
    "Restarts",
    "WarmStart",
    "load",
    "save",
]
