"""Masks of the subject of images: 1 where it is, and 0 elsewhere.

They are images of a folder of their own, white where the subject is, or the images' own opacity.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latent_ebm.files.images import (
    PLAIN,
    find_images,
    header_of,
    open_image,
    read_header,
    read_pixels,
    turned,
)
from latent_ebm.foreign import reading

HALF = 127  # a pixel of more than this, of 255, is of the subject


def read_masks(folder: Path, images: Path, size: int) -> NDArray[np.float32]:
    """Masks (n, 1, size, size) of the images in the folder ``images``: the images of ``folder``
    with their names, whatever the suffix, in the same subfolders.

    Raises ``ValueError`` for a ``folder`` inside of ``images``, two files of one name, an image
    without a mask, with one of another size, with a transparent one, or with one that shows
    nothing or everything.
    """
    if images.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise ValueError(
            f"masks must lie in a folder outside of {images}, whose files are all read as images, "
            f"got {folder}"
        )
    pictures, found = by_name(images), by_name(folder)
    masks = []
    for name, image in pictures.items():
        if name not in found:
            raise ValueError(f"{folder} must hold a mask for every image, got none for {image}")
        mask = found[name]
        check_opaque(mask)
        (height, width), own = (read_header(path, str(path))[-2:] for path in (image, mask))
        if own != (height, width):
            raise ValueError(
                f"{mask} must have the size of its image (height x width), {height} x {width}, "
                f"got {own[0]} x {own[1]}"
            )
        masks.append(part(mask, read_pixels(mask, str(mask), colour=False, size=size)))
    return np.stack(masks)


def by_name(folder: Path) -> dict[Path, Path]:
    """The images of ``folder`` by their path in it, without the suffix. Raises ``ValueError`` for
    two of one name.
    """
    found: dict[Path, Path] = {}
    for path in find_images(folder):
        other = found.setdefault(path.relative_to(folder).with_suffix(""), path)
        if other != path:
            raise ValueError(
                f"images and masks must have names of their own, got {other} and {path}"
            )
    return found


def check_opaque(path: Path) -> None:
    """Raise ``ValueError`` for a mask with transparency, which could be meant in two ways."""
    if not read_header(path, str(path)).transparent:
        return
    with reading(path, PLAIN), open_image(path.read_bytes()) as image:
        least = image.convert("RGBA").getchannel("A").getextrema()[0]
    if least != 255:
        raise ValueError(
            f"{path} must be a mask in black and white without transparency, got a transparent one"
        )


def read_opacity(images: Sequence[Path], size: int) -> NDArray[np.float32] | None:
    """Masks (n, 1, size, size) of ``images`` with transparency: 1 where they are opaque. None if
    none of them has it.

    Raises ``ValueError`` if some have it and others do not, or one is opaque everywhere or
    nowhere.
    """
    plain = [path for path in images if not read_header(path, str(path)).transparent]
    if len(plain) == len(images):
        return None
    if plain:
        raise ValueError(
            f"images must all be transparent around the subject, or none of them, got {plain[0]} "
            "without transparency among others with it"
        )
    return np.stack([part(path, opacity(path, size)) for path in images])


def part(path: Path, grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The mask of the pixels of ``grey`` that are more than half. Raises ``ValueError`` if these
    are none or all.
    """
    shown = grey > HALF
    if not shown.any() or shown.all():
        what = "all" if shown.any() else "none"
        raise ValueError(f"{path} must show where the subject is by some pixels, got {what}")
    return shown.astype(np.float32)


def opacity(path: Path, size: int) -> NDArray[np.uint8]:
    """The opacity (1, size, size) of an image, turned as its EXIF data say."""
    from PIL import Image

    with reading(path, PLAIN), open_image(path.read_bytes()) as image:
        alpha = turned(image, header_of(image)).convert("RGBA").getchannel("A")
        return np.asarray(alpha.resize((size, size), Image.Resampling.BICUBIC))[None]
