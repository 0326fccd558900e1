"""Densities and their gradients, painted on a square of the plane."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from samplers import value_and_grad
from samplers.checks import check_counts, check_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def grid_points(box: float, num: int) -> Tensor:
    """Points (num^2, 2) of the square [-box, box]^2, the second coordinate running fastest."""
    check_numbers("grid_points", "positive", box=box)
    check_counts("grid_points", num=num)
    ticks = torch.linspace(-box, box, num)
    return torch.cartesian_prod(ticks, ticks)


def draw_density(
    axes: "Axes",
    log_density: Callable[[Tensor], Tensor],
    box: float = 4.0,
    vmax: float | None = None,
    num: int = 160,
) -> float:
    """Paint ``exp(log_density)``, normalised on the square [-box, box]^2, and return its largest
    value.

    ``log_density`` maps (n, 2) to (n,), up to a constant; pass the ``vmax`` of one panel to the
    others to paint all on one colour scale.
    """
    with torch.no_grad():
        p = (
            log_density(grid_points(box, num)).softmax(0).view(num, num)
            * ((num - 1) / (2 * box)) ** 2
        )
    square = (-box, box, -box, box)
    axes.imshow(
        p.mT.cpu().numpy(),
        origin="lower",
        extent=square,
        vmin=0,
        vmax=vmax,
        cmap="magma",
        interpolation="bilinear",
    )
    axes.set(xticks=[], yticks=[])
    return p.max().item()


def draw_field(
    axes: "Axes", log_density: Callable[[Tensor], Tensor], box: float = 4.0, num: int = 17
) -> None:
    """Draw arrows along the gradient of ``log_density``, which maps (n, 2) to (n,). Their length
    is the square root of the gradient's norm.
    """
    x = grid_points(box * (1 - 1 / num), num)
    _, grad = value_and_grad(log_density, x)
    arrows = grad / grad.norm(dim=1, keepdim=True).sqrt().clamp(min=1e-12)
    axes.quiver(
        *x.mT.cpu().numpy(),
        *arrows.mT.cpu().numpy(),
        color="0.35",
        width=0.004,
        headwidth=4,
        alpha=0.8,
    )
    axes.set(xlim=(-box, box), ylim=(-box, box), aspect="equal", xticks=[], yticks=[])
