"""Persistent chains."""

import pytest
import torch

from samplers import MALA, PersistentChains
from tests.samplers.table import Z_MAX, correlated_gaussian, moment_z, seeded

SAMPLER = MALA(0.3, 4)


def test_start_is_standard_normal() -> None:
    chains = PersistentChains(100_000, (2,), generator=seeded())
    assert len(chains) == 100_000
    assert (
        moment_z(chains.particles.double(), torch.zeros(2).double(), torch.eye(2).double()) < Z_MAX
    )
    assert PersistentChains(3, 4).particles.shape == (3, 4)
    assert PersistentChains(3, (1, 8, 8)).particles.shape == (3, 1, 8, 8)


def test_advance_moves_only_the_picked() -> None:
    chains = PersistentChains(6, 2, generator=seeded()).double()
    before, index = chains.particles.clone(), torch.tensor([4, 1])
    moved = chains.advance(SAMPLER, correlated_gaussian(), index, generator=seeded(1))
    torch.testing.assert_close(
        moved, SAMPLER.sample(correlated_gaussian(), before[index], generator=seeded(1))
    )
    assert torch.equal(chains.particles[index], moved)
    rest = torch.tensor([0, 2, 3, 5])
    assert torch.equal(chains.particles[rest], before[rest])
    assert not torch.equal(moved, before[index])


def test_state_dict_round_trip() -> None:
    chains = PersistentChains(5, 2, generator=seeded())
    chains.advance(SAMPLER, lambda x: -x.square().sum(1), torch.arange(5), generator=seeded(1))
    other = PersistentChains(5, 2, generator=seeded(2))
    other.load_state_dict(chains.state_dict())
    assert torch.equal(other.particles, chains.particles)
    assert not list(chains.parameters())


def test_pick_covers_every_particle() -> None:
    index = PersistentChains(4, 2).pick(400, generator=seeded())
    assert index.shape == (400,)
    assert set(index.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("index", [[-1], [0, 3], [7]])
def test_index_outside(index: list[int]) -> None:
    chains = PersistentChains(3, 2)
    with pytest.raises(
        IndexError, match=rf"index must lie in \[0, 3\), got {min(index)} to {max(index)}"
    ):
        chains.advance(SAMPLER, lambda x: -x.square().sum(1), torch.tensor(index))


def test_bad_num_chains() -> None:
    with pytest.raises(ValueError, match="num_chains must be an integer >= 1, got 0"):
        PersistentChains(0, 2)


def test_runs_on_meta() -> None:
    chains = PersistentChains(3, 2).to("meta")
    moved = chains.advance(
        SAMPLER, lambda x: -x.square().sum(1), torch.zeros(2, dtype=torch.long, device="meta")
    )
    assert moved.is_meta
    assert moved.shape == (2, 2)
