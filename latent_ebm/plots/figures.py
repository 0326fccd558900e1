"""Figures of one style, and saving them.

Nothing here touches ``pyplot``: a ``Figure`` needs no display, no global state and no closing.
"""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from latent_ebm.plots.images import image_grid
from latent_ebm.writing import atomic_path
from samplers.checks import check_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")

# For ``matplotlib.rc_context(STYLE)``: thin grey axes on two sides, no box around the legend, one
# family of colours.
STYLE: dict[Any, Any] = {
    "axes.edgecolor": "0.6",
    "axes.labelcolor": "0.2",
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.dpi": 120,
    "figure.facecolor": "white",
    "font.size": 9,
    "image.cmap": "gray",
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "xtick.color": "0.4",
    "xtick.major.width": 0.6,
    "ytick.color": "0.4",
    "ytick.major.width": 0.6,
}


def save_figure(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Write ``figure`` to ``path`` in the format of its suffix (PNG without one)."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix[1:] or "png", bbox_inches="tight")


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Decorator: ``draw`` runs in ``STYLE``."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def new_figure(
    columns: int, panel: tuple[float, float], rows: int = 1
) -> "tuple[Figure, list[Axes]]":
    """A figure with ``rows`` of ``columns`` axes, row by row, each of the size ``panel`` (width,
    height) in inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * panel[0], rows * panel[1]), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


@styled
def histogram_figure(values: dict[str, Tensor], label: str, num_bins: int = 40) -> "Figure":
    """Densities of several samples ``values[name]`` (n,) over common bins; ``label`` names the
    horizontal axis.

    The bins span all values except the outermost thousandth at either end. Raises ``ValueError``
    if there are no samples, or if one is empty or not finite.
    """
    check_counts("histogram_figure", num_bins=num_bins)
    if not values or not all(v.numel() and bool(v.isfinite().all()) for v in values.values()):
        raise ValueError(f"values must hold samples of finite numbers, got {values}")
    figure, (axes,) = new_figure(1, (4.6, 2.8))
    pooled = torch.cat([value.detach().flatten().double().cpu() for value in values.values()])
    low, high = (pooled.quantile(q).item() for q in (0.001, 0.999))
    bins = np.linspace(low, high if high > low else low + 1, num_bins + 1)
    for name, value in values.items():
        counts, _ = np.histogram(value.detach().cpu().double().numpy(), bins=bins)
        axes.stairs(counts / (value.numel() * np.diff(bins)), bins, label=name, linewidth=1.4)
    axes.set_xlabel(label)
    axes.set_ylabel("density")
    figure.legend(loc="outside right upper")
    return figure


@styled
def panels_figure(x: dict[str, Tensor], columns: int | None = None) -> "Figure":
    """One panel per name: a grid of images (n, C, H, W) in [-1, 1], or a scatter plot of the first
    two coordinates of points (n, d >= 2).

    Raises ``ValueError`` if ``x`` is empty.
    """
    if not x:
        raise ValueError("x must hold at least one set of images or points, got none")
    figure, axes = new_figure(len(x), (3.0, 3.2))
    points = {name: value.detach().float().cpu() for name, value in x.items() if value.ndim == 2}
    limit = max((value[:, :2].abs().max().item() for value in points.values()), default=1.0)
    for panel, (name, value) in zip(axes, x.items(), strict=True):
        panel.set_title(name)
        if name in points:
            panel.scatter(*points[name][:, :2].mT.numpy(), s=3, linewidths=0, alpha=0.5)
            panel.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        else:
            panel.imshow(
                image_grid(value, columns), vmin=0, vmax=1, cmap="gray", interpolation="nearest"
            )
            panel.set_axis_off()
    return figure
