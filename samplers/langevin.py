r"""Langevin dynamics: unadjusted, Metropolis-adjusted and underdamped.

The overdamped diffusion ``dx = grad log p(x) dt + sqrt(2) dW`` has ``p`` as its stationary
distribution. Its Euler step has a bias of O(step_size), which the Metropolis test of MALA removes.
The underdamped diffusion carries a momentum.

Step size convention: ``x <- x + step_size * grad + sqrt(2 * step_size * temperature) * noise``.
Papers on latent energy priors write ``z <- z + s^2/2 grad + s noise``: their ``s`` is ``step_size
= s**2 / 2``, so s = 0.4 is 0.08, s = 0.1 is 0.005.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from samplers.base import Info, Sampler, State, metropolis, normal_like
from samplers.checks import check_fields
from samplers.densities import LogDensity, as_target, evaluate
from samplers.run_checks import check_end, check_position, check_start, is_readable


@dataclass(frozen=True)
class Langevin(Sampler[State]):
    """Unadjusted Langevin: ``x <- x + step_size * grad log p + sqrt(2 * step_size * temperature) *
    noise``.

    ``temperature`` 1 is Langevin dynamics, 0 is gradient ascent on the log-density. On a Gaussian
    target with precision eigenvalue ``a`` the stationary variance is ``temperature / (a * (1 -
    step_size * a / 2))``.

    Raises ``ValueError`` for a non-positive ``step_size`` or ``num_steps``, or a negative
    ``temperature``.
    """

    step_size: float
    num_steps: int
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, step_size="positive", num_steps="count", temperature="non-negative")

    @property
    def noise_scale(self) -> float:
        """Standard deviation of the noise of one step."""
        return math.sqrt(2 * self.step_size * self.temperature)

    @property
    def noise_level(self) -> float:
        return self.noise_scale * math.sqrt(self.num_steps)

    @property
    def has_rsample(self) -> bool:
        return True

    def step(
        self, log_density: LogDensity, state: State, *, generator: torch.Generator | None = None
    ) -> tuple[State, Info]:
        noise = normal_like(state.position, generator)
        position = state.position + self.step_size * state.grad + self.noise_scale * noise
        ones = torch.ones_like(state.log_density)
        return self.init(log_density, position), Info(ones, ones.bool(), noise)

    @torch.no_grad()
    def sample(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """As ``Sampler.sample``, in memory that is allocated once, with one gradient per step and
        none at the last position.

        Also raises ``FloatingPointError`` if the mean log-density falls by more than 10 nats per
        dimension, because a chain whose steps are too large need not reach infinity.
        """
        check_position(position)
        target, x = as_target(log_density).settled(), position.clone()
        noise, gradient = torch.empty_like(x), target.workspace(x)
        start, grad = evaluate(target, x)
        check_start(x, start, grad)
        value = start
        for k in range(self.num_steps):
            if 0 < k < self.num_steps - 1:
                grad = gradient(x)
            elif k:
                value, grad = evaluate(target, x)
            x.add_(grad, alpha=self.step_size)
            x.add_(noise.normal_(generator=generator), alpha=self.noise_scale)
        check_end(self, x, value)
        self._check_fall((start - value).mean(), x.shape[1:].numel())
        return x

    def _check_fall(self, fall: Tensor, dim: int) -> None:
        if is_readable(fall) and float(fall) > 10 * dim * max(1.0, self.temperature):
            raise FloatingPointError(
                f"log_density must not fall along a chain, but fell by {float(fall):.0f} nats on "
                f"average in {self}: "
                "use a smaller step_size"
            )


@dataclass(frozen=True)
class MALA(Sampler[State]):
    """Metropolis-adjusted Langevin: a Metropolis test accepts or rejects each Langevin step, so
    that ``p`` is exactly invariant.

    Source: Roberts & Tweedie 1996. Raises ``ValueError`` for a non-positive ``step_size`` or
    ``num_steps``.
    """

    step_size: float
    num_steps: int

    def __post_init__(self) -> None:
        check_fields(self, step_size="positive", num_steps="count")

    @property
    def is_adjusted(self) -> bool:
        return True

    def step(
        self, log_density: LogDensity, state: State, *, generator: torch.Generator | None = None
    ) -> tuple[State, Info]:
        noise = normal_like(state.position, generator)
        move = torch.add(self.step_size * state.grad, noise, alpha=math.sqrt(2 * self.step_size))
        new = self.init(log_density, state.position + move)
        back = torch.add(move, new.grad, alpha=self.step_size).flatten(1).square().sum(1) / (
            4 * self.step_size
        )
        forth = noise.flatten(1).square().sum(1) / 2
        log_ratio = new.log_density - state.log_density + forth - back
        return metropolis(state, new, log_ratio, generator=generator, noise=noise)


class KineticState(NamedTuple):
    """A ``State`` with ``momentum`` like position."""

    position: Tensor
    log_density: Tensor
    grad: Tensor
    momentum: Tensor


@dataclass(frozen=True)
class UnderdampedLangevin(Sampler[KineticState]):
    """Underdamped (kinetic) Langevin ``dx = v dt, dv = (grad log p - friction v) dt + sqrt(2
    friction) dW``.

    The BAOAB splitting (Leimkuhler & Matthews 2013) integrates it with one gradient per step.
    ``step_size`` is a step of the time ``t``, not a step size of ``Langevin``. On a Gaussian
    target the stationary distribution of the position is exact for every stable step, that is
    ``step_size * sqrt(a) < 2`` for the largest precision ``a``. Momenta start from N(0, I).

    Raises ``ValueError`` for a non-positive ``step_size``, ``friction`` or ``num_steps``.
    """

    step_size: float
    friction: float
    num_steps: int

    def __post_init__(self) -> None:
        check_fields(self, step_size="positive", friction="positive", num_steps="count")

    @property
    def has_rsample(self) -> bool:
        return True

    def init(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> KineticState:
        momentum = normal_like(position, generator)
        return KineticState(position, *evaluate(log_density, position), momentum)

    def step(
        self,
        log_density: LogDensity,
        state: KineticState,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[KineticState, Info]:
        half, decay = self.step_size / 2, math.exp(-self.friction * self.step_size)
        noise = normal_like(state.position, generator)
        momentum = state.momentum + half * state.grad
        position = state.position + half * momentum
        momentum = decay * momentum + math.sqrt(1 - decay**2) * noise
        position = position + half * momentum
        value, grad = evaluate(log_density, position)
        ones = torch.ones_like(value)
        return KineticState(position, value, grad, momentum + half * grad), Info(
            ones, ones.bool(), noise
        )
