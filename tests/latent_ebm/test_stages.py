"""Ratio stages on two known Gaussians: the log-ratio, the normaliser, the trigger, and what a
checkpoint holds.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from latent_ebm import GaussianPrior, RatioPrior
from latent_ebm.learning import RatioStages
from latent_ebm.learning.stages import NO_GAP, largest_weight, zero_last_layer
from latent_ebm.networks import MLP, EnergyMLP
from samplers import MALA, effective_sample_size

MEAN, STD = torch.tensor([2.0, 0.0]), torch.tensor([0.5, 1.0])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def target(num: int) -> Tensor:
    return MEAN + STD * torch.randn(num, 2)


def target_log_prob(z: Tensor) -> Tensor:
    return -0.5 * ((z - MEAN) / STD).square().sum(1) - STD.log().sum() - math.log(2 * math.pi)


def empty_prior() -> RatioPrior:
    return RatioPrior(GaussianPrior(2), [], MALA(0.1, 20))


def small(**kwargs) -> RatioStages:
    return RatioStages(EnergyMLP(2, (8,)), 2, **{"pool_size": 100, **kwargs})


class Run(NamedTuple):
    prior: RatioPrior
    stages: RatioStages
    checks: list[dict[str, float]]  # at every closing, and of the stage left open
    weights: list[dict[str, float]]


@pytest.fixture(scope="module")
def run() -> Run:
    """Stages from ``N(0, I)`` to ``N(MEAN, diag(STD^2))`` until the trigger finds no gap."""
    torch.manual_seed(0)
    prior = empty_prior()
    stages = RatioStages(EnergyMLP(2, (64, 64)), 2, pool_size=20_000)
    stages.start(prior)
    checks, weights = [], []
    optimizer = torch.optim.Adam(stages.ratio.parameters(), lr=1e-3)
    for step in range(1, 4001):
        loss = stages.loss(prior, target(500))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 0:
            figures = stages.check(target(4000))
            stages.record(figures)
            if stages.is_done(prior):
                weights.append(stages.measure())
                checks.append(figures)
                stages.close(prior, **weights[-1])
                optimizer = torch.optim.Adam(stages.ratio.parameters(), lr=1e-3)
            elif len(stages.curve) == 2 * stages.patience and not stages.is_worth_adding(prior):
                checks.append(figures)
                break
    return Run(prior, stages, checks, weights)


def log_ratio_error(prior: RatioPrior) -> float:
    """RMS error of ``log p_K - log p_0`` over that of the closed form, under the target."""
    z = target(20_000)
    exact = target_log_prob(z) - prior.base.log_density(z)
    with torch.no_grad():
        learned = prior.tilt(z) - prior.log_z
    return ((learned - exact).square().mean() / exact.square().mean()).sqrt().item()


def test_telescoped_log_ratio_is_the_closed_form(run: Run) -> None:
    assert log_ratio_error(run.prior) < 0.05
    errors = [log_ratio_error(run.prior.prefix(k)) for k in range(len(run.prior.stages) + 1)]
    assert errors[0] == 1
    assert all(a > 2 * b for a, b in pairwise(errors)), errors


def test_telescoped_log_z_is_the_integral_on_a_grid(run: Run) -> None:
    axis = torch.linspace(-8, 8, 400)
    grid, cell = torch.cartesian_prod(axis, axis), 2 * math.log(16 / 399)
    for k in range(1, len(run.prior.stages) + 1):
        prior = run.prior.prefix(k)
        with torch.no_grad():
            truth = (prior(grid).logsumexp(0) + cell).item()
        assert abs(truth) > 0.5
        assert prior.log_z.item() == pytest.approx(truth, abs=0.05)


def test_draws_of_the_last_prior_are_the_targets(run: Run) -> None:
    z = run.prior.sample(4000)
    torch.testing.assert_close(z.mean(0), MEAN, rtol=0, atol=0.1)
    torch.testing.assert_close(z.std(0), STD, rtol=0, atol=0.06)
    torch.testing.assert_close(run.stages.pool.particles.mean(0), MEAN, rtol=0, atol=0.1)


def test_a_chasm_is_crossed_in_parts_and_the_end_is_seen(run: Run) -> None:
    first, *_, last = run.checks
    assert len(run.prior.stages) == len(run.weights) >= 2
    assert first["ess"] < run.stages.min_ess
    assert 0 < run.weights[0]["weight"] < 1
    assert run.weights[-1]["weight"] == 1
    assert last["gap"] < run.stages.tolerance
    assert last["calibration_model"] == pytest.approx(1, abs=0.03)
    assert last["calibration_data"] == pytest.approx(1, abs=0.03)
    assert last["accuracy"] == pytest.approx(0.5, abs=0.05)
    assert first["gap"] == pytest.approx(0.955, abs=0.03)  # twice the Jensen-Shannon divergence


def test_check_of_an_exact_ratio_is_calibrated() -> None:
    stages = small(pool_size=50_000)
    stages.start(empty_prior())

    class Exact(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return 0.5 * z[:, 0] - 0.125  # log N(z; (.5, 0), I) / N(z; 0, I)

    stages.ratio = Exact()
    z = torch.randn(10_000, 2) + torch.tensor([0.5, 0.0])
    figures = stages.check(z)
    assert figures["calibration_model"] == pytest.approx(1, abs=0.02)
    assert figures["calibration_data"] == pytest.approx(1, abs=0.02)
    assert figures["ess"] == pytest.approx(math.exp(-0.25), abs=0.02)
    assert figures["loss"] + figures["gap"] == pytest.approx(2 * math.log(2))
    assert figures["accuracy"] == pytest.approx(
        0.5 + 0.5 * math.erf(0.25 / math.sqrt(2)), abs=0.01
    )


@pytest.mark.parametrize("min_ess", [0.1, 0.5, 0.9])
def test_largest_weight_hits_the_wanted_sample_size(min_ess: float) -> None:
    logit = 3 * torch.randn(5000)
    weight = largest_weight(logit, min_ess)
    assert 0 < weight < 1
    assert effective_sample_size(weight * logit).item() == pytest.approx(min_ess, abs=1e-3)
    # Of a Gaussian logit with deviation s the fraction is exp(-s^2).
    assert weight == pytest.approx(math.sqrt(-math.log(min_ess)) / 3, rel=0.25)


def test_largest_weight_is_one_where_all_may_enter() -> None:
    assert largest_weight(0.1 * torch.randn(1000), 0.2) == 1


def test_measure_and_close_telescope() -> None:
    prior, stages = empty_prior(), small(pool_size=20_000)
    stages.start(prior)
    with torch.no_grad():
        for layer, value in zip(stages.ratio.layers, (2.0, 0.5), strict=True):
            layer.weight.copy_(value * torch.randn_like(layer.weight))
    ratio, before = stages.ratio, stages.pool.particles.clone()
    logit = ratio(before).detach()
    step = stages.measure()
    held_out = step["weight"] * logit[stages.num_train :]
    assert step["log_z_step"] == pytest.approx(held_out.exp().mean().log().item(), abs=1e-4)
    stages.curve = [1.0, 1.0]
    stages.close(prior, **step)
    torch.testing.assert_close(prior.stages[0](before), logit)
    assert prior.log_z.item() == pytest.approx(step["log_z_step"])
    assert prior.stages[0] is not stages.ratio
    assert not any(p.requires_grad for p in prior.parameters())
    assert all(p.requires_grad for p in stages.ratio.parameters())
    assert stages.curve == []
    assert torch.equal(stages.ratio(before), torch.zeros(20_000))
    assert len(stages.pool.particles.unique(dim=0)) > 19_000  # copies were moved apart


def test_close_resamples_the_pool_by_the_weights_of_the_stage() -> None:
    prior = RatioPrior(GaussianPrior(2), [], MALA(1e-6, 1))  # moves nothing to speak of
    stages = small(pool_size=20_000, min_ess=0.5)
    stages.start(prior)
    with torch.no_grad():
        for layer, value in zip(stages.ratio.layers, (2.0, 1.0), strict=True):
            layer.weight.copy_(value * torch.randn_like(layer.weight))
    before, step = stages.pool.particles.clone(), stages.measure()
    share = (step["weight"] * stages.ratio(before)).softmax(0).detach()
    stages.close(prior, **step)
    expected = share @ before
    assert expected.norm() > 0.4
    torch.testing.assert_close(stages.pool.particles.mean(0), expected, rtol=0, atol=0.01)


def test_held_out_particles_are_never_trained_on() -> None:
    prior, stages = empty_prior(), small(refresh=MALA(0.5, 1))
    stages.start(prior)
    before = stages.pool.particles.clone()
    seen = []
    stages.ratio.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    for _ in range(20):
        stages.loss(prior, torch.randn(64, 2))
    assert stages.num_train == 80
    assert torch.equal(stages.pool.particles[80:], before[80:])
    assert not torch.equal(stages.pool.particles[:80], before[:80])
    held_out = {tuple(row) for row in before[80:].tolist()}
    assert held_out.isdisjoint(tuple(row) for batch in seen for row in batch.tolist())
    seen.clear()
    stages.check(torch.randn(7, 2))
    assert torch.equal(seen[1], before[80:])


def test_without_refresh_the_pool_stays() -> None:
    prior, stages = empty_prior(), small()
    stages.start(prior)
    before = stages.pool.particles.clone()
    stages.loss(prior, torch.randn(64, 2)).backward()
    assert torch.equal(stages.pool.particles, before)
    stages.start(prior)  # once only
    assert torch.equal(stages.pool.particles, before)


def test_trigger_waits_for_a_plateau_below_the_gap() -> None:
    prior, stages = empty_prior(), small(patience=2, min_drop=0.01, tolerance=0.02, max_stages=1)
    stages.gain = 1.0
    for curve, done in {
        (1.0, 1.0, 1.0): False,  # too few checks
        (1.2, 1.1, 1.0, 0.9): False,  # still falling
        (1.0, 1.0, 0.995, 0.992): True,
        (1.0, 1.0, 0.98, 0.98): False,
        (0.9, 0.9, 1.0, 1.0): True,  # rising: it overfits
        (NO_GAP, NO_GAP, NO_GAP, NO_GAP - 0.01): False,  # nothing to add
    }.items():
        stages.curve = list(curve)
        assert stages.is_done(prior) is done, curve
    stages.curve, stages.gain = [1.0] * 4, 0.01
    assert not stages.is_done(prior)  # it separates, but would bring the prior no closer
    stages.gain = 1.0
    assert stages.is_done(prior)
    prior.append(EnergyMLP(2, (8,)))
    assert not stages.is_done(prior)
    assert not stages.is_worth_adding(prior)


def test_gain_is_the_fall_of_the_divergence() -> None:
    """A linear logit f = 2 z_1 carries N(0, I) to N((2, 0), I), at KL divergences 2 and 0 from the
    latter.
    """
    stages = small(pool_size=100_000, min_ess=1e-6)
    stages.start(empty_prior())
    stages.ratio = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Flatten(0))
    with torch.no_grad():
        stages.ratio[0].weight.copy_(torch.tensor([[2.0, 0.0]]))
    figures = stages.check(torch.randn(20_000, 2) + torch.tensor([2.0, 0.0]))
    assert figures["gain"] == pytest.approx(2.0, abs=0.2)
    stages.record(figures)
    assert stages.gain == figures["gain"]


def test_zero_last_layer_gives_the_ratio_one() -> None:
    for network in (EnergyMLP(3, (5, 5)), MLP(3, 1, (5,))):
        zero_last_layer(network)
        assert not network(torch.randn(4, 3)).any()
        assert network.layers[0].weight.any()
    with pytest.raises(
        ValueError, match=r"ratio must end in an nn\.Linear layer, got Tanh without one"
    ):
        zero_last_layer(nn.Tanh())


def test_extra_state_goes_through_a_checkpoint() -> None:
    stages = small()
    stages.start(empty_prior())
    stages.curve, stages.gain = [1.3, 1.2], 0.4
    copy = small()
    copy.load_state_dict(stages.state_dict())
    assert copy.curve == [1.3, 1.2]
    assert copy.gain == 0.4
    assert copy.curve is not stages.curve
    assert torch.equal(copy.pool.particles, stages.pool.particles)
    copy.start(empty_prior())
    assert torch.equal(copy.pool.particles, stages.pool.particles)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"min_ess": 0.0}, r"min_ess must be in \(0, 1\], got 0\.0"),
        ({"min_ess": 1.5}, r"min_ess must be in \(0, 1\], got 1\.5"),
        ({"pool_size": 4}, r"pool_size must be an integer >= 5, got 4"),
        ({"max_stages": 0}, r"max_stages must be an integer >= 1, got 0"),
        ({"patience": 0}, r"patience must be an integer >= 1, got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(argument: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**argument)
