"""Figures of the demo: samples side by side, reconstructions below their originals, and where priors put their mass."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latent_ebm.applications import pictures

if TYPE_CHECKING:
    from latent_ebm.cli.demo import Result

NUM_SAMPLES, NUM_PAIRS, NUM_POINTS = 100, 24, 1200


def draw(results: "dict[str, Result]", x: Tensor, out: Path) -> None:
    """Write the three figures of trained models and held-out images ``x`` (n, 1, H, W) into ``out``."""
    samples = {f"{name} prior": result.samples[0][:NUM_SAMPLES] for name, result in results.items()}
    figure = pictures.panels_figure(samples, columns=10)
    pictures.save_figure(figure, out / "samples.png")
    draw_reconstructions(results, x, out / "reconstructions.png")
    draw_latents(results, out / "prior_vs_posterior.png")


def draw_reconstructions(results: "dict[str, Result]", x: Tensor, path: Path) -> None:
    """A row of held-out images above a row of reconstructions by each model."""
    from matplotlib.figure import Figure

    rows = {"held out": x, **{name: result.reconstructions for name, result in results.items()}}
    figure = Figure(figsize=(9.5, 2.0), layout="constrained", dpi=140)
    for axes, (name, images) in zip(figure.subplots(len(rows), 1), rows.items(), strict=True):
        axes.imshow(pictures.image_grid(images[:NUM_PAIRS], NUM_PAIRS), cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()
        axes.text(-0.01, 0.5, name, transform=axes.transAxes, ha="right", va="center", fontsize=9)
    pictures.save_figure(figure, path)


@pictures.styled
def draw_latents(results: "dict[str, Result]", path: Path) -> None:
    """Latents of the training images and draws of the prior, in the plane where the former spread most."""
    planes = {name: project(result.z_posterior, result.z_prior) for name, result in results.items()}
    limit = 1.05 * max(plane.abs().quantile(0.998).item() for pair in planes.values() for plane in pair)
    figure, panels = pictures.new_figure(len(planes), (3.2, 3.4))
    for axes, (name, pair) in zip(panels, planes.items(), strict=True):
        for label, plane, colour in zip(("prior", "posterior of the training images"), pair[::-1], ("C1", "C0"), strict=True):
            axes.scatter(*plane[:NUM_POINTS].mT.numpy(), s=5, linewidths=0, alpha=0.5, color=colour, label=label)
        axes.set(title=f"{name} prior", xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="first component")
    panels[0].set_ylabel("second component")
    panels[0].legend(loc="lower left", markerscale=3)
    pictures.save_figure(figure, path)


def project(z_posterior: Tensor, z_prior: Tensor) -> tuple[Tensor, Tensor]:
    """Both laws (n, dim) on the first two principal components of the former (n, 2)."""
    mean = z_posterior.mean(0)
    basis = torch.linalg.svd(z_posterior - mean, full_matrices=False).Vh[:2]
    return (z_posterior - mean) @ basis.mT, (z_prior - mean) @ basis.mT
