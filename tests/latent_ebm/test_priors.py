"""Priors are sums of log-densities that integrate to one with the log Z they report; their draws
follow them.
"""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from latent_ebm import EnergyPrior, GaussianPrior, Prior, RatioPrior
from latent_ebm.networks import EnergyMLP
from latent_ebm.networks.energy import EnergyStack
from samplers import HMC, MALA, GradientFlow, Langevin, Sampler, value_and_grad
from samplers.gradient_flow import score_and_laplacian
from tests.latent_ebm.linear_gaussian import largest_z_score


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Quadratic(nn.Module):
    """``slope |z - center|^2 / 2`` (batch,), without a closed-form gradient."""

    def __init__(self, slope: float, center: float) -> None:
        super().__init__()
        self.slope, self.center = slope, nn.Parameter(torch.tensor(center))

    def forward(self, z: Tensor) -> Tensor:
        return self.slope * (z - self.center).square().sum(1) / 2


def wavy(seed: int, factor: float = 3.0) -> EnergyMLP:
    """A random energy with a few nats of relief."""
    torch.manual_seed(seed)
    network = EnergyMLP(2, (16, 16), "tanh")
    for layer in network.layers:
        layer.weight.data *= factor
    return network


def energy_prior() -> EnergyPrior:
    return EnergyPrior(wavy(1), GaussianPrior(2), MALA(0.1, 60)).double()


def ratio_prior() -> RatioPrior:
    prior = RatioPrior(GaussianPrior(2), [wavy(1)], MALA(0.1, 60))
    prior.append(wavy(2), weight=0.4, log_z_step=0.25)
    prior.append(Quadratic(-0.5, 1.0), weight=0.7)
    return prior.double()


PRIORS = {
    "gaussian": lambda: GaussianPrior(2).double(),
    "energy": energy_prior,
    "ratio": ratio_prior,
}


def grid_log_z(prior: Prior) -> float:
    axis = torch.linspace(-9, 9, 400, dtype=torch.float64)
    with torch.no_grad():
        return (
            prior(torch.cartesian_prod(axis, axis)).logsumexp(0) + 2 * math.log(18 / 399)
        ).item()


@pytest.mark.cpu
def test_gaussian_log_density_is_scipys() -> None:
    z = torch.randn(6, 3).double()
    expected = stats.multivariate_normal(torch.zeros(3).numpy()).logpdf(z.numpy())
    torch.testing.assert_close(
        GaussianPrior(3).double().log_density(z), torch.from_numpy(expected)
    )


def test_densities_are_the_base_and_signed_weighted_networks() -> None:
    z, base = torch.randn(6, 2).double(), GaussianPrior(2).double()
    energy, ratio = energy_prior(), ratio_prior()
    torch.testing.assert_close(energy.log_density(z), base(z) - energy.network(z))
    first, second, third = ratio.stages
    tilt = first(z) + 0.4 * second(z) + 0.7 * third(z)
    torch.testing.assert_close(ratio.log_density(z), base(z) + tilt, rtol=0, atol=1e-6)
    torch.testing.assert_close(ratio.tilt(z), tilt, rtol=0, atol=1e-6)
    torch.testing.assert_close(energy.tilt(z), -energy.network(z))
    assert torch.equal(base.tilt(z), torch.zeros(6).double())


@pytest.mark.parametrize("name", PRIORS)
def test_closed_form_gradient_is_the_recorded_one(name: str) -> None:
    prior, z = PRIORS[name](), torch.randn(9, 2).double()
    value, grad = value_and_grad(prior, z)
    expected_value, expected_grad = value_and_grad(lambda z: prior.log_density(z), z)
    torch.testing.assert_close(value, expected_value, rtol=0, atol=1e-12)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=1e-12)
    assert not value.requires_grad
    assert not grad.requires_grad


def test_gaussian_integrates_to_one() -> None:
    assert grid_log_z(GaussianPrior(2).double()) == pytest.approx(0, abs=1e-9)


def test_prefix_is_the_product_of_the_first_stages() -> None:
    prior, z = ratio_prior(), torch.randn(5, 2).double()
    part = prior.prefix(2)
    torch.testing.assert_close(
        part(z), prior.base(z) + prior.stages[0](z) + prior.weights[1] * prior.stages[1](z)
    )
    assert part.stages[1] is prior.stages[1]
    assert part.log_z.item() == pytest.approx(0.25)
    assert part.log_z_steps.shape == part.weights.shape == (2,)
    torch.testing.assert_close(prior.prefix(0)(z), prior.base(z))
    torch.testing.assert_close(prior.prefix(3)(z), prior(z))


def test_append_freezes_the_stage_and_records_its_numbers() -> None:
    prior, stage = RatioPrior(GaussianPrior(2), [], MALA(0.1, 5)), wavy(3)
    z = torch.randn(4, 2)
    assert prior.log_z == 0
    assert torch.equal(prior(z), prior.base(z))
    assert prior.sample(3).shape == (3, 2)
    prior.append(stage, weight=0.5, log_z_step=-0.75)
    prior.append(wavy(4), log_z_step=0.5)
    assert not any(p.requires_grad for p in prior.parameters())
    torch.testing.assert_close(prior.weights, torch.tensor([0.5, 1.0]))
    assert prior.log_z.item() == -0.25
    assert {"weights", "log_z_steps"} <= set(prior.state_dict())
    torch.testing.assert_close(prior(z), prior.base(z) + 0.5 * stage(z) + prior.stages[1](z))


