r"""The sampler contract.

A *log-density* is any callable ``(chains, *event) -> (chains,)``, unnormalised, up is good. It is
the only thing that a sampler sees. A sampler is a frozen dataclass of plain numbers. What the next
step needs travels in a ``State``, what only diagnostics need in an ``Info``. Every chain of the
batch is independent of the others.
"""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from samplers.densities import LogDensity, Recorded, as_target, evaluate, value_and_grad
from samplers.run_checks import (
    check_end,
    check_finite,
    check_position,
    check_start,
    is_readable,
)


class State(NamedTuple):
    """What the next step needs: ``position`` (chains, \\*event), ``log_density`` (chains,),
    ``grad`` like position.
    """

    position: Tensor
    log_density: Tensor
    grad: Tensor


class Info(NamedTuple):
    """What diagnostics need: ``accept_prob`` and ``accepted`` (chains,), ``noise`` injected by the
    step, if any.

    ``log_ratio`` (chains,) of a Metropolis test is NaN where the density at the proposal is not a
    number.
    """

    accept_prob: Tensor
    accepted: Tensor
    noise: Tensor | None = None
    log_ratio: Tensor | None = None


def normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the shape, dtype and device of ``x``."""
    return torch.empty_like(x).normal_(generator=generator)


def metropolis(
    old: State,
    new: State,
    log_ratio: Tensor,
    *,
    generator: torch.Generator | None,
    noise: Tensor | None = None,
) -> tuple[State, Info]:
    """Accept ``new`` per chain with probability ``min(1, exp(log_ratio))``; a non-finite proposal
    is rejected.
    """
    log_ratio = log_ratio.masked_fill(new.log_density == math.inf, math.nan)
    accept_prob = log_ratio.clamp(max=0.0).exp().nan_to_num(nan=0.0)
    uniform = torch.empty_like(accept_prob).uniform_(generator=generator)
    accepted = uniform < accept_prob

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(accepted.view(-1, *[1] * (a.ndim - 1)), b, a)

    return State(*map(choose, old, new)), Info(accept_prob, accepted, noise, log_ratio)


class Sampler(ABC):
    """A Markov chain that leaves ``exp(log_density)`` (nearly) invariant, run for ``num_steps``
    steps.

    Subclasses are frozen dataclasses of plain numbers and define ``step``; ``init``, ``run`` and
    ``sample`` follow. Those whose steps are smooth maps of position and noise set ``has_rsample``.
    """

    num_steps: int
    has_rsample: ClassVar[bool] = False

    @property
    def is_adjusted(self) -> bool:
        """Whether a Metropolis test decides on every step, which corrects its bias and compares
        values of the log-density.
        """
        return False

    def init(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        """State at ``position`` (chains, \\*event); ``generator`` serves samplers whose state
        holds random parts.
        """
        value_and_gradient = value_and_grad if self.is_adjusted else evaluate
        return State(position, *value_and_gradient(log_density, position))

    @abstractmethod
    def step(
        self, log_density: LogDensity, state: State, *, generator: torch.Generator | None = None
    ) -> tuple[State, Info]:
        """One transition of every chain."""

    def run(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Iterator[tuple[State, Info]]:
        """Yield ``(state, info)`` after each of ``num_steps`` steps; burn-in and thinning are
        ``itertools.islice``.

        Raises ``ValueError`` for a start that is not finite or has no density, and
        ``FloatingPointError`` for a log-density that is not finite there, or at the end if a chain
        diverged or met none but undefined densities.
        """
        check_position(position)
        log_density = as_target(log_density).settled()
        state, info = self.init(log_density, position.detach(), generator=generator), None
        check_start(*state[:3])
        for _ in range(self.num_steps):
            state, info = self.step(log_density, state, generator=generator)
            yield state, info
        check_end(self, state.position, state.log_density, info)

    def sample(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Position (chains, \\*event) after ``num_steps`` steps, detached.

        Raises as ``run`` does; warns if more chains never had a chance to move than the bad luck
        of a sampler that accepts every other proposal explains.
        """
        best = None
        for state, info in self.run(log_density, position, generator=generator):
            best = info.accept_prob if best is None else torch.maximum(best, info.accept_prob)
            position = state.position
        if best is None:
            raise ValueError(f"num_steps must be an integer >= 1, got {self.num_steps}")
        stuck = int((best < 0.01).sum()) if is_readable(best) else 0
        if stuck > len(best) * 0.5**self.num_steps:
            warnings.warn(
                f"{stuck} of {len(best)} chains of {self} never moved: use a smaller step_size",
                stacklevel=2,
            )
        return position

    def rsample(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """As ``sample``, with the graph of the dynamics kept: differentiable in ``position`` and
        in the parameters of ``log_density``, at the memory of all steps.

        Raises ``NotImplementedError`` where a step is not differentiable, as a Metropolis test is
        not.
        """
        if not self.has_rsample:
            raise NotImplementedError(
                f"{self} cannot be differentiated: use one of Langevin, GradientFlow"
            )
        check_position(position)
        recorded = Recorded(log_density)
        state = self.init(recorded, position, generator=generator)
        check_start(*state[:3])
        for _ in range(self.num_steps):
            state, _ = self.step(recorded, state, generator=generator)
        check_finite(
            "position",
            state.position.detach(),
            f"a chain of {self} diverged: use a smaller step_size",
        )
        return state.position
