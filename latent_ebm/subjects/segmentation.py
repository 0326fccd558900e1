"""Segmentation: where the subject of a picture is.

Masks are float tensors (n, 1, H, W), 1 on the subject and 0 elsewhere. ``PlainBackground`` needs
no training; ``load_segmenter`` brings the model SAM.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from latent_ebm.artefacts import Artefact
from samplers.checks import check_kind, check_numbers
from samplers.run_checks import check_finite

SPECK = 0.1  # of the largest piece: the area of a piece that counts as part of the subject


class Segmenter(Artefact, ABC):
    """Maps pictures to the masks of their subjects."""

    @abstractmethod
    def forward(self, x: Tensor, point: Tensor | None = None, box: Tensor | None = None) -> Tensor:
        """Masks (n, 1, H, W), 1 on the subject and 0 elsewhere.

        Args:
            x: Pictures (n, C, H, W) in [-1, 1].
            point: A pixel (n, 2) on each subject, as column and row.
            box: A box (n, 4) around each subject: left, top, right and bottom, in pixels.

        Raises:
            ValueError: For another shape, for a point and a box at once, for one outside the
                picture, or for a picture in which no subject is found.
        """


class PlainBackground(Segmenter):
    """The pieces of a picture that stand out from a background of one colour, with their holes.

    The background is the median of the pixels at the border. A point chooses the piece that is
    nearest to it, a box hides what lies outside; otherwise small specks are left out.

    Args:
        tolerance: The difference of a colour in [-1, 1] from which a pixel stands out.

    Raises:
        ValueError: For a tolerance that is not positive.
    """

    def __init__(self, tolerance: float = 0.2) -> None:
        super().__init__()
        check_numbers(self, "positive", tolerance=tolerance)
        self.tolerance = tolerance

    def forward(self, x: Tensor, point: Tensor | None = None, box: Tensor | None = None) -> Tensor:
        """Masks (n, 1, H, W); arguments and errors are those of ``Segmenter``."""
        check_request(x, point, box)
        border = torch.cat([x[..., 0, :], x[..., -1, :], x[..., 0], x[..., -1]], -1)
        ground = border.median(-1).values[..., None, None]
        apart = ((x - ground).abs().amax(1) > self.tolerance).cpu().numpy()
        if box is not None:
            apart &= inside(box, apart.shape[1:])
        check_found(torch.from_numpy(apart))
        at = [None] * len(x) if point is None else point.cpu().numpy()
        masks = [piece(*pair) for pair in zip(apart, at, strict=True)]
        return torch.from_numpy(np.stack(masks))[:, None].to(x)


def piece(apart: NDArray[np.bool_], point: NDArray | None) -> NDArray[np.bool_]:
    """The piece of ``apart`` (H, W) that is nearest to ``point``, or all but specks for None; its
    holes are filled.
    """
    labels, filled = np.empty(apart.shape, np.int32), np.empty_like(apart)
    ndimage.label(apart, np.ones((3, 3)), output=labels)
    if point is None:
        areas = np.bincount(labels[apart])
        chosen = apart & (areas >= SPECK * areas.max())[labels]
    else:
        rows, columns = np.nonzero(apart)
        nearest = np.hypot(columns - point[0], rows - point[1]).argmin()
        chosen = labels == labels[rows[nearest], columns[nearest]]
    ndimage.binary_fill_holes(chosen, output=filled)
    return filled


def inside(box: Tensor, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether pixels (n, H, W) lie in the boxes (n, 4)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    left, top, right, bottom = (side[:, None, None] for side in box.cpu().numpy().T)
    return (x >= left) & (x <= right) & (y >= top) & (y <= bottom)


def check_found(masks: Tensor) -> None:
    """Raise ``ValueError`` unless every one of ``masks`` (n, ...) holds a pixel."""
    if empty := (~masks.flatten(1).any(1)).nonzero().tolist():
        raise ValueError(f"x must show a subject in every picture, got none in row {empty[0][0]}")


def check_request(x: Tensor, point: Tensor | None, box: Tensor | None) -> None:
    """Raise ``ValueError`` for what a ``Segmenter`` does not take."""
    check_kind("segmenter", Tensor, x=x)
    if x.ndim != 4 or len(x) == 0 or not x.is_floating_point():
        raise ValueError(
            f"x must be floating-point pictures (n >= 1, C, H, W), got {x.dtype} of shape "
            f"{tuple(x.shape)}"
        )
    check_finite("x", x)
    if point is not None and box is not None:
        raise ValueError("point and box must not be given at once: one of them says where")
    for name, value, size in (("point", point, 2), ("box", box, 4)):
        if value is None:
            continue
        check_kind("segmenter", Tensor, **{name: value})
        if value.shape != (len(x), size):
            raise ValueError(
                f"{name} must have shape ({len(x)}, {size}), got {tuple(value.shape)}"
            )
        ends = torch.tensor([x.shape[3], x.shape[2]] * (size // 2), device=value.device)
        if not bool(((value >= 0) & (value < ends)).all()):
            raise ValueError(
                f"{name} must lie in a picture of {x.shape[3]} x {x.shape[2]} pixels, got "
                f"{value.tolist()}"
            )
