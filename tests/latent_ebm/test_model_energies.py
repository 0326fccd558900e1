"""Energies of a latent model as columns for scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from torch import nn

from latent_ebm import (
    AmortizedPosterior,
    GaussianLikelihood,
    GaussianPrior,
    LatentModel,
    MCMCPosterior,
)
from latent_ebm.detection import LatentEBMDetector, ModelEnergies
from samplers import Langevin

SCALE = 0.1


def line() -> tuple[LatentModel, AmortizedPosterior]:
    """``x = (z, z) + noise`` with z ~ N(0, 1), and an encoder that draws next to no noise."""
    decoder, encoder = nn.Linear(1, 2, bias=False), nn.Linear(2, 2)
    with torch.no_grad():
        decoder.weight.fill_(1.0)
        encoder.weight.copy_(torch.tensor([[0.5, 0.5], [0.0, 0.0]]))
        encoder.bias.copy_(torch.tensor([0.0, -20.0]))
    model = LatentModel(GaussianPrior(1), GaussianLikelihood(decoder, scale=SCALE))
    return model, AmortizedPosterior(encoder)


def rows(num: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((num, 1)) + SCALE * rng.standard_normal((num, 2))


def test_energies_are_those_of_the_model() -> None:
    x, energies = rows(7), ModelEnergies(*line(), batch_size=3, random_state=0)
    found = energies.fit(x).transform(x)
    z = x.mean(1)
    error = ((x - z[:, None]) ** 2).sum(1) / (2 * SCALE**2)
    expected = [error + np.log(2 * np.pi * SCALE**2), 0 * z, (z**2 + np.log(2 * np.pi)) / 2]
    assert np.allclose(found, np.stack(expected, 1), atol=1e-4)
    assert list(energies.get_feature_names_out()) == ["reconstruction", "tilt", "base"]


def test_a_seed_repeats_the_draws_of_a_chain() -> None:
    model, _ = line()
    chains = MCMCPosterior(Langevin(step_size=0.001, num_steps=3))
    x = rows(6)
    first, second, other = (
        ModelEnergies(model, chains, random_state=seed).fit(x).transform(x) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, second)
    assert not np.allclose(first, other)


def test_a_row_that_the_model_explains_too_well_stands_out() -> None:
    """Of two latents, one says how large the noise is: no row of training lies in the middle."""
    detector = make_pipeline(ModelEnergies(*line(), random_state=0), LatentEBMDetector())
    normal = rows(400)
    radius = 3 * SCALE * np.sign(normal[:, :1] - normal[:, 1:])
    ring = normal.mean(1, keepdims=True) + radius * np.array([[0.5, -0.5]])
    detector.fit(ring)
    away, middle = ring + np.array([1.0, -1.0]), np.repeat(ring.mean(1, keepdims=True), 2, 1)
    usual, far, exact = map(detector.score_samples, (ring, away, middle))
    assert far.max() < np.quantile(usual, 0.05)
    assert exact.max() < np.quantile(usual, 0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": nn.Linear(1, 1)}, "model must be a LatentModel"),
        ({"posterior": "encoder"}, "posterior must be a Posterior"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
    ],
)
def test_parameters_are_checked(change: dict, message: str) -> None:
    energies = ModelEnergies(*line()).set_params(**change)
    with pytest.raises(ValueError, match=message):
        energies.fit(rows(3))


def test_energies_that_are_not_finite_are_refused() -> None:
    model, encoder = line()
    x = rows(3)
    energies = ModelEnergies(model, encoder, random_state=0).fit(x)
    with torch.no_grad():
        model.likelihood.decoder.weight.fill_(float("inf"))  # pyright: ignore
    with pytest.raises(ValueError, match="energies must be finite: 3 of 3 rows have others"):
        energies.transform(x)
