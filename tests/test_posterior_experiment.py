"""The yardsticks of the experiment on posteriors: exact draws are exact, and errors are seen."""

import pytest
import torch
from torch import nn

from experiments.posteriors.methods import NAMES, draw, method
from experiments.posteriors.run import grid_measure, nuts_measure
from experiments.posteriors.truth import GridPosterior, pinwheel_model
from latent_ebm import GaussianLikelihood, GaussianPrior, LatentModel
from latent_ebm.data import Pinwheel


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_quadrature_has_the_posterior_of_a_linear_gaussian_model() -> None:
    weight = torch.tensor([[1.0, 0.3], [-0.5, 0.8]])
    decoder = nn.Linear(2, 2, bias=False)
    decoder.weight.data = weight
    model, x = LatentModel(GaussianPrior(2), GaussianLikelihood(decoder, 0.5)), torch.randn(3, 2)
    grid = GridPosterior()
    covariance = (torch.eye(2) + weight.mT @ weight / 0.25).inverse()
    mean = x @ weight @ covariance / 0.25
    masses = grid.masses(model, x)
    torch.testing.assert_close(masses @ grid.points, mean, rtol=0, atol=1e-3)
    z, _ = draw(grid, model, x, 400, torch.Generator().manual_seed(0))
    white = (z - mean) @ torch.linalg.inv(torch.linalg.cholesky(covariance)).mT
    assert white.mean(0).abs().max() * 400**0.5 < 4
    assert (white.flatten(0, 1).mT.cov() - torch.eye(2)).abs().max() * 600**0.5 < 4
    shares = grid.shares(z)
    assert (shares.sum(1) - 1).abs().max() < 1e-5
    assert (shares - grid.coarse(masses)).abs().sum(1).max() < 0.5


def test_the_measure_sees_a_lost_mode_and_passes_exact_draws() -> None:
    model, x = pinwheel_model(), Pinwheel(num_train=100).load()[2][0]
    measure = grid_measure(model, x)
    z, _ = draw(GridPosterior(), model, x, 60, torch.Generator().manual_seed(0))
    exact, mirrored = measure(z), measure(-z)
    assert exact["wrong_shares"] <= 0.1
    assert exact["mean_error"] < 0.3
    assert mirrored["wrong_shares"] > 0.5
    assert mirrored["tv"] > 2 * exact["tv"]


def test_distance_from_long_chains_is_that_of_shifted_normals() -> None:
    exact = torch.randn(20_000, 2, 1)
    shifted = nuts_measure(exact)(torch.randn(20_000, 2, 1) + 0.5)
    normal = torch.distributions.Normal(0.0, 1.0)
    wanted = 2 * normal.cdf(torch.tensor(0.25)).item() - 1
    assert abs(shifted["kolmogorov"] - wanted) < 0.02
    assert abs(shifted["mean_error"] - 0.5) < 0.03
    assert shifted["log_std_error"] < 0.03


@pytest.mark.parametrize("name", [name for name in NAMES if name != "exact"])
def test_methods_call_the_decoder_about_equally_often(name: str) -> None:
    model, x = pinwheel_model(), torch.zeros(2, 2)
    model.likelihood.decoder = nn.Identity()
    posterior = method(name, 40, nn.Linear(2, 4), 6, 2, 0.002)
    z, calls = draw(posterior, model, x, 3, torch.Generator().manual_seed(0))
    assert z.shape == (3, 2, 2)
    assert calls <= 44
    assert calls >= 36 or name in ("published", "encoder")
