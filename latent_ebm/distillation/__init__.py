"""Distillers of diffusion teachers: one LightningModule each."""

from latent_ebm.distillation.distribution_matching import DistributionMatching
from latent_ebm.distillation.em import EMDistillation
from latent_ebm.distillation.students import LinearDenoiser, OneStep

__all__ = ["DistributionMatching", "EMDistillation", "LinearDenoiser", "OneStep"]
