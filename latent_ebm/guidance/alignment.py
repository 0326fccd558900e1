r"""Lays one subject onto another: the similarity transform that carries one mask onto the other.

A pixel is a complex number ``p = x + iy``, with y pointing down. A similarity without reflection
is then ``p -> w p + c``: w scales and rotates, c shifts. Between the outlines A and B of the masks
the cost is the mean squared distance to the nearest point, both ways, ::

    E_{a in A} min_b |w a + c - b|^2 + E_{b in B} min_a |w a + c - b|^2,

because either way alone is least for an outline that has shrunk to a point or grown without end.
Nearest points are paired, w and c are the least-squares solution for these pairs in closed form,
and so on (iterated closest points, Besl & McKay 1992), from several rotations, each with the
centroids and areas of the masks matched. HiFi Tuner lays a photo of a subject onto a generated one
in this way (arXiv:2312.00079).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool2d, pad

from latent_ebm.guidance.masks import check_hole, check_mask
from samplers.checks import check_counts, check_kind

Points = NDArray[np.complex128]
TIE = 1e-6  # pixels^2, by which a rotation that is tried later must be better


@dataclass(frozen=True)
class Similarity:
    """The map ``p -> turn p + shift`` of pixels ``p = x + iy``, with y pointing down.

    Args:
        turn: Scale and rotation, a complex number that is not 0.
        shift: A complex number, in pixels.
    """

    turn: complex
    shift: complex

    @property
    def scale(self) -> float:
        """By what lengths are multiplied."""
        return abs(self.turn)

    @property
    def angle(self) -> float:
        """The rotation in radians from -pi to pi; a positive one turns clockwise on the screen."""
        return float(np.angle(self.turn))

    def __call__(self, points: Points) -> Points:
        return self.turn * points + self.shift

    def warp(self, x: Tensor) -> Tensor:
        """Images ``x`` (n, C, H, W) after the map, with bilinear interpolation. What comes from
        outside continues the border.
        """
        return self._sample(x, "border")

    def warp_mask(self, mask: Tensor) -> Tensor:
        """A mask (n, 1, H, W) of 0 and 1 after the map; it is 0 outside."""
        return (self._sample(mask, "zeros") >= 0.5).to(mask)

    def _sample(self, x: Tensor, outside: str) -> Tensor:
        height, width = x.shape[2:]
        y, x_axis = np.mgrid[:height, :width]
        there = (x_axis + 1j * y - self.shift) / self.turn
        grid = np.stack([(2 * there.real + 1) / width - 1, (2 * there.imag + 1) / height - 1], -1)
        place = torch.from_numpy(grid).to(x).expand(len(x), -1, -1, -1)
        return grid_sample(x, place, padding_mode=outside, align_corners=False)


def align(
    source: Tensor, target: Tensor, *, num_starts: int = 16, num_steps: int = 30
) -> Similarity:
    """The similarity that lays the mask ``source`` onto the mask ``target``.

    Args:
        source: The mask (1, 1, H, W), 1 on the subject and 0 elsewhere.
        target: The mask (1, 1, H, W) onto which it is laid.
        num_starts: Rotations to start from; the smallest one wins a tie.
        num_steps: Times that nearest points are paired, for each of them.

    Raises:
        ValueError: For masks of different sizes, of other values than 0 and 1, or that are 0 or 1
            everywhere.
    """
    check_counts("align", num_starts=num_starts, num_steps=num_steps)
    check_pair(source, target)
    first, second = outline(source), outline(target)
    trees = KDTree(as_pairs(first)), KDTree(as_pairs(second))
    best, least = Similarity(1, 0), np.inf
    for k in sorted(range(num_starts), key=lambda k: min(k, num_starts - k)):
        made = start(source, target, 2 * np.pi * k / num_starts)
        for _ in range(num_steps):
            made = fit(*matches(made, first, second, *trees))
        cost = mean_square(made, *matches(made, first, second, *trees))
        best, least = (made, cost) if cost < least - TIE else (best, least)
    return best


def start(source: Tensor, target: Tensor, angle: float) -> Similarity:
    """The similarity that matches centroids and areas of two masks and rotates by ``angle``."""
    first, second = points_of(source), points_of(target)
    turn = np.sqrt(len(second) / len(first)) * np.exp(1j * angle)
    return Similarity(complex(turn), complex(second.mean() - turn * first.mean()))


Matches = tuple[Points, Points, NDArray[np.float64]]


def matches(
    similarity: Similarity, first: Points, second: Points, tree: KDTree, other: KDTree
) -> Matches:
    """Points of ``first`` and ``second`` that are nearest to each other after the map, and their
    weights: those of either direction sum to 1.
    """
    forth = other.query(as_pairs(similarity(first)))[1]
    back = tree.query(as_pairs((second - similarity.shift) / similarity.turn))[1]
    weights = [np.full(len(points), 1 / len(points)) for points in (first, second)]
    return (
        np.concatenate([first, first[back]]),
        np.concatenate([second[forth], second]),
        np.concatenate(weights),
    )


def fit(first: Points, second: Points, weight: NDArray[np.float64]) -> Similarity:
    """The similarity of the least weighted squared distance between pairs, in closed form."""
    a, b = (np.average(points, weights=weight) for points in (first, second))
    spread = (weight * np.abs(first - a) ** 2).sum()
    turn = (weight * np.conj(first - a) * (second - b)).sum() / spread
    return Similarity(complex(turn), complex(b - turn * a))


def mean_square(
    similarity: Similarity, first: Points, second: Points, weight: NDArray[np.float64]
) -> float:
    return float((weight * np.abs(similarity(first) - second) ** 2).sum())


def outline(mask: Tensor) -> Points:
    """The pixels of a mask (1, 1, H, W) that have a neighbour outside of it."""
    around = max_pool2d(pad(1 - mask, (1, 1, 1, 1), value=1.0), 3, 1)
    return points_of(mask * around)


def points_of(mask: Tensor) -> Points:
    """The pixels (k,) of a mask (1, 1, H, W)."""
    y, x = np.nonzero((mask[0, 0] > 0).cpu().numpy())
    return x + 1j * y


def as_pairs(points: Points) -> NDArray[np.float64]:
    return np.stack([points.real, points.imag], 1)


def check_pair(source: Tensor, target: Tensor) -> None:
    """Raise ``ValueError`` unless both are masks (1, 1, H, W) of one size with an outline."""
    check_kind("align", Tensor, source=source, target=target)
    if source.shape != target.shape or source.ndim != 4 or source.shape[:2] != (1, 1):
        raise ValueError(
            "source and target must be masks of one shape (1, 1, H, W), got "
            f"{tuple(source.shape)} and {tuple(target.shape)}"
        )
    for mask in (source, target):
        check_mask(mask, mask)
        check_hole(mask)
        if len(points_of(mask)) < 2:
            raise ValueError("a mask must have at least two pixels of 1 to be laid onto another")
