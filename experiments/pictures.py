"""Figures of the report, as small files: a few colours are enough for curves and grey images."""

import base64
import io
import zlib
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from experiments.common import HERE
from latent_ebm.plots import image_grid
from latent_ebm.writing import atomic_path

FIGURES, COLOURS = HERE / "figures", 32


def save(figure: Figure, name: str, colours: int = COLOURS) -> None:
    """Write ``figure`` to ``figures/NAME.png``, in so many ``colours`` of its own."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight")
    save_image(Image.open(drawn), name, colours)


def save_images(
    x: Tensor, name: str, factor: int = 2, columns: int | None = None, colours: int = COLOURS
) -> None:
    """Write a grid of images ``x`` (n, C, H, W) in [-1, 1], ``factor`` times as large."""
    grid = (
        (255 * image_grid(x, columns)).round().astype("uint8").repeat(factor, 0).repeat(factor, 1)
    )
    save_image(Image.fromarray(grid), name, colours)


def save_image(image: Image.Image, name: str, colours: int = COLOURS) -> None:
    """Write ``image`` to ``figures/NAME.png``, in so many ``colours`` of its own."""
    with atomic_path(FIGURES / f"{name}.png") as draft:
        draft.write_bytes(small_png(image, colours))


def small_png(image: Image.Image, colours: int = COLOURS) -> bytes:
    """``image`` on white as a PNG file, in so many ``colours`` of its own."""
    opaque = Image.new("RGBA", image.size, "white")
    opaque.alpha_composite(image.convert("RGBA"))
    file = io.BytesIO()
    few = opaque.convert("RGB").quantize(colours, kmeans=3, dither=Image.Dither.NONE)
    few.save(file, format="PNG", optimize=True)
    return file.getvalue()


def pack(x: Tensor) -> str:
    """Images x (n, *shape) in [-1, 1] as text."""
    pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    return base64.b85encode(zlib.compress(pixels.tobytes(), 9)).decode()


def unpack(text: str, shape: Sequence[int] = (1, 28, 28)) -> Tensor:
    """The images of ``pack``, (n, *shape)."""
    pixels = bytearray(zlib.decompress(base64.b85decode(text)))
    return torch.frombuffer(pixels, dtype=torch.uint8).view(-1, *shape) / 127.5 - 1
