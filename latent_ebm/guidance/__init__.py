"""Guidance: a denoiser in, a denoiser that wants something out; one file a method."""

from latent_ebm.guidance.classifier_free import ClassifierFree

__all__ = ["ClassifierFree"]
