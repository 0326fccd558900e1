"""Scorers: how well pictures show what prompts say, by vectors of both in one space."""

from latent_ebm.scorers.base import Scorer
from latent_ebm.scorers.contrastive import ContrastiveScorer
from latent_ebm.scorers.pretrained import PretrainedScorer, load_scorer

__all__ = ["ContrastiveScorer", "PretrainedScorer", "Scorer", "load_scorer"]
