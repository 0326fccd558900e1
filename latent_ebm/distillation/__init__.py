"""Distillers of diffusion teachers: one LightningModule each."""

from latent_ebm.distillation.distribution_matching import DistributionMatching
from latent_ebm.distillation.em import EMDistillation
from latent_ebm.distillation.progressive import Progressive
from latent_ebm.distillation.students import LinearDenoiser, OneStep
from latent_ebm.distillation.ufogen import UFOGen

__all__ = [
    "DistributionMatching",
    "EMDistillation",
    "LinearDenoiser",
    "OneStep",
    "Progressive",
    "UFOGen",
]