@pytest.mark.parametrize("name", PRIORS)
def test_draws_are_detached_and_reproducible(name: str) -> None:
    prior = PRIORS[name]()
    a, b = (prior.sample(7, generator=torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.shape == (7, 2)
    assert a.dtype == torch.float64
    assert not a.requires_grad
    assert all(p.grad is None for p in prior.parameters())


@pytest.mark.parametrize("kind", ["energy", "ratio"])
def test_draws_follow_a_tilt_that_is_known(kind: str) -> None:
    """``N(0, I) exp(-slope |z - c|^2 / 2)`` is Gaussian, with precision ``1 + slope``."""
    sampler = MALA(0.2, 40)
    if kind == "energy":
        prior = EnergyPrior(Quadratic(3.0, 0.8), GaussianPrior(2), sampler)
    else:
        prior = RatioPrior(GaussianPrior(2), [Quadratic(-1.0, 0.8), Quadratic(-4.0, 0.8)], sampler)
        prior.weights[1] = 0.5
    exact = MultivariateNormal(torch.full((2,), 2.4 / 4).double(), torch.eye(2).double() / 4)
    assert largest_z_score(prior.double().sample(4000), exact) < 4


def test_stages_are_sampled_in_turn() -> None:
    """A step of zero temperature along linear stages moves by the slopes of all stages so far."""
    slopes, step = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), 1e-3
    stages = [EnergyMLP(2, ()) for _ in slopes]
    for stage, slope in zip(stages, slopes, strict=True):
        stage.layers[-1].weight.data = slope[None]
    prior = RatioPrior(GaussianPrior(2), stages, Langevin(step, 1, temperature=0.0))
    base = prior.base.sample(5, generator=torch.Generator().manual_seed(0))
    moved = prior.sample(5, generator=torch.Generator().manual_seed(0)) - base
    expected = step * (2 * slopes[0] + slopes[1] - 2 * base)
    torch.testing.assert_close(moved, expected, rtol=0, atol=3e-5)


def test_dim_must_be_positive() -> None:
    with pytest.raises(ValueError, match="dim must be an integer >= 1, got 0"):
        GaussianPrior(0)


def test_stacked_stages_are_the_same_density() -> None:
    prior = RatioPrior(GaussianPrior(2), [wavy(1)], MALA(0.1, 3))
    prior.append(wavy(2), weight=0.4)
    prior.double()
    z = torch.randn(50, 2, dtype=torch.float64)
    settled = prior.settled()
    assert [type(term) for _, term in settled.terms()] == [GaussianPrior, EnergyStack]
    torch.testing.assert_close(
        value_and_grad(settled, z), value_and_grad(prior, z), rtol=1e-12, atol=1e-12
    )
    torch.testing.assert_close(settled(z), prior(z), rtol=1e-12, atol=1e-12)
    chains = (
        MALA(0.1, 3).sample(density, z, generator=torch.Generator().manual_seed(1))
        for density in (prior, settled)
    )
    assert torch.equal(*chains)  # a chain settles its density


@pytest.mark.parametrize("name", PRIORS)
def test_gradient_alone_is_that_of_the_value(name: str) -> None:
    prior, (z, other) = PRIORS[name](), torch.randn(2, 20, 2, dtype=torch.float64)
    gradient = prior.workspace(z)
    for point in (z, other, z):
        assert torch.equal(gradient(point), value_and_grad(prior, point)[1])
        assert torch.equal(prior.gradient(point), value_and_grad(prior, point)[1])


@pytest.mark.parametrize(
    "sampler", [Langevin(0.1, 6), HMC(0.3, 4, 3), GradientFlow(0.5, "rk4", 4)]
)
def test_chains_in_memory_allocated_once_are_the_recorded_ones(sampler: Sampler) -> None:
    prior, z = energy_prior(), torch.randn(20, 2, dtype=torch.float64)
    chains = (
        sampler.sample(p, z, generator=torch.Generator().manual_seed(1))
        for p in (prior, lambda z: prior(z))
    )
    torch.testing.assert_close(*chains, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PRIORS)
def test_flows_find_the_closed_form(name: str) -> None:
    prior, z = PRIORS[name](), torch.randn(20, 2, dtype=torch.float64)
    recorded = score_and_laplacian(lambda z: prior(z), z)
    with torch.no_grad():
        torch.testing.assert_close(score_and_laplacian(prior, z), recorded, rtol=1e-12, atol=1e-12)
        flow = GradientFlow(0.5, "rk4", 8).flow(prior, z, torch.zeros(20).double())
    torch.testing.assert_close(
        flow, GradientFlow(0.5, "rk4", 8).flow(prior, z, torch.zeros(20).double())
    )
