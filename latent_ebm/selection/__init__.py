"""Token selection: which vectors of a picture stand for its subject."""

from latent_ebm.selection.base import TokenSelection
from latent_ebm.selection.baselines import All, FarthestPoint, Norm, Pooled, Random
from latent_ebm.selection.discriminative import Discriminative

__all__ = ["All", "Discriminative", "FarthestPoint", "Norm", "Pooled", "Random", "TokenSelection"]
