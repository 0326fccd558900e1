"""Densities and fields as pictures: painted on one scale, the right way round."""

import math
from pathlib import Path

import pytest
import torch
from matplotlib.image import AxesImage
from matplotlib.quiver import Quiver
from torch import Tensor

from latent_ebm.plots import (
    draw_density,
    draw_field,
    grid_points,
    new_figure,
)
from latent_ebm.writing import atomic_path
from samplers import Gaussian


def corner(x: Tensor) -> Tensor:
    """A narrow Gaussian at (2, -1), without its constant."""
    return -(x - torch.tensor([2.0, -1.0])).square().sum(1) / (2 * 0.3**2)


def test_figures_have_the_rows_and_columns_asked_for() -> None:
    figure, axes = new_figure(3, (2.0, 1.5), rows=2)
    assert figure.get_size_inches().tolist() == [6.0, 3.0]
    assert [axis.get_subplotspec().rowspan.start for axis in axes] == [0, 0, 0, 1, 1, 1]


def test_a_density_is_normalised_and_lies_where_it_should() -> None:
    _, (axes,) = new_figure(1, (2.0, 2.0))
    peak = draw_density(axes, corner, box=4.0, num=401)
    (image,) = [child for child in axes.get_children() if isinstance(child, AxesImage)]
    p = image.get_array()
    assert peak == pytest.approx(1 / (2 * math.pi * 0.09), rel=1e-3)
    assert p.sum() * (8 / 400) ** 2 == pytest.approx(1, rel=1e-3)
    row, column = divmod(int(p.argmax()), 401)  # rows go up the second axis
    assert (column * 8 / 400 - 4, row * 8 / 400 - 4) == pytest.approx((2.0, -1.0))
    assert image.origin == "lower"


def test_panels_share_a_colour_scale() -> None:
    _, (first, second) = new_figure(2, (2.0, 2.0))
    peak = draw_density(first, corner)
    draw_density(second, lambda x: -x.square().sum(1), vmax=peak)
    images = [child for child in second.get_children() if isinstance(child, AxesImage)]
    assert images[0].get_clim() == (0, peak)


def test_arrows_point_along_the_gradient() -> None:
    _, (axes,) = new_figure(1, (2.0, 2.0))
    draw_field(axes, Gaussian(torch.zeros(2), torch.eye(2)), box=3.0, num=6)
    (arrows,) = [child for child in axes.get_children() if isinstance(child, Quiver)]
    u, v = torch.as_tensor(arrows.U), torch.as_tensor(arrows.V)
    towards = -grid_points(3 * (1 - 1 / 6), 6)
    length = towards.norm(dim=1).sqrt()
    torch.testing.assert_close(torch.stack([u, v], 1).float(), towards / length[:, None])


def test_a_full_disk_is_said_of_a_file(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*scores\.csv'"),
        atomic_path(tmp_path / "scores.csv"),
    ):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())
