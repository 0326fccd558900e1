"""The command ``latent-ebm``."""

from latent_ebm.cli.entry import main

__all__ = ["main"]
