"""Figures of the demo: samples side by side, reconstructions below their originals, and where
each prior puts its mass.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from latent_ebm import plots
from latent_ebm.cli.demo_models import Result
from latent_ebm.data import Digits

NUM_SAMPLES, COLUMNS, NUM_PAIRS = 64, 8, 20
PANEL = 3.1  # inches


def draw(results: dict[str, Result], data: Digits, out: Path) -> None:
    """Write the three figures of the trained models into the folder ``out``."""
    draw_samples(results, out / "samples.png")
    draw_reconstructions(results, data.test.x, out / "reconstructions.png")
    draw_latents(results, data.train.label, out / "prior_vs_posterior.png")


@plots.styled
def draw_samples(results: dict[str, Result], path: Path) -> None:
    """A grid of samples for every prior."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PANEL * len(results), PANEL), layout="constrained", dpi=200)
    for axes, (name, result) in zip(
        figure.subplots(1, len(results)), results.items(), strict=True
    ):
        grid = plots.image_grid(result.samples[0][:NUM_SAMPLES], COLUMNS)
        axes.imshow(grid, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(f"{name} prior")
    plots.save_figure(figure, path)


@plots.styled
def draw_reconstructions(results: dict[str, Result], x: Tensor, path: Path) -> None:
    """A row of held-out images above a row of reconstructions by each model."""
    from matplotlib.figure import Figure

    rows = {"held out": x, **{name: result.reconstructions for name, result in results.items()}}
    figure = Figure(figsize=(NUM_PAIRS * 0.42, len(rows) * 0.42), dpi=200)
    figure.subplots_adjust(0, 0, 1, 1, hspace=0.05)
    for axes, (name, images) in zip(figure.subplots(len(rows), 1), rows.items(), strict=True):
        grid = plots.image_grid(images[:NUM_PAIRS], NUM_PAIRS)
        axes.imshow(grid, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        axes.text(-0.01, 0.5, name, transform=axes.transAxes, ha="right", va="center")
    plots.save_figure(figure, path)


@plots.styled
def draw_latents(results: dict[str, Result], label: Tensor, path: Path) -> None:
    """Latents of training images, coloured by digit, above as many draws of the prior, both in
    the same plane.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PANEL * len(results), 2 * PANEL), layout="constrained", dpi=160)
    grid = figure.subplots(2, len(results), sharex=True, sharey=True)
    for (top, bottom), (name, result) in zip(grid.T, results.items(), strict=True):
        z_data, z_model = project(result.z_posterior, label, result.z_prior[: len(label)])
        style = {"s": 4, "linewidths": 0}
        dots = top.scatter(*z_data.T, c=label.numpy(), cmap="tab10", **style)
        bottom.scatter(*z_model.T, color="0.25", **style)
        top.set_title(f"{name} prior")
        bottom.set_xlabel("first discriminant")
    limit = 1.05 * max(
        float(np.abs(dot.get_offsets()).max()) for axes in grid.flat for dot in axes.collections
    )
    grid[0, 0].set(xlim=(-limit, limit), ylim=(-limit, limit), ylabel="latents of training images")
    grid[1, 0].set_ylabel("draws of the prior")
    figure.legend(
        *dots.legend_elements(), loc="outside right center", title="digit", handletextpad=0
    )
    plots.save_figure(figure, path)


def project(z_data: Tensor, label: Tensor, z_model: Tensor) -> tuple[NDArray, NDArray]:
    """Both sets (n, dim), projected to the plane (n, 2) where digits lie furthest apart, in units
    of the spread within a digit.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    plane = LinearDiscriminantAnalysis(n_components=2).fit(z_data.numpy(), label.numpy())
    return plane.transform(z_data.numpy()), plane.transform(z_model.numpy())
