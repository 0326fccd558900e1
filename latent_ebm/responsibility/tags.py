"""A tag in the file: a text chunk of a PNG file that says how the picture was made.

It is the weakest mark: any program that writes the picture again may leave it out, and anybody can
write one. It proves nothing, and costs nothing.
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin
from torch import Tensor

from latent_ebm.foreign import check_file, reading
from latent_ebm.responsibility.watermark import check_images
from latent_ebm.writing import atomic_path

CHUNK = "Source"  # a keyword of the PNG specification: the device that made the picture
MAX_TAG = 1000  # characters


def write_tagged(path: str | os.PathLike[str], x: Tensor, tag: str) -> None:
    """Write one picture ``x`` (C, H, W) in [-1, 1] with 1 or 3 channels as a PNG file with
    ``tag``, up to 1,000 characters.

    Raises ``ValueError`` for another picture, tag, or suffix than ``.png``.
    """
    check_images(x[None])
    if x.shape[0] not in (1, 3):
        raise ValueError(f"x must have 1 or 3 channels, got {x.shape[0]}")
    if not bool((x.abs() <= 1).all()):
        raise ValueError(f"x must lie in [-1, 1], got {float(x.min()):g} to {float(x.max()):g}")
    if not isinstance(tag, str) or not 0 < len(tag) <= MAX_TAG or not tag.isprintable():
        raise ValueError(f"tag must be 1 to {MAX_TAG} printable characters, got {tag!r:.100}")
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"path must end in .png, got {str(path)!r}")
    pixels = ((x + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(CHUNK, tag)
    with atomic_path(path) as temporary:
        Image.fromarray(np.squeeze(pixels, 2) if pixels.shape[2] == 1 else pixels).save(
            temporary, "PNG", pnginfo=chunks
        )


def read_tag(path: str | os.PathLike[str]) -> str | None:
    """The tag of a PNG file; None if it has none.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no PNG file.
    """
    place = check_file(path, "a PNG picture")
    with reading(place, "a PNG picture"), Image.open(place, formats=["PNG"]) as picture:
        picture.load()
        tag = picture.info.get(CHUNK)
    return None if tag is None else str(tag)
