"""Hamiltonian Monte Carlo: a Gaussian momentum, a leapfrog trajectory, and a Metropolis test of
the energy error.
"""

from dataclasses import dataclass

import torch

from samplers.base import Info, Sampler, State, metropolis, normal_like
from samplers.checks import check_fields
from samplers.densities import LogDensity, as_density


@dataclass(frozen=True)
class HMC(Sampler[State]):
    """Hamiltonian Monte Carlo with unit mass (Neal 2011, arXiv:1206.1901); leaves ``p`` exactly
    invariant.

    ``step_size`` is the time of one leapfrog step, so that a proposal travels for a time
    ``num_leapfrog * step_size``. With ``num_leapfrog=1`` this is MALA with a step size of
    ``step_size**2 / 2``.

    Raises ``ValueError`` for a non-positive ``step_size``, ``num_leapfrog`` or ``num_steps``.
    """

    step_size: float
    num_leapfrog: int
    num_steps: int

    def __post_init__(self) -> None:
        check_fields(self, step_size="positive", num_leapfrog="count", num_steps="count")

    @property
    def is_adjusted(self) -> bool:
        return True

    @torch.no_grad()
    def step(
        self, log_density: LogDensity, state: State, *, generator: torch.Generator | None = None
    ) -> tuple[State, Info]:
        noise = normal_like(state.position, generator)
        position, momentum = state.position, torch.add(noise, state.grad, alpha=self.step_size / 2)
        gradient = as_density(log_density).workspace(position)
        for _ in range(self.num_leapfrog - 1):
            position = torch.add(position, momentum, alpha=self.step_size)
            momentum = torch.add(momentum, gradient(position), alpha=self.step_size)
        new = self.init(log_density, torch.add(position, momentum, alpha=self.step_size))
        momentum = torch.add(momentum, new.grad, alpha=self.step_size / 2)
        kinetic = (noise.flatten(1).square().sum(1) - momentum.flatten(1).square().sum(1)) / 2
        log_ratio = new.log_density - state.log_density + kinetic
        return metropolis(state, new, log_ratio, generator=generator, noise=noise)
