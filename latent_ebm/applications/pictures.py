"""Pictures of what a model does: grids of images, plain figures, and files that are never
half-written.

Nothing here touches ``pyplot``: a ``Figure`` of its own needs no display, no global state and no
closing. A file appears under its name only when it is complete, since it is written beside it
first and then renamed.
"""

import math
import os
import secrets
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad

from samplers import value_and_grad
from samplers.checks import check_counts, check_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw = TypeVar("Draw", bound=Callable[..., Any])

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
MAX_PIXEL = 10.0  # beyond which images in [-1, 1] are none
SMALL_SIDE = 56  # images shorter than this are enlarged when saved


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed to it if the block ends well and removed if it
    does not.

    ``~`` is expanded; a link stays, and what it leads to is replaced. Parent directories are made,
    and removed again if the block fails. Raises ``OSError`` where nothing can be written.
    """
    target = Path(os.path.realpath(Path(path).expanduser()))
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException as error:
        if (
            isinstance(error, OSError) and error.errno and error.filename is None
        ):  # as of a full disk
            error.filename = str(path)
        temporary.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def image_grid(x: Tensor, columns: int | None = None) -> np.ndarray:
    """Images ``x`` (n, C, H, W) in [-1, 1] side by side, row by row, with white lines of one pixel
    between them.

    Returns an array in [0, 1], (H', W') for C = 1 and (H', W', 3) for C = 3; values outside [-1,
    1] are cut off, with a warning if they are far outside. ``columns``: a square grid if left out.
    Raises ``ValueError`` for another shape, no image, or values not finite.
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


def save_figure(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Write ``figure`` to ``path`` in the format of its suffix (PNG without one)."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix[1:] or "png", bbox_inches="tight")


def styled(draw: Draw) -> Draw:
    """Decorator: ``draw`` runs in ``STYLE``."""

    @wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> Any:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return cast(Draw, drawn)


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

    The bins span all values but the outermost thousandth at either end. Raises ``ValueError`` for
    no samples, and for one that is empty or not finite.
    """
    check_counts("histogram_figure", num_bins=num_bins)
    if not values or not all(v.numel() and bool(v.isfinite().all()) for v in values.values()):
        raise ValueError(f"values must hold samples of finite numbers, got {values}")
    figure, (axes,) = new_figure(1, (4.6, 2.8))
    pooled = torch.cat([value.detach().flatten().double().cpu() for value in values.values()])
    low, high = pooled.quantile(torch.tensor([0.001, 0.999], dtype=torch.float64)).tolist()
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
    """One panel per name: a grid of images (n, C, H, W) in [-1, 1], or points (n, d >= 2) by their
    first two axes.

    Raises ``ValueError`` for nothing to show.
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
    """Arrows along the gradient of ``log_density``, which maps (n, 2) to (n,); their length is its
    magnitude's root.
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
