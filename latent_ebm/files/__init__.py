"""The user's own files of rows and images, checked, with notes on what was left out and why."""

from latent_ebm.files.images import read_images
from latent_ebm.files.limits import MAX_ENTRIES
from latent_ebm.files.rows import Reader, Rows

__all__ = ["MAX_ENTRIES", "Reader", "Rows", "read_images"]
