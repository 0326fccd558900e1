"""Persistent chains: particles that survive from one call to the next, in a buffer of the module
that owns them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from samplers.base import Sampler
from samplers.checks import as_shape, check_counts
from samplers.densities import LogDensity

INTEGERS = (torch.int64, torch.int32)


class PersistentChains(nn.Module):
    """Particles that start from N(0, I) and are advanced a few at a time.

    ``particles`` (num_chains, \\*event) is a buffer, so it moves with the module and is part of
    its checkpoints. The particles can be the negative samples of persistent contrastive
    divergence, one chain for each datum, or a pool from which negative samples are drawn.

    Only particles are kept from one call to the next. A ``ParallelTempering`` sampler therefore
    starts all of its hot replicas at the cold particle in every call, and the particles do not
    converge to its target, however many calls are made: on N(0, I) with the ladder .1, .3, 1 and
    ``MALA(.1)``, their variance was .82 with 5 steps per call and .90 with 20. Give it long runs,
    or keep the chains of a sampler without a ladder. ``Annealed`` forgets its particles likewise.

    Args:
        num_chains: Number of particles.
        event_shape: Shape of a particle.
        generator: Source of randomness.

    Raises:
        ValueError: For a ``num_chains`` or a size of an event that is not an integer >= 1.
    """

    particles: Tensor

    def __init__(
        self,
        num_chains: int,
        event_shape: int | Sequence[int],
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_counts(self, num_chains=num_chains)
        event = as_shape(self, event_shape=event_shape)
        self.register_buffer(
            "particles", torch.randn(int(num_chains), *event, generator=generator)
        )

    @property
    def num_chains(self) -> int:
        """The number of particles."""
        return len(self.particles)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of a particle."""
        return tuple(self.particles.shape[1:])

    def __len__(self) -> int:
        return len(self.particles)

    def pick(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Indices (num,) of particles drawn uniformly with replacement."""
        check_counts(self, least=0, num=num)
        return torch.randint(len(self), (num,), device=self.particles.device, generator=generator)

    def advance(
        self,
        sampler: Sampler,
        log_density: LogDensity,
        index: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Run ``sampler`` from the particles at ``index`` (n,), store the new particles and return
        them (n, \\*event).

        Raises:
            IndexError: For an index outside ``[0, num_chains)``.
            ValueError: For an index that does not consist of n integers.
        """
        if not (isinstance(index, Tensor) and index.dtype in INTEGERS and index.ndim == 1):
            got = (
                f"{index.dtype} of shape {tuple(index.shape)}"
                if isinstance(index, Tensor)
                else type(index).__name__
            )
            raise ValueError(f"index must be a tensor of integers (n,), got {got}")
        if (
            not index.is_meta
            and len(index)
            and not 0 <= int(index.min()) <= int(index.max()) < len(self)
        ):
            raise IndexError(
                f"index must lie in [0, {len(self)}), got {int(index.min())} to {int(index.max())}"
            )
        position = sampler.sample(log_density, self.particles[index], generator=generator)
        self.particles[index] = position
        return position
