r"""Size, sharpness and noise of an image.

*Sharpness* is the variance of the Laplacian of the grey image, divided by the variance of the
image itself. Without the division, a sharp image of low contrast looks as blurred as a blurred
one of high contrast. *Noise* is estimated by a mask that no plane and no edge along an axis
excites (Immerkaer 1996): :math:`\hat\sigma = \mathrm{median} |I * M| / (6 \cdot 0.6745)`. The
median, in place of the mean of the paper, is not moved by the few pixels at the edges of shapes.
Dense texture looks like noise to it. Both depend on how large the image is and on what it shows:
choose their limits on images of your own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import conv2d

from latent_ebm.data.curation.base import Filter, Row, drop_where
from samplers.checks import check_fields

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in grey
LAPLACIAN = ((0, 1, 0), (1, -4, 1), (0, 1, 0))
SECOND = ((1, -2, 1), (-2, 4, -2), (1, -2, 1))  # the square root of its squares' sum is 6
NORMAL = 0.6745  # the median of the absolute value of a standard normal variable
LEAST_SIDE = 3  # of an image with a Laplacian


def grey(image: Tensor) -> Tensor:
    """The brightness (H, W) of an image (3, H, W)."""
    return (image * image.new_tensor(LUMA)[:, None, None]).sum(0)


def filtered(channels: Tensor, mask: tuple[tuple[int, ...], ...]) -> Tensor:
    """Each of ``channels`` (C, H, W) under a mask of 3 x 3: (C, H - 2, W - 2)."""
    return conv2d(channels[:, None], channels.new_tensor(mask)[None, None])[:, 0]


def sharpness(image: Tensor) -> float:
    """Variance of the Laplacian, divided by that of the image; 0 if the image has one colour or
    fewer than three pixels on a side.
    """
    channel = grey(image)[None]
    if min(channel.shape[1:]) < LEAST_SIDE or not channel.std() > 1e-4:
        return 0.0
    return float(filtered(channel, LAPLACIAN).var(correction=0) / channel.var(correction=0))


def noise_level(image: Tensor) -> float:
    """Estimated standard deviation of the noise, in units of 1 of 255, the mean of all colours; 0
    if the image has fewer than three pixels on a side.
    """
    if min(image.shape[1:]) < LEAST_SIDE:
        return 0.0
    size = filtered(image * 127.5, SECOND).abs().flatten(1)
    return float(size.median(1).values.mean() / (6 * NORMAL))


@dataclass(frozen=True)
class Size(Filter):
    """Drops images with a side of fewer than ``least`` pixels, and those too long.

    Args:
        least: Pixels of the shorter side, at least.
        aspect: Longer side divided by shorter side, at most.
    """

    least: int
    aspect: float = 3.0

    def __post_init__(self) -> None:
        check_fields(self, least="count", aspect="positive")

    def __call__(self, rows: Sequence[Row]) -> list[Row | str]:
        return drop_where(rows, [self.reason(*row.image.shape[1:]) for row in rows])

    def reason(self, height: int, width: int) -> str:
        short, long = sorted((height, width))
        if short < self.least:
            return f"{height} x {width} pixels, a side below {self.least}"
        if long > self.aspect * short:
            return f"{height} x {width} pixels, an aspect ratio above {self.aspect:g}"
        return ""


@dataclass(frozen=True)
class Sharpness(Filter):
    """Drops blurred images: those with a ``sharpness`` below ``least``.

    Drawn shapes of 64 pixels have .25 to .9; blurred by a Gaussian of 2 pixels, at most .025.

    Args:
        least: The limit.
    """

    least: float

    def __post_init__(self) -> None:
        check_fields(self, least="positive")

    def __call__(self, rows: Sequence[Row]) -> list[Row | str]:
        values = [sharpness(row.image) for row in rows]
        reasons = [
            f"sharpness {v:.2g}, below {self.least:g}" if v < self.least else "" for v in values
        ]
        return drop_where(rows, reasons)


@dataclass(frozen=True)
class Noise(Filter):
    """Drops noisy images: those with a ``noise_level`` above ``most``.

    Drawn shapes have at most 2.5 after JPEG of quality 30, and 0 without it. Noise is estimated
    too low where it is cut off at white or black.

    Args:
        most: The limit, a standard deviation in units of 1 of 255.
    """

    most: float

    def __post_init__(self) -> None:
        check_fields(self, most="positive")

    def __call__(self, rows: Sequence[Row]) -> list[Row | str]:
        values = [noise_level(row.image) for row in rows]
        reasons = [f"noise {v:.3g}, above {self.most:g}" if v > self.most else "" for v in values]
        return drop_where(rows, reasons)
