"""Chains started at the stationary distribution must stay there: z-tests after a few large steps,
and from far away.

Many chains and few steps see an error of one step; a long chain with a loose tolerance passes a
sampler whose Metropolis test is missing.
"""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from samplers import (
    HMC,
    MALA,
    Annealed,
    Banana,
    Gaussian,
    GaussianMixture,
    ParallelTempering,
    Sampler,
    State,
    Tempered,
    UnderdampedLangevin,
    gradient_function,
)
from samplers.tempering import cold_chain
from tests.samplers.table import (
    CHAINS,
    LADDER,
    Z_MAX,
    Row,
    baoab_law,
    correlated_gaussian,
    moment_z,
    seeded,
    z_scores,
)

NUM = 200_000


def how_many(sampler: Sampler) -> int:
    """Chains of a test: replica exchange runs each of them once per rung."""
    return NUM // 3 if isinstance(sampler, ParallelTempering) else NUM


invariant = [row for row in CHAINS if not row.transient]


@pytest.mark.parametrize("row", invariant, ids=lambda row: row.name)
def test_invariance(row: Row) -> None:
    target, generator = correlated_gaussian(), seeded(7)
    state = row.start(row, target, how_many(row.sampler), generator)
    law = row.law(row.sampler, target)
    assert moment_z(state.position, target.mean, law) < Z_MAX
    prob = []
    for _ in range(row.sampler.num_steps):
        state, info = row.sampler.step(target, state, generator=generator)
        prob.append(info.accept_prob.mean())
    assert moment_z(state.position, target.mean, law) < Z_MAX
    if row.sampler.is_adjusted:
        assert torch.stack(prob).mean() < 0.9, (
            "steps must be large for the Metropolis test to matter"
        )


@pytest.mark.parametrize("row", CHAINS, ids=lambda row: row.name)
def test_mixing(row: Row) -> None:
    target = correlated_gaussian()
    start = target.mean + torch.tensor([[12.0, -12.0]]).double().expand(5_000, 2)
    x = row.long().sample(target, start, generator=seeded(8))
    assert moment_z(x, target.mean, row.law(row.sampler, target)) < Z_MAX


def test_underdamped_joint_law() -> None:
    """BAOAB: position and momentum together keep the fixed point of their linear map; the
    position's part is exact.
    """
    target, sampler, generator = correlated_gaussian(), UnderdampedLangevin(0.8, 1.0, 6), seeded(9)
    law = baoab_law(sampler, target)
    torch.testing.assert_close(law[:2, :2], target.covariance)
    (row,) = (row for row in CHAINS if row.name == "underdamped")
    state = row.start(row, target, NUM, generator)
    for _ in range(sampler.num_steps):
        state, _ = sampler.step(target, state, generator=generator)
    joint = torch.cat([state.position, state.momentum], 1)
    assert moment_z(joint, torch.cat([target.mean, torch.zeros(2)]), law) < Z_MAX


def test_underdamped_starts_with_standard_momenta() -> None:
    target = correlated_gaussian()
    state = UnderdampedLangevin(0.5, 1.0, 1).init(
        target, torch.zeros(NUM, 2).double(), generator=seeded()
    )
    assert moment_z(state.momentum, torch.zeros(2).double(), torch.eye(2).double()) < Z_MAX


def mixture() -> GaussianMixture:
    """Two overlapping modes of unequal weight and width."""
    means = torch.tensor([[-1.5, 0.0], [1.0, 1.0]]).double()
    return GaussianMixture(
        torch.tensor([0.3, 0.7]).double(), means, torch.tensor([0.6, 1.0]).double()
    )


def banana() -> Banana:
    return Banana(0.8, torch.tensor([1.0, 0.7]).double())


ADJUSTED = [
    MALA(0.3, 6),
    HMC(0.6, 3, 6),
    ParallelTempering(MALA(0.3, 6), LADDER),
    ParallelTempering(HMC(0.6, 3, 6), LADDER),
]


@pytest.mark.parametrize("sampler", ADJUSTED, ids=str)
def test_invariance_of_a_mixture(sampler: Sampler) -> None:
    target, generator = mixture(), seeded(11)
    x = at_stationarity(
        sampler, target, target.sample(how_many(sampler), generator=generator), generator
    )
    d = x - target.mean
    moments = torch.cat([d, d[:, :1] * d, d[:, 1:] ** 2], 1)
    c = target.covariance
    assert (
        z_scores(moments, torch.stack([c[0, 0] * 0, c[0, 0] * 0, c[0, 0], c[0, 1], c[1, 1]]))
        .abs()
        .max()
        < Z_MAX
    )
    # The log-density itself, against independent exact draws.
    exact = target(target.sample(len(x), generator=generator))
    assert abs(target(x).mean() - exact.mean()) < Z_MAX * exact.std() * (2 / len(x)) ** 0.5


