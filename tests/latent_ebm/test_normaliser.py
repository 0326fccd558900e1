"""Intervals of log Z hold it, and planted modes are not narrowed over."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from latent_ebm import EnergyPrior, GaussianPrior, RatioPrior
from latent_ebm.conditions import label_condition
from latent_ebm.evaluation import LogZ, prior_log_z
from latent_ebm.evaluation.doubts import reasons
from latent_ebm.kernels import KernelPrior
from latent_ebm.networks import ClassEnergy
from latent_ebm.priors import Prior
from samplers import (
    HMC,
    MALA,
    Density,
    Gaussian,
    GaussianMixture,
    Langevin,
    annealed_along,
    resample,
)
from tests.latent_ebm.test_priors import energy_prior, grid_log_z, ratio_prior

SAMPLER = HMC(0.1, 5, 2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Bump(nn.Module):
    """Minus the log-ratio of N(0, I) with a narrow bump of relative mass ``mass`` to N(0, I)."""

    def __init__(self, dim: int, mass: float, place: float = 4.0, scale: float = 0.2) -> None:
        super().__init__()
        self.base, mean = GaussianPrior(dim).double(), torch.zeros(dim).double()
        mean[0] = place
        self.bump = GaussianMixture(
            torch.tensor([mass]).double(), mean[None], torch.tensor([scale]).double()
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.base(z) - torch.logaddexp(self.base(z), self.bump(z))

    def draws(self, num: int) -> Tensor:
        """Half of them of the bump."""
        half = num // 2
        z = (
            self.base.sample(half, generator=seeded(1)),
            self.bump.sample(half, generator=seeded(2)),
        )
        return torch.cat(z)[torch.randperm(2 * half, generator=seeded(3))]


def told(labels: list[int]) -> Prior:
    """A conditional prior, given a condition with a row for each of ``labels``."""
    prior = EnergyPrior(ClassEnergy(2, 3), GaussianPrior(2), SAMPLER)
    return prior.given(label_condition(torch.tensor(labels)))


def bumped(dim: int, mass: float) -> tuple[EnergyPrior, Tensor]:
    network = Bump(dim, mass)
    return EnergyPrior(network, network.base, MALA(0.05, 20)), network.draws(200)


@pytest.mark.parametrize("make", [energy_prior, ratio_prior])
def test_interval_holds_the_integral_on_a_grid(make) -> None:
    prior: Prior = make()
    draws = prior.sample(100, generator=seeded(1))
    found = prior_log_z(prior, HMC(0.5, 3, 1), draws, num=200, num_rungs=20, generator=seeded())
    truth = grid_log_z(prior)
    assert abs(truth) > 0.1
    assert found.lower < truth < found.upper
    assert found.lower < found.estimate < found.upper
    assert found.upper - found.lower < 0.2
    assert found.from_base == pytest.approx(truth, abs=0.2)


@pytest.mark.parametrize("dim", [5, 10])
def test_a_mode_that_the_base_does_not_lead_to_is_found_from_draws(dim: int) -> None:
    mass = 20.0
    prior, draws = bumped(dim, mass)
    found = prior_log_z(prior, SAMPLER, draws, num=200, num_rungs=15, generator=seeded())
    assert found.lower < math.log1p(mass) < found.upper
    assert found.upper - found.lower < 1.5
    assert found.from_base < 0.5 * math.log1p(mass)
    assert not found.is_reliable
    assert any("of the mass that chains from draws find" in reason for reason in found.reasons)


def test_without_draws_nothing_is_reliable() -> None:
    prior, _ = bumped(20, 20.0)
    found = prior_log_z(prior, SAMPLER, num=100, num_rungs=10, generator=seeded())
    assert found.upper < math.log1p(20)  # as wrong as can be
    assert not found.is_reliable
    assert "a mode that no chain reaches is not seen" in found.reasons[-1]


@pytest.mark.parametrize("pick", [slice(0, 1), [3] * 30])
def test_few_different_draws_are_no_proof(pick: slice | list[int]) -> None:
    prior, draws = bumped(2, 3.0)
    found = prior_log_z(prior, SAMPLER, draws[pick], num=40, num_rungs=5, generator=seeded())
    assert "fewer than 20 different posterior draws were given, 1," in " ".join(found.reasons)


def test_chains_from_the_base_that_find_more_are_named() -> None:
    """What the chains from draws would then have missed."""
    weights = torch.linspace(0, 0.1, 100)
    found = list(reasons(energy_prior(), 1.0, 1.6, weights, -weights))
    assert found == ["chains from the base find 1.60, more than chains from draws find"]
    assert not list(reasons(energy_prior(), 1.0, 1.4, weights, -weights))


def test_draws_that_chains_do_not_come_to_are_named() -> None:
    """A narrow, correlated density that a diagonal mixture does not resemble, and one rung."""
    root = 0.02 * torch.eye(8).double() + 0.3
    target = Gaussian(torch.zeros(8).double(), root @ root.mT)
    base = GaussianPrior(8).double()
    prior = EnergyPrior(Ratio(target, base), base, MALA(1e-4, 5))
    draws = target.sample(100, generator=seeded(1))
    found = prior_log_z(prior, HMC(0.01, 3, 1), draws, num=100, num_rungs=1, generator=seeded())
    assert any("lie where no chain to the prior came" in reason for reason in found.reasons)


def test_draws_by_weight_give_modes_the_shares_that_a_short_chain_does_not() -> None:
    base = GaussianPrior(2)
    means = torch.tensor([[-2.5, 0.0], [2.5, 0.0]])
    target = GaussianMixture(torch.tensor([0.7, 0.3]), means, torch.tensor([0.4, 0.4]))
    prior = EnergyPrior(Ratio(target, base), base, MALA(0.08, 40))
    ends = annealed_along(
        [base, prior],
        base.sample(2000, generator=seeded(1)),
        MALA(0.08, 2),
        20,
        generator=seeded(2),
    )
    weighted, chain = resample(*ends, generator=seeded(3)), prior.sample(2000, generator=seeded())
    assert (weighted[:, 0] < 0).float().mean().item() == pytest.approx(0.7, abs=0.04)
    assert (chain[:, 0] < 0).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_a_wrong_telescoped_value_is_named() -> None:
    prior = RatioPrior(GaussianPrior(2), [], MALA(0.1, 20))
    prior.append(Shift(3.0), log_z_step=3.0)
    draws = torch.randn(100, 2, generator=seeded())
    right = prior_log_z(prior, SAMPLER, draws, num=100, num_rungs=5, generator=seeded())
    assert right.is_reliable
    assert right.estimate == pytest.approx(3, abs=0.1)
    prior.log_z_steps += 1
    wrong = prior_log_z(prior, SAMPLER, draws, num=100, num_rungs=5, generator=seeded())
    assert wrong.reasons == ("the stages of the prior telescope to 4.00",)


class Ratio(nn.Module):
    """The energy that makes ``target`` of ``base``."""

    def __init__(self, target: Density, base: GaussianPrior) -> None:
        super().__init__()
        self.target, self.base = target, base

    def forward(self, z: Tensor) -> Tensor:
        return self.base(z) - self.target(z)


class Shift(nn.Module):
    """A constant log-ratio."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, z: Tensor) -> Tensor:
        return z.new_full((len(z),), self.value) + 0 * z.sum(1)


