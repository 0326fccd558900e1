"""Subjects in pictures: which one it is, where it is, and how one is laid onto another."""

from latent_ebm.subjects.identity import IdentityEncoder, LearnedIdentity

__all__ = ["IdentityEncoder", "LearnedIdentity"]
