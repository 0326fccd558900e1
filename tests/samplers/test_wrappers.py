"""What samplers tell about themselves, also through wrappers, which lose nothing of them."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from samplers import (
    HMC,
    MALA,
    Annealed,
    Captured,
    GradientFlow,
    Langevin,
    LowPrecision,
    ParallelTempering,
    ProbabilityFlow,
    Sampler,
    UnderdampedLangevin,
    VPCosine,
)
from samplers.captured import modes
from tests.samplers.table import TABLE, Row, correlated_gaussian, seeded


def test_every_sampler_tells_whether_it_is_adjusted() -> None:
    """Through wrappers too; what it tells is what a step with large steps does."""
    for row in TABLE:
        x = torch.full((50, 2), 3.0).double()
        run = row.sampler.run(correlated_gaussian(), x, generator=seeded())
        least = min(info.accept_prob.min() for _, info in run)
        assert row.sampler.is_adjusted == (least < 1), row.name
    assert Captured(LowPrecision(Annealed(HMC(0.1, 2, 3), (0.5, 1.0)))).is_adjusted
    assert not Captured(LowPrecision(Langevin(0.1, 3))).is_adjusted


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_noise_level_is_how_far_noise_carries_a_chain(row: Row) -> None:
    """Of free chains of every coordinate, whether it is known or measured."""
    x = torch.zeros(20_000, 2).double()
    end = row.sampler.sample(lambda x: 0 * x.sum(1), x, generator=seeded(4))
    assert row.sampler.noise_level == pytest.approx(end.std().item(), rel=0.03)
    assert (row.sampler.noise_level > 0) == (row.law is not None)


def test_wrappers_tell_the_noise_of_what_they_wrap() -> None:
    for inner in (Langevin(0.1, 4), UnderdampedLangevin(0.3, 1.0, 4)):
        assert LowPrecision(inner).noise_level == Captured(inner).noise_level == inner.noise_level


@pytest.mark.parametrize("inner", [Annealed(MALA(0.1, 3), (0.5, 1.0))], ids=str)
@pytest.mark.parametrize("wrap", [LowPrecision, Captured, lambda sampler: sampler])
def test_a_ladder_is_not_lost(wrap: Callable[..., Sampler], inner: Annealed) -> None:
    """Neither by ``run`` of a wrapper, nor among replicas, which would take single steps."""
    target, x = correlated_gaussian(), torch.zeros(4, 2).double()
    runs = [list(s.run(target, x, generator=seeded())) for s in (inner, wrap(inner))]
    for (state, _), (wrapped, _) in zip(*runs, strict=True):
        assert torch.equal(state.log_density, wrapped.log_density)
    for lost in (wrap(inner), wrap(ParallelTempering(MALA(0.1, 3), (0.5, 1.0)))):
        with pytest.raises(ValueError, match="ParallelTempering: sampler must have no ladder of"):
            ParallelTempering(lost, (0.2, 1.0))


def test_a_recorded_chain_is_of_one_mode() -> None:
    """A density with dropout is another one in training."""
    density = nn.Sequential(nn.Linear(2, 1), nn.Dropout(0.5))
    training = modes(density)
    assert modes(density.eval()) != training
    assert modes(density.train()) == training


@pytest.mark.parametrize("make", [GradientFlow, partial(ProbabilityFlow, VPCosine())])
def test_flows_are_frozen_and_count_their_steps(make: Callable[..., Any]) -> None:
    arguments = {"horizon": 1.0} if make is GradientFlow else {}
    flow = make(**arguments)
    assert flow.num_steps == 1
    assert flow == make(**arguments, num_steps=1) == make(**arguments, num_steps=None)
    assert replace(flow, num_steps=3).num_steps == 3
    with pytest.raises(FrozenInstanceError):
        flow.num_steps = 2
