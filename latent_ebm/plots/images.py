"""Images side by side, as an array and as a file."""

import base64
import io
import math
import os
import warnings

import numpy as np
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from latent_ebm.writing import atomic_path
from samplers.checks import check_counts

MAX_PIXEL = 10.0  # images in [-1, 1] never hold values beyond it
SMALL_SIDE = 56  # images with fewer rows of pixels are enlarged when saved


def image_grid(x: Tensor, columns: int | None = None) -> np.ndarray:
    """Images ``x`` (n, C, H, W) in [-1, 1] side by side, row by row, with white lines of one pixel
    between them.

    Values outside [-1, 1] are clipped, with a warning if they are far outside.

    Args:
        x: The images.
        columns: Number of images in a row of the grid; if left out, the grid is square.

    Returns:
        An array in [0, 1], (H', W') for C = 1 and (H', W', 3) for C = 3.

    Raises:
        ValueError: For another shape, no image, or values that are not finite.
    """
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a tensor of images, got a {type(x).__name__}")
    if x.ndim != 4 or len(x) == 0 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"x must be images (n >= 1, 1 or 3 channels, H, W), got shape {tuple(x.shape)}"
        )
    if not bool(x.isfinite().all()):
        raise ValueError("x must be finite, got NaN or infinite pixels")
    if float(x.abs().max()) > MAX_PIXEL:
        text = (
            f"x should be images in [-1, 1], got [{float(x.min()):.3g}, {float(x.max()):.3g}]: "
            "in other units?"
        )
        warnings.warn(text, stacklevel=2)
    columns = math.ceil(math.sqrt(len(x))) if columns is None else columns
    check_counts("image_grid", columns=columns)
    unit = (x.detach().float().cpu().clamp(-1, 1) + 1) / 2
    framed = pad(unit, (0, 1, 0, 1), value=1.0)
    framed = pad(framed, (0, 0, 0, 0, 0, 0, 0, -len(x) % columns), value=1.0)
    grid = rearrange(framed, "(rows columns) c h w -> (rows h) (columns w) c", columns=columns)
    return grid[:-1, :-1].squeeze(2).numpy()


def save_grid(x: Tensor, path: str | os.PathLike[str], columns: int | None = None) -> None:
    """Write ``image_grid(x, columns)`` to ``path`` as PNG; small images are enlarged by a whole
    factor.
    """
    from matplotlib.image import imsave

    factor = max(1, SMALL_SIDE // x.shape[-1])
    grid = image_grid(x, columns).repeat(factor, 0).repeat(factor, 1)
    with atomic_path(path) as temporary:
        imsave(temporary, grid, cmap="gray", vmin=0, vmax=1, format="png")


def image_address(image: Tensor, most: int | None = None) -> str:
    """The address ``data:`` of an image (1 or 3, H, W) in [-1, 1], as PNG for a page; with at most
    ``most`` pixels a side, if given.
    """
    levels = ((image.detach().cpu().float() + 1) * 127.5).round().byte().expand(3, -1, -1)
    picture = Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())
    if most is not None:
        picture.thumbnail((most, most))
    file = io.BytesIO()
    picture.save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
