"""Plots of what a model does: grids of images, densities, and plain figures in one style."""

from latent_ebm.plots.densities import draw_density, draw_field, grid_points
from latent_ebm.plots.figures import (
    STYLE,
    histogram_figure,
    new_figure,
    panels_figure,
    save_figure,
    styled,
)
from latent_ebm.plots.images import image_grid, save_grid

__all__ = [
    "STYLE",
    "draw_density",
    "draw_field",
    "grid_points",
    "histogram_figure",
    "image_grid",
    "new_figure",
    "panels_figure",
    "save_figure",
    "save_grid",
    "styled",
]
