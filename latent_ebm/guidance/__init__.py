"""Guidance: a denoiser in, a denoiser that wants something out; one file a method."""

from latent_ebm.guidance.classifier_free import ClassifierFree, classifier_free, guided

__all__ = ["ClassifierFree", "classifier_free", "guided"]
