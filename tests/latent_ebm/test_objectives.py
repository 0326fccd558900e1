"""Losses whose gradients are known: maximum likelihood in closed form and on a grid, the optimum
of the classifier.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from latent_ebm import EnergyPrior, GaussianPrior
from latent_ebm.networks import EnergyMLP
from latent_ebm.objectives import (
    contrastive,
    divergence,
    negative_log_likelihood,
    noise_contrastive,
)
from samplers import MALA, resample
from tests.latent_ebm.linear_gaussian import LinearGaussian


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def flat(grads: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([grad.flatten() for grad in grads])


def test_losses_have_the_maximum_likelihood_gradient_at_exact_posterior_samples() -> None:
    model, num = LinearGaussian(), 500
    parameters = list(model.parameters())
    # not the model's own distribution, where the gradient would vanish
    x = 0.4 + 1.3 * torch.randn(num, 3).double()
    nll = -model.marginal().log_prob(x).mean()
    exact = flat(torch.autograd.grad(nll, parameters, materialize_grads=True))
    gradients = []
    for _ in range(300):
        with torch.no_grad():
            z_data = model.posterior(x).sample()
            z_model = model.prior_mean + torch.randn(num, 2).double()
        loss = negative_log_likelihood(model.likelihood(z_data), x) + contrastive(
            model.prior, z_data, z_model
        )
        gradients.append(flat(torch.autograd.grad(loss, parameters)))
    gradient = torch.stack(gradients)
    error = gradient.std(0) / math.sqrt(len(gradients))
    assert exact.abs().max() > 0.5
    constant = error < 1e-12  # the constant of the energy cancels
    assert constant.sum() == 1
    assert ((gradient.mean(0) - exact)[~constant] / error[~constant]).abs().max() < 4
    torch.testing.assert_close(gradient.mean(0)[constant], exact[constant], rtol=0, atol=1e-12)


def test_contrastive_gradient_is_that_of_the_normalised_density_on_a_grid() -> None:
    prior = EnergyPrior(EnergyMLP(2, (8,)), GaussianPrior(2), MALA(0.1, 1)).double()
    for parameter in prior.network.parameters():
        parameter.data *= 3
    axis = torch.linspace(-7, 7, 300, dtype=torch.float64)
    grid, cell = torch.cartesian_prod(axis, axis), 2 * math.log(14 / 299)
    z_data = 0.5 * torch.randn(200, 2).double() + 1
    with torch.no_grad():
        z_model = resample(grid, prior(grid), 400_000)

    @torch.no_grad()
    def nll(step: Tensor) -> Tensor:
        vector = torch.nn.utils.parameters_to_vector(prior.parameters())
        torch.nn.utils.vector_to_parameters(vector + step, prior.parameters())
        value = prior(grid).logsumexp(0) + cell - prior(z_data).mean()
        torch.nn.utils.vector_to_parameters(vector, prior.parameters())
        return value

    gradient = flat(
        torch.autograd.grad(contrastive(prior, z_data, z_model), list(prior.parameters()))
    )
    for direction in torch.eye(len(gradient), dtype=torch.float64)[::4]:
        step = 1e-4 * direction
        difference = (nll(step) - nll(-step)) / 2e-4
        assert (gradient @ direction).item() == pytest.approx(difference.item(), abs=5e-4)
    assert gradient.abs().max() > 0.1


def test_noise_contrastive_is_least_at_the_log_ratio_where_it_is_the_jensen_shannon_gap() -> None:
    data, model, num = Normal(1.0, 0.7), Normal(0.0, 1.0), 200_000
    middle = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    p, q = data.log_prob(middle).exp(), model.log_prob(middle).exp()
    entropy = [
        torch.special.xlogy(density, density / ((p + q) / 2)).sum() * 24 / 20_000
        for density in (p, q)
    ]
    optimum = 2 * math.log(2) - sum(entropy).item()  # the sum is twice the divergence
    draws = data.sample((num,)), model.sample((num,))

    def loss(scale: float, shift: float) -> float:
        logits = (scale * (data.log_prob(z) - model.log_prob(z)) + shift for z in draws)
        return noise_contrastive(*logits).item()

    assert loss(1.0, 0.0) == pytest.approx(optimum, abs=0.01)
    assert loss(0.0, 0.0) == pytest.approx(2 * math.log(2))
    assert all(
        loss(*off) > loss(1.0, 0.0)
        for off in [(1.1, 0.0), (0.9, 0.0), (1.0, 0.1), (1.0, -0.1), (-1.0, 0.0)]
    )


def test_noise_contrastive_does_not_overflow() -> None:
    assert noise_contrastive(torch.tensor([1e4]), torch.tensor([-1e4])).item() == 0
    assert noise_contrastive(torch.tensor([-1e4]), torch.tensor([1e4])).item() == 2e4


def test_divergence_averages_to_the_closed_form() -> None:
    mean, std = (
        torch.tensor([0.5, -1.0]).expand(100_000, 2),
        torch.tensor([0.6, 1.4]).expand(100_000, 2),
    )
    q = Independent(Normal(mean, std), 1)
    z = q.rsample()
    exact = (
        kl_divergence(Normal(mean[0], std[0]), Normal(torch.zeros(2), torch.ones(2))).sum().item()
    )
    assert divergence(q, GaussianPrior(2), z).item() == pytest.approx(exact, abs=0.02)


def test_negative_log_likelihood_is_a_mean_over_data() -> None:
    conditional = Independent(Normal(torch.zeros(4, 3), 1.0), 1)
    assert negative_log_likelihood(conditional, torch.zeros(4, 3)).item() == pytest.approx(
        1.5 * math.log(2 * math.pi)
    )
