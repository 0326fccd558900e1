"""Images of a folder, as numbers in [-1, 1].

What is decided by rule:

- Files that end like an image count, also in subfolders; hidden files and folders do not.
- Transparent images are put on white. Grey images among coloured ones are read as coloured.
- Images of several sizes are refused unless ``size`` is given. Then every image is resized to
  ``size`` x ``size`` pixels, smoothed as needed (bicubic), its aspect ratio not kept.
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latent_ebm.files.limits import MAX_ENTRIES, MAX_PIXELS, check_entries
from latent_ebm.files.rows import Rows
from latent_ebm.foreign import check_file, reading

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
GREY, COLOUR = ("1", "L", "LA"), ("P", "RGB", "RGBA", "PA")
PLAIN = "a plain image"


class Header(NamedTuple):
    """What an image file says of itself: whether it has colours, transparency; height and width."""

    colour: bool
    transparent: bool
    height: int
    width: int


def read_images(folder: Path, size: int | None = None, max_entries: int = MAX_ENTRIES) -> Rows:
    """Images (n, C, H, W) of a folder, by the rules of this module, called by their files.

    Raises ``ValueError`` unless there is an image, all are of one size and can be read, and there
    are at most ``max_entries`` pixels and channels in all.
    """
    paths = find_images(folder)
    if not paths:
        raise ValueError(f"{folder} must hold images ({', '.join(SUFFIXES)}), got none")
    headers = [read_header(path) for path in paths]
    height, width = (size, size) if size else common_size(paths, headers)
    colour = any(header.colour for header in headers)
    shape = (3 if colour else 1, height, width)
    check_entries(folder, len(paths) * int(np.prod(shape)), max_entries)
    x = np.empty((len(paths), *shape))
    for row, path in zip(x, paths, strict=True):
        row[:] = read_image(path, colour, size)
    ids = [path.relative_to(folder).as_posix() for path in paths]
    return Rows(x, None, None, False, ids, "", image_notes(headers, colour, size))


def find_images(folder: Path) -> list[Path]:
    """Files in ``folder`` and its subfolders that end like an image, in alphabetical order."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = [n for n in files if not n.startswith(".") and n.lower().endswith(SUFFIXES)]
        found += [Path(place) / name for name in names]
    return sorted(found)


def common_size(paths: Sequence[Path], headers: Sequence[Header]) -> tuple[int, int]:
    """Height and width of all images. Raises ``ValueError`` if they differ."""
    sizes = [(header.height, header.width) for header in headers]
    odd = next((i for i, other in enumerate(sizes) if other != sizes[0]), None)
    if odd is not None:
        (h, w), (other_h, other_w) = sizes[0], sizes[odd]
        raise ValueError(
            f"images must have one size (height x width), got {h} x {w} of {paths[0]} and "
            f"{other_h} x {other_w} of {paths[odd]}; --size {min(h, w, other_h, other_w)} resizes them all"
        )
    return sizes[0]


def read_header(path: Path) -> Header:
    """What ``path`` says of itself, before its pixels are read. Raises ``ValueError`` as ``read_images``."""
    from PIL import Image

    check_file(path, PLAIN)
    with reading(path, PLAIN), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it must have at most {MAX_PIXELS:,} pixels, got {image.width} x {image.height}")
            return header_of(image)


def header_of(image: "Image") -> Header:
    if image.mode not in (*GREY, *COLOUR):
        raise ValueError(f"it must have 8 bits of grey or RGB, got mode {image.mode}")
    transparent = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    return Header(image.mode in COLOUR, transparent, image.height, image.width)


def read_image(path: Path, colour: bool, size: int | None) -> NDArray[np.float64]:
    """Pixels (C, H, W) in [-1, 1]: put on white, as grey or RGB, resized."""
    from PIL import Image

    with reading(path, PLAIN), Image.open(path) as image:
        return pixels(image, colour, size)


def pixels(image: "Image", colour: bool, size: int | None) -> NDArray[np.float64]:
    """Those of ``image``, as ``read_image``'s."""
    from PIL import Image

    if header_of(image).transparent:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    image = image.convert("RGB" if colour else "L")
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.moveaxis(np.atleast_3d(np.asarray(image)), 2, 0) / 127.5 - 1


def image_notes(headers: Sequence[Header], colour: bool, size: int | None) -> list[str]:
    """What was decided on images, and for how many."""
    transparent = sum(header.transparent for header in headers)
    grey = sum(not header.colour for header in headers) if colour else 0
    resized = sum((header.height, header.width) != (size, size) for header in headers) if size else 0
    counts = {
        "with transparency are put on white": transparent,
        "of grey are read as RGB, since others have colours": grey,
        f"are resized to {size} x {size} pixels, their aspect ratio not kept": resized,
    }
    return [f"{num} of {len(headers)} images {what}" for what, num in counts.items() if num]
