"""Trained objects as folders that can be read, moved and loaded without running anything."""

from latent_ebm.artefacts.classes import Described
from latent_ebm.artefacts.folders import Artefact, load, save

__all__ = ["Artefact", "Described", "load", "save"]
