"""Figures of the report, as small files: a few colours are enough for curves and grey images."""

import io

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from experiments.common import HERE
from latent_ebm.plots import image_grid
from latent_ebm.writing import atomic_path

FIGURES, COLOURS = HERE / "figures", 64


def save(figure: Figure, name: str, colours: int = COLOURS) -> None:
    """Write ``figure`` to ``figures/NAME.png``, in so many ``colours`` of its own."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight")
    save_image(Image.open(drawn), name, colours)


def save_images(x: Tensor, name: str, factor: int = 2, columns: int | None = None) -> None:
    """Write a grid of images ``x`` (n, C, H, W) in [-1, 1], ``factor`` times as large."""
    grid = (
        (255 * image_grid(x, columns)).round().astype("uint8").repeat(factor, 0).repeat(factor, 1)
    )
    save_image(Image.fromarray(grid), name)


def save_image(image: Image.Image, name: str, colours: int = COLOURS) -> None:
    """Write ``image`` to ``figures/NAME.png``, in so many ``colours`` of its own."""
    small = image.convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    with atomic_path(FIGURES / f"{name}.png") as draft:
        small.save(draft, format="PNG", optimize=True)
