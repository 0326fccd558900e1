"""Posterior draws against the exact posterior of a linear-Gaussian model; starts, persistence,
refusals.
"""

import pytest
import torch
from torch import Tensor, nn

from latent_ebm import (
    AmortizedPosterior,
    EnergyPrior,
    GaussianLikelihood,
    GaussianPrior,
    LatentModel,
    MCMCPosterior,
    Posterior,
    Restarts,
    WarmStart,
)
from samplers import (
    HMC,
    MALA,
    Annealed,
    Langevin,
    ParallelTempering,
    PersistentChains,
    Sampler,
)
from tests.latent_ebm.linear_gaussian import LinearGaussian, largest_z_score

NUM = 4000
DATA = ((0.3, -2.0, 1.1), (1.5, 0.4, -0.7))
LONG = [
    MALA(0.15, 60),
    Langevin(0.004, 600),
    HMC(0.25, 3, 15),
    Annealed(MALA(0.15, 20), (0.1, 0.5, 1)),
    ParallelTempering(MALA(0.15, 60), (0.2, 0.5, 1)),
]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def data(copies: int = 1) -> Tensor:
    return torch.tensor(DATA, dtype=torch.float64).repeat_interleave(copies, 0)


def worst(model: LinearGaussian, z: Tensor) -> float:
    """Largest z-score over both data of draws ``z`` for ``data(NUM)``."""
    return max(
        largest_z_score(z[i * NUM : (i + 1) * NUM], model.posterior(data()[i])) for i in range(2)
    )


@pytest.mark.parametrize("sampler", LONG, ids=lambda s: type(s).__name__)
def test_chains_have_the_exact_posterior_mean_and_covariance(sampler: Sampler) -> None:
    model = LinearGaussian()
    assert worst(model, MCMCPosterior(sampler).sample(model, data(NUM))) < 4


def test_long_climb_from_zero_ends_at_the_posterior_mode() -> None:
    model, x = LinearGaussian(), data()
    z = MCMCPosterior(Langevin(0.2, 200, temperature=0.0), start="zero").sample(model, x)
    torch.testing.assert_close(z, model.posterior(x).mean.detach(), rtol=0, atol=1e-9)


def test_climb_from_zero_does_not_depend_on_the_other_rows() -> None:
    model, x = LinearGaussian(), torch.randn(9, 3).double()
    posterior = MCMCPosterior(Langevin(0.05, 7, temperature=0.0), start="zero")
    together = posterior.sample(model, x)
    alone = torch.cat([posterior.sample(model, row[None]) for row in x])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-13)
    assert torch.equal(together, posterior.sample(model, x))


class Exact(nn.Module):
    """Encoder whose diagonal Gaussian has the exact marginals of the posterior, shifted by
    ``shift``.
    """

    def __init__(self, model: LinearGaussian, shift: float = 0.0) -> None:
        super().__init__()
        self.model, self.shift = model, shift

    def forward(self, x: Tensor) -> Tensor:
        exact = self.model.posterior(x)
        return torch.cat([exact.mean + self.shift, exact.stddev.log().expand_as(exact.mean)], 1)


def test_amortized_draws_have_the_moments_of_the_encoder() -> None:
    model, x = LinearGaussian(), data(NUM)
    posterior = AmortizedPosterior(Exact(model, shift=0.5))
    z, q = posterior.sample(model, x), posterior(x)
    white = ((z - q.mean) / q.stddev).detach()
    assert not z.requires_grad
    assert white.mean(0).abs().max() * NUM**0.5 < 4
    assert (white.square().mean(0) - 1).abs().max() * (NUM / 2) ** 0.5 < 4
    assert q.batch_shape == (len(x),)


def test_warm_start_begins_at_the_encoder() -> None:
    model, x = LinearGaussian(), data(NUM)
    steps = MALA(
        0.05, 12
    )  # too few from a cold start, enough to mend the encoder's missing covariance
    assert worst(model, WarmStart(AmortizedPosterior(Exact(model)), steps).sample(model, x)) < 4
    assert worst(model, MCMCPosterior(steps).sample(model, x)) > 8


def test_chains_start_at_the_draws_of_another_posterior() -> None:
    model, x = LinearGaussian(), data(NUM)
    encoder = AmortizedPosterior(Exact(model))
    one_tiny_step = MALA(1e-12, 1)
    z = MCMCPosterior(one_tiny_step, encoder).sample(model, x)
    white = (z - encoder(x).mean) / encoder(x).stddev
    assert (white.square().mean(0) - 1).abs().max() * (NUM / 2) ** 0.5 < 4
    assert worst(model, MCMCPosterior(MALA(0.05, 12), encoder).sample(model, x)) < 4


