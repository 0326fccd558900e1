"""Curation of captioned images: which rows are kept, why others are dropped, and what copies
weigh.
"""

from latent_ebm.data.curation.base import Filter, Row
from latent_ebm.data.curation.chain import Count, Curation, Decision, Report
from latent_ebm.data.curation.folder import curate, folder_rows
from latent_ebm.data.curation.likeness import Features, Likeness, Perceptual, Pixels, clusters
from latent_ebm.data.curation.personal import PersonalData, luhn
from latent_ebm.data.curation.quality import Noise, Sharpness, Size, noise_level, sharpness
from latent_ebm.data.curation.recaption import Mixture, Templates
from latent_ebm.data.curation.scores import CaptionScore, ImageScore
from latent_ebm.data.curation.terms import Terms

__all__ = [
    "CaptionScore",
    "Count",
    "Curation",
    "Decision",
    "Features",
    "Filter",
    "ImageScore",
    "Likeness",
    "Mixture",
    "Noise",
    "Perceptual",
    "PersonalData",
    "Pixels",
    "Report",
    "Row",
    "Sharpness",
    "Size",
    "Templates",
    "Terms",
    "clusters",
    "curate",
    "folder_rows",
    "luhn",
    "noise_level",
    "sharpness",
]
