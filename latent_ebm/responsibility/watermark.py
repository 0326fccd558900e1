r"""A watermark in the pixels: a weak pattern that only the holder of a key can find.

The pattern lies in the cosine transform (DCT) of the brightness, in the frequencies that a picture
of 32 x 32 pixels can hold, without the lowest. These stay the same numbers, up to a factor, when a
picture is resized. To every such coefficient c_i belongs a standard normal number s_i that the key
determines (*spread spectrum*, Cox et al. 1997). Embedding moves c_i along s_i, more so where
``|c_i|`` is small. Detection compares ::

    z = sum_i s_i g(c_i) / sqrt(sum_i g(c_i)^2),    g(c) = c / (|c| + median |c|),

with the normal distribution: for *any* picture that was made without the key, z is exactly
standard normal over keys, because the s_i are. Nothing is assumed about pictures. The soft sign g
keeps the few large coefficients of edges from drowning the pattern.
"""

import math
import reprlib

import torch
from scipy.stats import norm
from torch import Tensor

from latent_ebm.responsibility.keys import check_key, normals
from samplers.checks import check_numbers

SIDE = 32  # frequencies on each axis, and the least side of a picture
LEAST, GREATEST = 8.0, 36.0  # radius of the frequencies used
MIN_PSNR, MAX_PSNR = 20.0, 60.0
PEAK = 2.0  # of [-1, 1]
HALVINGS, REACH = 50, 100.0
TINY = 1e-9


def embed_watermark(x: Tensor, key: bytes, psnr: float = 36.0) -> Tensor:
    """Pictures like ``x`` that carry the pattern of ``key``.

    Args:
        x: Pictures (n, C, H, W) in [-1, 1], of at least 32 pixels a side.
        key: The secret, at least 16 bytes. Whoever has it can also remove the pattern.
        psnr: Strength: the peak signal-to-noise ratio of every result against ``x`` in decibels,
            ``10 log10(4 / mean squared error)``, 20 to 60. It is exact, also where pixels are cut
            off at -1 and 1. Lower is stronger and more visible.

    Raises:
        ValueError: For pictures, a key or a ``psnr`` that break these rules.
    """
    check_images(x, SIDE)
    if not bool((x.abs() <= 1).all()):
        raise ValueError(f"x must lie in [-1, 1], got {float(x.min()):g} to {float(x.max()):g}")
    check_numbers("embed_watermark", "finite", psnr=psnr)
    if not MIN_PSNR <= psnr <= MAX_PSNR:
        raise ValueError(f"psnr must lie in {MIN_PSNR:g} to {MAX_PSNR:g} decibels, got {psnr:g}")
    picture = x.detach().double()
    c = coefficients(picture)
    weighted = pattern(key, c) * typical(c) / (c.abs() + typical(c))
    shift = from_coefficients(weighted, *picture.shape[-2:])
    return add_clipped(picture, shift, PEAK**2 * 10 ** (-psnr / 10)).to(x.dtype)


def detect_watermark(x: Tensor, key: bytes) -> Tensor:
    """P-values (n,), float64: small for pictures that carry the pattern of ``key``.

    For a picture that was made without the key, ``P(p <= a) = a`` exactly, over keys: to have one
    false alarm in a thousand, call ``p <= 0.001`` a watermark. A picture without any structure (a
    single colour) has p = 1.

    Args:
        x: Pictures (n, C, H, W) of at least 32 pixels a side, in any range.
        key: The secret, at least 16 bytes.

    Raises:
        ValueError: For pictures or a key that break these rules.
    """
    check_images(x, SIDE)
    picture = x.detach().double()
    c = coefficients(picture - picture[:, :, :1, :1])  # a single colour: zero without rounding
    g = c / (c.abs() + typical(c))
    length = g.norm(dim=1)
    z = (g * pattern(key, c)).sum(1) / length.clamp_min(TINY**2)
    p = torch.as_tensor(norm.sf(z.cpu().numpy()), device=x.device)
    return p.where(length > 0, 1.0)


def pattern(key: bytes, c: Tensor) -> Tensor:
    """The numbers s (coefficients,) of ``key``, for ``c`` (n, coefficients)."""
    check_key(key)
    return torch.as_tensor(normals(key, "pixels", c.shape[1]), dtype=c.dtype, device=c.device)


def typical(c: Tensor) -> Tensor:
    """The median size (n, 1) of the coefficients of each picture."""
    return c.abs().median(1, keepdim=True).values + TINY


def band(like: Tensor) -> Tensor:
    """Mask (32, 32) of the frequencies used."""
    u = torch.arange(SIDE, device=like.device)
    radius = (u[:, None].square() + u.square()).sqrt()
    return (radius >= LEAST) & (radius < GREATEST)


def basis(size: int, like: Tensor) -> Tensor:
    """The first 32 orthonormal cosines (32, size) of the DCT."""
    k = torch.arange(SIDE, dtype=like.dtype, device=like.device)[:, None]
    place = torch.arange(size, dtype=like.dtype, device=like.device) + 0.5
    rows = (math.pi / size * place * k).cos() * math.sqrt(2 / size)
    return torch.cat([rows[:1] / math.sqrt(2), rows[1:]])


def coefficients(x: Tensor) -> Tensor:
    """Coefficients (n, coefficients) of the mean colour of ``x`` (n, C, H, W)."""
    height, width = (basis(size, x) for size in x.shape[-2:])
    return (height @ x.mean(1) @ width.T)[:, band(x)]


def from_coefficients(c: Tensor, height: int, width: int) -> Tensor:
    """The picture (n, 1, height, width) with the coefficients ``c``."""
    square = c.new_zeros(len(c), SIDE, SIDE)
    square[:, band(c)] = c
    return (basis(height, c).T @ square @ basis(width, c))[:, None]


def add_clipped(x: Tensor, shift: Tensor, error: float) -> Tensor:
    """``x + a shift``, cut off at -1 and 1, with the ``a >= 0`` of every picture by which the mean
    squared error is ``error``, found by halving.
    """

    def moved(a: Tensor) -> Tensor:
        return (x + a * shift).clamp(-1, 1)

    size = shift.square().mean((1, 2, 3), keepdim=True).sqrt()
    low, high = torch.zeros_like(size), REACH * math.sqrt(error) / size
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        short = (moved(middle) - x).square().mean((1, 2, 3), keepdim=True) < error
        low, high = middle.where(short, low), high.where(short, middle)
    return moved(high)


def check_images(x: object, side: int = 1) -> None:
    """Raise ``ValueError`` unless ``x`` is finite pictures (n, C, H, W) of at least ``side``
    pixels a side.
    """
    if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point() or 0 in x.shape[1:]:
        got = f"{x.dtype} of {tuple(x.shape)}" if isinstance(x, Tensor) else reprlib.repr(x)
        raise ValueError(f"x must be floating pictures (n, C, H, W), got {got}")
    if min(x.shape[-2:]) < side:
        raise ValueError(
            f"x must have at least {side} pixels a side, got {x.shape[-2]} x {x.shape[-1]}"
        )
    if not bool(x.isfinite().all()):
        raise ValueError(f"x must be finite, got {int((~x.isfinite()).sum())} other pixels")