@pytest.mark.parametrize("sampler", ADJUSTED, ids=str)
def test_invariance_of_a_banana(sampler: Sampler) -> None:
    target, generator = banana(), seeded(12)
    x = at_stationarity(
        sampler, target, target.sample(how_many(sampler), generator=generator), generator
    )
    assert moment_z(target.unbend(x), torch.zeros(2).double(), torch.eye(2).double()) < Z_MAX


def at_stationarity(
    sampler: Sampler, target: GaussianMixture | Banana, x: Tensor, generator: torch.Generator
) -> Tensor:
    """Positions after the sampler's steps from exact draws; hot replicas get exact draws of
    ``p^beta`` by rejection.
    """
    state: Any = sampler.init(target, x, generator=generator)
    if isinstance(sampler, ParallelTempering):
        replicas = [
            tempered_draws(target, beta, len(x), generator) for beta in sampler.ladder[:-1]
        ]
        beta = x.new_tensor(sampler.ladder).repeat_interleave(len(x))
        both = torch.cat([*replicas, x])
        replicas = State(both, *Tempered(target, beta).value_and_grad(both))
        state = state._replace(replicas=replicas)
    for _ in range(sampler.num_steps):
        state, info = sampler.step(target, state, generator=generator)
    assert info.accept_prob.mean() < 0.95
    return state.position


def tempered_draws(
    target: GaussianMixture | Banana, beta: float, num: int, generator: torch.Generator
) -> Tensor:
    """Exact draws of ``p^beta``: ``(sum_k w_k N_k)^beta <= sum_k (w_k N_k)^beta``, a mixture of
    wider Gaussians.
    """
    if isinstance(target, Banana):
        u = target.scales / beta**0.5 * torch.randn(num, 2, generator=generator).double()
        return torch.stack(
            [u[:, 0], u[:, 1] + target.curvature * (u[:, 0] ** 2 - target.scales[0] ** 2)], 1
        )
    # The integral of (w N(s))^beta in 2-D is w^beta (2 pi s^2)^(1 - beta) / beta.
    weights = target.weights**beta * (2 * torch.pi * target.scales**2) ** (1 - beta) / beta
    proposal = GaussianMixture(weights, target.means, target.scales / beta**0.5)
    x = proposal.sample(3 * num, generator=generator)
    keep = torch.rand(3 * num, generator=generator).double().log() < beta * target(x) - proposal(x)
    assert keep.sum() >= num
    return x[keep][:num]


def far_modes() -> GaussianMixture:
    means = torch.tensor([[-4.0, 0.0], [4.0, 0.0]]).double()
    return GaussianMixture(
        torch.tensor([0.25, 0.75]).double(), means, torch.tensor([1.0, 0.8]).double()
    )


def test_tempering_crosses_between_modes() -> None:
    """Replica exchange finds both modes with their masses; the inner sampler alone stays where it
    started.
    """
    target, inner = far_modes(), HMC(0.5, 4, 250)
    start = torch.tensor([[-4.0, 0.0]]).double().expand(1_000, 2)
    alone = inner.sample(target, start, generator=seeded(1))
    assert (alone[:, 0] > 0).double().mean() < 0.1
    sampler = ParallelTempering(inner, (0.05, 0.15, 0.4, 1.0))
    x = sampler.sample(target, start, generator=seeded(2))
    right = (x[:, :1] > 0).double()
    assert z_scores(right, torch.tensor([0.75])).abs().item() < Z_MAX
    d = x - target.mean
    assert z_scores(d, torch.zeros(2)).abs().max() < Z_MAX


def test_annealing_finds_both_modes() -> None:
    target = far_modes()
    start = torch.tensor([[-4.0, 0.0]]).double().expand(1_000, 2)
    x = Annealed(MALA(0.3, 100), (0.05, 0.15, 0.4, 1.0)).sample(target, start, generator=seeded(3))
    assert 0.2 < (x[:, 0] > 0).double().mean() < 0.95


def test_annealed_runs_every_rung() -> None:
    target, sampler = correlated_gaussian(), Annealed(MALA(0.3, 4), LADDER)
    run = list(sampler.run(target, torch.zeros(3, 2).double(), generator=seeded()))
    assert len(run) == sampler.num_steps == 12
    for k, beta in enumerate(LADDER):
        for state, _ in run[4 * k : 4 * k + 4]:
            torch.testing.assert_close(state.log_density, beta * target(state.position))


def test_replicas_share_one_call() -> None:
    target, calls = correlated_gaussian(), []

    def counted(x: Tensor) -> Tensor:
        calls.append(len(x))
        return target(x)

    sampler = ParallelTempering(MALA(0.3, 5), LADDER)
    sampler.sample(counted, torch.zeros(7, 2).double(), generator=seeded())
    assert calls == [21] * 6


