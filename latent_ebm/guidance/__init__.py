"""Guidance: turns a denoiser or a sampler into one that favours what is asked; one file per
method.
"""

from latent_ebm.guidance.alignment import Similarity, align
from latent_ebm.guidance.attention_maps import record, replace
from latent_ebm.guidance.classifier_free import ClassifierFree, classifier_free, guided
from latent_ebm.guidance.distilled import weighted
from latent_ebm.guidance.inpainting import blank, fill
from latent_ebm.guidance.inversion import inversion_path
from latent_ebm.guidance.known_region import KnownRegion
from latent_ebm.guidance.null_text import NullText, null_text
from latent_ebm.guidance.reference import reference_guided
from latent_ebm.guidance.replacement import replace_subject
from latent_ebm.guidance.step_wise import StepWise
from latent_ebm.guidance.subject import with_subject

__all__ = [
    "ClassifierFree",
    "KnownRegion",
    "NullText",
    "Similarity",
    "StepWise",
    "align",
    "blank",
    "classifier_free",
    "fill",
    "guided",
    "inversion_path",
    "null_text",
    "record",
    "reference_guided",
    "replace",
    "replace_subject",
    "weighted",
    "with_subject",
]
