"""Diffusion models as denoisers ``E[x_0 | x_t]``: exact, trained here, or loaded."""

from latent_ebm.denoisers.base import Denoiser
from latent_ebm.denoisers.from_noise import FromNoise
from latent_ebm.denoisers.generation import generate
from latent_ebm.denoisers.mixture import GaussianMixtureDenoiser
from latent_ebm.denoisers.preconditioned import Preconditioned
from latent_ebm.denoisers.teachers import load_teacher

__all__ = [
    "Denoiser",
    "FromNoise",
    "GaussianMixtureDenoiser",
    "Preconditioned",
    "generate",
    "load_teacher",
]
