"""The latent model adds up: joint, posterior closure, energy terms, samples."""

import pytest
import torch

from latent_ebm import GaussianLikelihood, GaussianPrior, LatentModel
from samplers import gradient_function, value_and_grad
from tests.latent_ebm.linear_gaussian import LinearGaussian


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_joint_is_posterior_times_marginal() -> None:
    model, x, z = LinearGaussian(), torch.randn(7, 3).double(), torch.randn(7, 2).double()
    expected = model.posterior(x).log_prob(z) + model.marginal().log_prob(x) + model.log_z
    torch.testing.assert_close(model.log_joint(x, z), expected)
    torch.testing.assert_close(model.log_posterior(x)(z), expected)


def test_gradient_of_the_posterior_is_the_recorded_one() -> None:
    model, x, z = LinearGaussian(), torch.randn(7, 3).double(), torch.randn(14, 2).double()
    log_posterior = model.log_posterior(x)
    recorded = value_and_grad(lambda z: log_posterior(z), z)
    torch.testing.assert_close(value_and_grad(log_posterior, z), recorded, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradient_function(log_posterior, z)(z), recorded[1], rtol=1e-12, atol=1e-12
    )


def test_energy_terms_are_named_rightly_and_sum_to_the_joint() -> None:
    model, x, z = LinearGaussian(), torch.randn(7, 3).double(), torch.randn(7, 2).double()
    terms = model.energy_terms(x, z)
    torch.testing.assert_close(terms.joint, -model.log_joint(x, z))
    torch.testing.assert_close(terms.tilt, z @ model.energy.weight[0] + model.energy.bias)
    torch.testing.assert_close(terms.base, -GaussianPrior(2).double().log_density(z))
    torch.testing.assert_close(terms.reconstruction, -model.likelihood(z).log_prob(x))


def test_samples_are_decoded_prior_draws_without_noise() -> None:
    model = LinearGaussian()
    x = model.sample(5, generator=torch.Generator().manual_seed(3))
    z = model.prior.sample(5, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(x, model.decoder(z))
    torch.testing.assert_close(x, model.decode(z))
    assert not x.requires_grad  # fit for numpy and plots


@pytest.mark.parametrize("shape", [(4, 2), (3, 3), (4, 3, 1)])
def test_x_must_fit_the_likelihood(shape: tuple[int, ...]) -> None:
    model = LatentModel(GaussianPrior(2), GaussianLikelihood(torch.nn.Linear(2, 3), 1.0))
    with pytest.raises(
        ValueError, match=r"x must have the shape \(4, 3\) of the likelihood at z, got"
    ):
        model.log_joint(torch.zeros(shape), torch.zeros(4, 2))
