"""Subjects in pictures: which one it is, and where it is.

``IdentityEncoder`` and ``Segmenter`` are abstract: rules and applications take any of them, from
the small ones that are trained or need no training to DINO and SAM of ``transformers``.
"""

from latent_ebm.subjects.identity import IdentityEncoder, LearnedIdentity
from latent_ebm.subjects.pretrained import (
    PretrainedIdentity,
    PretrainedSegmenter,
    load_identity,
    load_segmenter,
)
from latent_ebm.subjects.segmentation import PlainBackground, Segmenter

__all__ = [
    "IdentityEncoder",
    "LearnedIdentity",
    "PlainBackground",
    "PretrainedIdentity",
    "PretrainedSegmenter",
    "Segmenter",
    "load_identity",
    "load_segmenter",
]
