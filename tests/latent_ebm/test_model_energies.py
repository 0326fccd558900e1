"""Energies of a latent model as columns for scikit-learn."""

import contextlib
import copy
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
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


@pytest.mark.parametrize("width", [1, 3])
def test_rows_of_another_shape_are_refused_in_one_sentence(width: int) -> None:
    with pytest.raises(ValueError, match=rf"take rows of shape \({width},\) and torch.float32"):
        ModelEnergies(*line()).fit(np.ones((4, width)))


def test_a_posterior_of_another_precision_is_refused_in_one_sentence() -> None:
    model, posterior = line()
    with pytest.raises(ValueError, match=r"and torch.float64, but one says: .* dtype"):
        ModelEnergies(model.double(), posterior).fit(rows(3))


def test_rows_that_must_not_be_written_and_counts_of_numpy_will_do() -> None:
    x = rows(7)
    expected = ModelEnergies(*line(), random_state=0).fit_transform(x)
    x.flags.writeable = False
    energies = ModelEnergies(*line(), random_state=0)
    energies.set_params(batch_size=np.int64(3))
    assert np.allclose(energies.fit_transform(x), expected)


def test_rows_are_taken_in_batches() -> None:
    sizes = []

    class Counting(AmortizedPosterior):
        def sample(self, model: LatentModel, x: torch.Tensor, **options: Any) -> torch.Tensor:
            sizes.append(len(x))
            return super().sample(model, x, **options)

    model, posterior = line()
    ModelEnergies(model, Counting(posterior.encoder), batch_size=3).transform(rows(7))
    assert sizes == [3, 3, 1]


def test_modes_and_parameters_are_as_they_were_even_after_an_error() -> None:
    model, posterior = line()
    model.likelihood.eval()
    for x in (rows(3), np.ones((3, 3))):
        with contextlib.suppress(ValueError):
            ModelEnergies(model, posterior).fit_transform(x)
        assert (model.training, model.likelihood.training, posterior.training) == (1, 0, 1)
        assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_is_an_estimator_like_others() -> None:
    x, bandwidths = rows(60), [1e-3, 1.0]
    energies = ModelEnergies(*line(), random_state=0)
    for other in (clone(energies), copy.deepcopy(energies)):
        assert isinstance(other, ModelEnergies)
        assert np.array_equal(other.fit_transform(x), energies.fit_transform(x))
    search = GridSearchCV(
        make_pipeline(energies, KernelDensity()),
        {"modelenergies__batch_size": [7], "kerneldensity__bandwidth": bandwidths},
        cv=2,
    )
    assert search.fit(x).best_params_["kerneldensity__bandwidth"] == bandwidths[1]


def test_energies_that_are_not_finite_are_refused() -> None:
    model, encoder = line()
    x = rows(3)
    energies = ModelEnergies(model, encoder, random_state=0).fit(x)
    with torch.no_grad():
        model.likelihood.decoder.weight.fill_(float("inf"))  # pyright: ignore
    with pytest.raises(ValueError, match="energies must be finite: 3 of 3 rows have others"):
        energies.transform(x)