@pytest.mark.parametrize(
    ("num_starts", "num_rungs", "amortized"), [(300, 1, False), (30, 4, False), (100, 1, True)]
)
def test_restarts_have_the_exact_posterior(
    num_starts: int, num_rungs: int, amortized: bool
) -> None:
    model, x = LinearGaussian(), data(NUM)
    start = AmortizedPosterior(Exact(model, shift=0.3)) if amortized else "cold"
    assert worst(model, Restarts(MALA(0.15, 4), num_starts, num_rungs, start).sample(model, x)) < 4


class Folded(nn.Module):
    """A decoder ``z -> z`` on the right of 0 and ``-3 z`` on the left: two modes, one narrow."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.where(z > 0, z, -3 * z)


class Rightward(nn.Module):
    """An energy that multiplies the prior's density by exp(3) on the right of 0."""

    def forward(self, z: Tensor) -> Tensor:
        return -3 * torch.sigmoid(50 * z[:, 0])


def folded() -> LatentModel:
    prior = EnergyPrior(Rightward(), GaussianPrior(1), MALA(0.1, 1))
    return LatentModel(prior, GaussianLikelihood(Folded(), 0.1)).double()


def share_of_right(model: LatentModel, x: Tensor) -> float:
    """The mass of the posterior's right mode, by quadrature."""
    z = torch.linspace(-6, 6, 200_001, dtype=torch.float64)[:, None]
    p = model.log_joint(x.expand(len(z), 1), z).softmax(0)
    return p[z[:, 0] > 0].sum().item()


SHARES: list[tuple[str, Posterior, bool]] = [
    ("cold", MCMCPosterior(MALA(5e-4, 60)), False),
    ("refined restarts", MCMCPosterior(MALA(5e-4, 20), Restarts(MALA(5e-4, 1), 200)), True),
    ("annealed restarts", Restarts(MALA(1e-3, 2), 100, 6), True),
]


@pytest.mark.parametrize(
    ("posterior", "is_right"), [row[1:] for row in SHARES], ids=[row[0] for row in SHARES]
)
def test_cold_chains_miss_the_shares_of_two_modes_and_restarts_have_them(
    posterior: Posterior, is_right: bool
) -> None:
    model, x = folded(), torch.full((2000, 1), 1.5, dtype=torch.float64)
    exact = share_of_right(model, x[:1])
    assert 0.85 < exact < 0.98
    error = abs((posterior.sample(model, x) > 0).double().mean().item() - exact)
    assert error < 0.03 if is_right else error > 0.3


def test_persistent_chains_continue_their_own_datum_only() -> None:
    model, x, chains = LinearGaussian(), data(), PersistentChains(6, 2).double()
    before = chains.particles.clone()
    posterior = MCMCPosterior(MALA(0.15, 3), chains)
    index = torch.tensor([4, 1])
    z = posterior.sample(model, x, index=index)
    assert torch.equal(chains.particles[index], z)
    untouched = torch.tensor([0, 2, 3, 5])
    assert torch.equal(chains.particles[untouched], before[untouched])
    assert not torch.equal(z, before[index])
    for _ in range(40):
        z = posterior.sample(model, x.flip(0), index=index.flip(0))
    assert torch.equal(chains.particles[index.flip(0)], z)
    assert "start.particles" in posterior.state_dict()


def test_persistence_reaches_the_posterior_in_short_visits() -> None:
    model, x = LinearGaussian(), data(NUM)
    posterior, index = (
        MCMCPosterior(MALA(0.15, 3), PersistentChains(2 * NUM, 2).double()),
        torch.arange(2 * NUM),
    )
    for _ in range(20):
        z = posterior.sample(model, x, index=index)
    assert worst(model, z) < 4


@pytest.mark.parametrize("start", ["cold", "zero"])
def test_draws_are_detached_reproducible_and_leave_no_gradients(start: str) -> None:
    model, x = LinearGaussian(), data()
    posterior = MCMCPosterior(Langevin(0.01, 4), start)  # pyright: ignore[reportArgumentType]
    a, b = (
        posterior.sample(model, x, generator=torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(a, b)
    assert a.shape == (2, 2)
    assert a.dtype == torch.float64
    assert not a.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_refusals() -> None:
    with pytest.raises(
        ValueError, match=r'start must be "cold", "zero", PersistentChains or a posterior, got \'w'
    ):
        MCMCPosterior(MALA(0.1, 1), "warm")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="index must name the data of x"):
        MCMCPosterior(MALA(0.1, 1), PersistentChains(2, 2).double()).sample(
            LinearGaussian(), data()
        )
    with pytest.raises(ValueError, match="HMC or MALA, which leave their target invariant, got L"):
        Restarts(Langevin(0.1, 1), 2)
    with pytest.raises(ValueError, match="num_starts must be an integer >= 1, got 0"):
        Restarts(MALA(0.1, 1), 0)
    with pytest.raises(ValueError, match='start must be "cold" or an AmortizedPosterior, got \'z'):
        Restarts(MALA(0.1, 1), 2, start="zero")  # pyright: ignore[reportArgumentType]
