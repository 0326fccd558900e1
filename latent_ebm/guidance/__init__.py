"""Guidance: turns a denoiser into one that favours a condition; one file per method."""

from latent_ebm.guidance.classifier_free import ClassifierFree, classifier_free, guided
from latent_ebm.guidance.distilled import weighted

__all__ = ["ClassifierFree", "classifier_free", "guided", "weighted"]