def test_swaps_follow_their_probability_and_alternate() -> None:
    target, sampler = correlated_gaussian(), ParallelTempering(MALA(0.3, 4), (0.2, 0.4, 0.7, 1.0))
    run = sampler.run(target, target.sample(50_000, generator=seeded()), generator=seeded(1))
    for sweep, (state, info) in enumerate(itertools.islice(run, 4)):
        mine = torch.arange(3) % 2 == sweep % 2
        assert info.swap_prob.shape == info.swapped.shape == (3, 50_000)
        assert not info.swapped[~mine].any()
        rate, prob = info.swapped[mine].double().mean(1), info.swap_prob[mine].mean(1)
        assert ((rate - prob).abs() < Z_MAX * 0.5 / 50_000**0.5).all()
        beta = torch.tensor(sampler.ladder).double().repeat_interleave(50_000)
        value, grad = Tempered(target, beta).value_and_grad(state.replicas.position)
        torch.testing.assert_close(state.replicas.log_density, value)
        torch.testing.assert_close(state.replicas.grad, grad)
        torch.testing.assert_close(state.position, state.replicas.position[-50_000:])


def test_one_rung_is_the_inner_sampler() -> None:
    target, x = correlated_gaussian(), torch.zeros(5, 2).double()
    for wrapper in (Annealed, ParallelTempering):
        a = wrapper(MALA(0.3, 1), (1.0,)).sample(target, x, generator=seeded())
        assert torch.equal(a, MALA(0.3, 1).sample(target, x, generator=seeded()))


def test_tempered() -> None:
    target, x = correlated_gaussian(), torch.randn(4, 2, generator=seeded()).double()
    beta = torch.tensor([0.1, 0.2, 0.5, 1.0]).double()
    torch.testing.assert_close(Tempered(target, beta)(x), beta * target(x))
    value, grad = Tempered(lambda z: target(z), beta).value_and_grad(x)
    torch.testing.assert_close(value, beta * target(x))
    torch.testing.assert_close(grad, beta[:, None] * target.value_and_grad(x)[1])
    torch.testing.assert_close(gradient_function(Tempered(target, beta), x)(x), grad)
    torch.testing.assert_close(
        Tempered(target, 0.5)(x), Gaussian(target.mean, 2 * target.covariance)(x)
    )
    with pytest.raises(ValueError, match=r"weight .* must have shape \(4,\), got \(3,\)"):
        Tempered(target, beta[:3])(x)
    with pytest.raises(ValueError, match="beta must be finite and non-negative, got -1"):
        Tempered(target, -1.0)


SPREAD, WIDTH = 1.5, 2  # of the axis of a funnel, and how many numbers hang on it


def funnel(x: Tensor) -> Tensor:
    """``v ~ N(0, SPREAD^2)`` and ``y | v ~ N(0, exp(v))`` in WIDTH dimensions, x = (v, y)."""
    v, y = x[:, 0], x[:, 1:]
    return (
        -0.5 * (v / SPREAD) ** 2
        - 0.5 * (y.square() * (-v[:, None]).exp()).sum(1)
        - 0.5 * WIDTH * v
    )


def funnel_draws(num: int, beta: float, generator: torch.Generator) -> Tensor:
    """Exact draws (num, 1 + WIDTH) of ``p^beta``."""
    noise = torch.randn(num, 1 + WIDTH, generator=generator, dtype=torch.float64)
    v = SPREAD**2 * (1 - beta) * WIDTH / (2 * beta) + SPREAD / beta**0.5 * noise[:, :1]
    return torch.cat([v, (v / 2).exp() / beta**0.5 * noise[:, 1:]], 1)


@pytest.mark.parametrize("exact", [True, False])
def test_tempering_on_a_funnel_is_invariant_if_all_replicas_start_at_their_laws(
    exact: bool,
) -> None:
    """If all replicas start at draws of the coldest distribution, the hot ones drive the cold one
    off on their way.
    """
    sampler, generator, num = ParallelTempering(MALA(0.05, 1), (0.25, 0.6, 1.0)), seeded(3), 10_000
    state = sampler.init(funnel, funnel_draws(num, 1.0, generator), generator=generator)
    if exact:
        x = torch.cat([funnel_draws(num, beta, generator) for beta in sampler.ladder])
        hot = Tempered(funnel, torch.tensor(sampler.ladder).double().repeat_interleave(num))
        state = cold_chain(sampler.sampler.init(hot, x, generator=generator), num, 0)
    for _ in range(30):
        state, _ = sampler.step(funnel, state, generator=generator)
    v = state.position[:, :1] / SPREAD
    y = state.position[:, 1:] * (-state.position[:, :1] / 2).exp()
    off = (
        z_scores(torch.cat([v, v**2 - 1, y, y**2 - 1], 1), torch.zeros(2 + 2 * WIDTH))
        .abs()
        .max()
        .item()
    )
    assert off < Z_MAX if exact else off > 8
