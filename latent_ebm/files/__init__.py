"""The user's own files of rows and images, checked, and with a word on what was left out of them
and why.
"""

from latent_ebm.files.images import read_images
from latent_ebm.files.limits import MAX_ENTRIES
from latent_ebm.files.rows import Reader, Rows

__all__ = ["MAX_ENTRIES", "Reader", "Rows", "read_images"]
