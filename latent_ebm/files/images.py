"""Images of a folder, as numbers in [-1, 1].

Fixed rules decide:

- All files with the suffix of an image are read, also those in subfolders. Hidden files and
  folders are skipped.
- Transparent images are put on white. Grey images among coloured images are read as coloured.
- Images are turned as their EXIF data say, as viewers do, but for PNG files with such data behind
  the pixels. If a file has several pages or pictures, the first is read.
- Images of several sizes are refused unless ``size`` is given. Then every image is resized to
  ``size`` x ``size`` pixels (bicubic), whatever its aspect ratio.
"""

import io
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
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # of EXIF

Encoded = Path | bytes  # an image as a file, or as the content of one


class Header(NamedTuple):
    """What the header of an image says: whether it is in colour, transparent, to be turned, and
    one of several pictures; and its height and width after turning.
    """

    colour: bool
    transparent: bool
    turned: bool
    several: bool
    height: int
    width: int


def read_images(
    folder: Path,
    size: int | None = None,
    max_entries: int = MAX_ENTRIES,
    colour: bool | None = None,
) -> Rows:
    """Images (n, C, H, W) of a folder, by the rules of this module; their ids are file names.

    ``colour`` makes all of them RGB or grey; by default they are RGB if one has colours.
    Raises ``ValueError`` unless there is an image, all can be read and have one size, and there
    are at most ``max_entries`` pixel values in all.
    """
    paths = find_images(folder)
    if not paths:
        raise ValueError(f"{folder} must hold images ({', '.join(SUFFIXES)}), got none")
    headers = [read_header(path, str(path)) for path in paths]
    colour = any(header.colour for header in headers) if colour is None else colour
    x = decode(paths, headers, colour, size, max_entries) / 127.5 - 1
    ids = [path.relative_to(folder).as_posix() for path in paths]
    return Rows(x, None, None, False, ids, "", image_notes(headers, colour, size))


def find_images(folder: Path) -> list[Path]:
    """Files in ``folder`` and its subfolders with the suffix of an image, in alphabetical
    order.
    """
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = [n for n in files if not n.startswith(".") and n.lower().endswith(SUFFIXES)]
        found += [Path(place) / name for name in names]
    odd = next((path for path in found if not is_utf8(str(path))), None)
    if odd is not None:
        raise ValueError(f"names of images must be in UTF-8, got {str(odd)!a}")
    return sorted(found)


def is_utf8(name: str) -> bool:
    """Whether ``name``, as the file system gives it, can be written to a text file."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def decode(
    images: Sequence[Encoded],
    headers: Sequence[Header],
    colour: bool,
    size: int | None,
    max_entries: int = MAX_ENTRIES,
) -> NDArray[np.uint8]:
    """Pixels (n, C, H, W) of ``images`` with these ``headers``, grey or with ``colour``.

    Raises ``ValueError`` as ``read_images``.
    """
    height, width = (size, size) if size else common_size(images, headers)
    shape = (len(images), 3 if colour else 1, height, width)
    check_entries(
        f"{called(images[0], 0)} and the images beside it", int(np.prod(shape)), max_entries
    )
    x = np.empty(shape, np.uint8)
    for i, encoded in enumerate(images):
        x[i] = read_pixels(encoded, called(encoded, i), colour, size)
    return x


def called(encoded: Encoded, index: int) -> str:
    """What an image is called in a message."""
    return f"image {index}" if isinstance(encoded, bytes) else str(encoded)


def common_size(images: Sequence[Encoded], headers: Sequence[Header]) -> tuple[int, int]:
    """Height and width of all images. Raises ``ValueError`` if they differ."""
    sizes = [(header.height, header.width) for header in headers]
    odd = next((i for i, other in enumerate(sizes) if other != sizes[0]), None)
    if odd is not None:
        (h, w), (other_h, other_w) = sizes[0], sizes[odd]
        raise ValueError(
            f"images must have one size (height x width), got {h} x {w} of "
            f"{called(images[0], 0)} and {other_h} x "
            f"{other_w} of {called(images[odd], odd)}; --size {min(h, w, other_h, other_w)} "
            "resizes them all"
        )
    return sizes[0]


def open_image(encoded: Encoded) -> "Image":
    from PIL import Image

    return Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded)


def read_header(encoded: Encoded, name: str) -> Header:
    """The header of an image, read before its pixels. Raises ``ValueError`` as
    ``read_images``.
    """
    from PIL import Image

    if isinstance(encoded, Path):
        check_file(encoded, PLAIN)
    with reading(name, PLAIN), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with open_image(encoded) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"it must have at most {MAX_PIXELS:,} pixels, got {image.width} x "
                    f"{image.height}"
                )
            return header_of(image)


def header_of(image: "Image") -> Header:
    from PIL import Image

    if image.mode not in (*GREY, *COLOUR):
        raise ValueError(f"it must have 8 bits of grey or RGB, got mode {image.mode}")
    transparent = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    # The method of PNG images would read all pixels.
    orientation = Image.Image.getexif(image).get(ORIENTATION, 1)
    sideways = orientation in SIDEWAYS and image.format != "TIFF"  # Pillow turns TIFF by itself
    height, width = (image.width, image.height) if sideways else (image.height, image.width)
    several = getattr(image, "n_frames", 1) > 1
    return Header(
        image.mode in COLOUR,
        transparent,
        orientation in (2, 3, 4, *SIDEWAYS),
        several,
        height,
        width,
    )


def read_pixels(encoded: Encoded, name: str, colour: bool, size: int | None) -> NDArray[np.uint8]:
    """Pixels (C, H, W) of one image: turned, put on white, as grey or RGB, resized."""
    from PIL import Image

    # given a path, Pillow would map turned TIFF files into memory wrongly
    content = encoded if isinstance(encoded, bytes) else encoded.read_bytes()
    with reading(name, PLAIN), open_image(content) as image:
        header = header_of(image)
        image = turned(image, header)
        if header.transparent:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        image = image.convert("RGB" if colour else "L")
        if size is not None and image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BICUBIC)
        return np.moveaxis(np.atleast_3d(np.asarray(image)), 2, 0)


def turned(image: "Image", header: Header) -> "Image":
    """The image as its ``header`` says that it is to be turned."""
    from PIL import ImageOps

    by_itself = image.format == "TIFF"
    return ImageOps.exif_transpose(image) if header.turned and not by_itself else image


def image_notes(headers: Sequence[Header], colour: bool, size: int | None) -> list[str]:
    """What was decided about images, and for how many of them."""
    transparent = sum(header.transparent for header in headers)
    grey = sum(not header.colour for header in headers) if colour else 0
    resized = (
        sum((header.height, header.width) != (size, size) for header in headers) if size else 0
    )
    stretched = sum(header.height != header.width for header in headers) if size else 0
    counts = {
        "with transparency are put on white": transparent,
        "are turned as their EXIF data say": sum(header.turned for header in headers),
        "have several pictures, of which the first is read": sum(
            header.several for header in headers
        ),
        "of grey are read as RGB": grey,
        "with colours are made grey": 0 if colour else sum(header.colour for header in headers),
        f"are resized to {size} x {size} pixels": resized,
        "are stretched, because they are not square": stretched,
    }
    return [f"{num} of {len(headers)} images {what}" for what, num in counts.items() if num]