def test_same_seed_same_interval() -> None:
    prior, draws = bumped(2, 3.0)
    once, twice = (
        prior_log_z(prior, SAMPLER, draws, num=100, num_rungs=5, generator=seeded(4))
        for _ in range(2)
    )
    assert once == twice
    wider = prior_log_z(
        prior, SAMPLER, draws, num=100, num_rungs=5, confidence=0.999, generator=seeded(4)
    )
    assert wider.lower <= once.lower < once.upper <= wider.upper


def test_a_normalised_prior_has_log_z_zero() -> None:
    exact = LogZ(0.0, 0.0, 0.0, 0.0)
    assert prior_log_z(GaussianPrior(2), SAMPLER) == exact
    assert prior_log_z(RatioPrior(GaussianPrior(2), [], SAMPLER), SAMPLER) == exact
    assert prior_log_z(KernelPrior(torch.zeros(3, 2), 0.5), SAMPLER) == exact
    assert exact.is_reliable


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"sampler": Langevin(0.1, 1)}, "sampler must be HMC or MALA"),
        ({"num": 39}, "num must be an integer >= 40, got 39"),
        ({"num_rungs": 0}, "num_rungs must be an integer >= 1, got 0"),
        ({"confidence": 1.0}, r"confidence must be in \(0, 1\), got 1.0"),
        ({"confidence": "high"}, r"confidence must be in \(0, 1\), got 'high'"),
        ({"prior": nn.Linear(2, 1)}, "prior must be a Prior, got Linear"),
        ({"prior": EnergyPrior(nn.Linear(2, 1), energy_prior(), SAMPLER)}, "a normalised base"),
        (
            {"prior": EnergyPrior(ClassEnergy(2, 3), GaussianPrior(2), SAMPLER)},
            "prior must be told one condition",
        ),
        ({"prior": told([0, 2])}, "prior must be given one row of its condition, .* got 2 rows"),
        ({"prior": RatioPrior(energy_prior(), [], SAMPLER)}, "a normalised base"),
        ({"draws": np.zeros((3, 2))}, "draws must be a Tensor, got array"),
        (
            {"draws": torch.zeros(3, 2).long()},
            "draws must be torch.float64 .* got torch.int64",
        ),
        (
            {"draws": torch.zeros(3, 2, device="meta")},
            "draws must be .* on cpu, .* on meta",
        ),
        ({"draws": torch.zeros(3, 2).float()}, "draws must be torch.float64 .* got torch.float32"),
        ({"draws": torch.zeros(3)}, r"draws must have shape \(batch, 2\), got \(3,\)"),
        (
            {"draws": torch.full((3, 2), math.nan).double()},
            "draws must be finite and at least one row",
        ),
        (
            {"draws": torch.zeros(0, 2).double()},
            "draws must be finite and at least one row, got 0 rows",
        ),
    ],
)
def test_refusals(argument: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prior_log_z(**{"prior": energy_prior(), "sampler": SAMPLER, **argument})
