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
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor

from samplers.checks import check_kind
from samplers.densities import LogDensity, Recorded, as_target, evaluate, value_and_grad
from samplers.run_checks import (
    check_end,
    check_finite,
    check_position,
    check_start,
    is_readable,
)


class ChainState(Protocol):
    """What every state holds: ``position`` (chains, \\*event), ``log_density`` (chains,), ``grad``
    like position.
    """

    @property
    def position(self) -> Tensor: ...
    @property
    def log_density(self) -> Tensor: ...
    @property
    def grad(self) -> Tensor: ...


S = TypeVar("S", bound=ChainState)


class State(NamedTuple):
    """What the next step needs, where that is nothing else than what every state holds."""

    position: Tensor
    log_density: Tensor
    grad: Tensor


class Info(NamedTuple):
    """What diagnostics need: ``accept_prob`` and ``accepted`` (chains,), ones without a Metropolis
    test, and, where a step has them:

    ``noise`` that was injected, like the position; ``log_ratio`` (chains,) of the Metropolis test,
    NaN where the density at the proposal is not a number; ``swap_prob`` and ``swapped``
    (rungs - 1, chains) of neighbours on a ladder.
    """

    accept_prob: Tensor
    accepted: Tensor
    noise: Tensor | None = None
    log_ratio: Tensor | None = None
    swap_prob: Tensor | None = None
    swapped: Tensor | None = None


def normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the shape, dtype and device of ``x``."""
    return torch.empty_like(x).normal_(generator=generator)


def choose(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``a`` for the chains that are ``chosen`` (chains,), else ``b``; both (chains, ...)."""
    return torch.where(chosen.view(-1, *[1] * (a.ndim - 1)), a, b)


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
    state = State(*(choose(accepted, b, a) for a, b in zip(old, new, strict=True)))
    return state, Info(accept_prob, accepted, noise, log_ratio)


class Sampler(ABC, Generic[S]):
    """A Markov chain that leaves ``exp(log_density)`` (nearly) invariant, run for ``num_steps``
    steps. ``S`` is the type of its states.

    Subclasses are frozen dataclasses of plain numbers and define ``step``; ``init``, ``run`` and
    ``sample`` follow. One whose state is not a ``State`` defines ``init`` as well.
    """

    num_steps: int

    @property
    def is_adjusted(self) -> bool:
        """Whether a Metropolis test decides on every step, which corrects the bias of the step and
        compares values of the log-density.
        """
        return False

    @property
    def has_rsample(self) -> bool:
        """Whether steps are smooth maps of position and noise, so that ``rsample`` works."""
        return False

    @property
    def noise_level(self) -> float:
        """Standard deviation of every coordinate after a chain on a flat density, how far noise
        alone carries it. Measured on 10,000 chains unless a sampler knows it.
        """
        start = torch.zeros(10_000, 1, dtype=torch.float64, device="cpu")
        generator = torch.Generator("cpu").manual_seed(0)
        end = self.sample(lambda x: 0 * x.sum(1), start, generator=generator)
        return float(end.std())

    def init(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> S:
        """State at ``position`` (chains, \\*event); ``generator`` serves samplers whose state
        holds random parts.
        """
        value_and_gradient = value_and_grad if self.is_adjusted else evaluate
        return cast("S", State(position, *value_and_gradient(log_density, position)))

    @abstractmethod
    def step(
        self, log_density: LogDensity, state: S, *, generator: torch.Generator | None = None
    ) -> tuple[S, Info]:
        """One transition of every chain."""

    def run(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Iterator[tuple[S, Info]]:
        """Yield ``(state, info)`` after each of ``num_steps`` steps; burn-in and thinning are
        ``itertools.islice``.

        Raises ``ValueError`` for a start that is not finite or has no density, and
        ``FloatingPointError`` for a log-density that is not finite there, or at the end if a chain
        diverged or met none but undefined densities.
        """
        check_position(position)
        log_density = as_target(log_density).settled()
        state, info = self.init(log_density, position.detach(), generator=generator), None
        check_start(state.position, state.log_density, state.grad)
        for _ in range(self.num_steps):
            state, info = self.step(log_density, state, generator=generator)
            yield state, info
        check_end(self, state.position, state.log_density, info and info.log_ratio)

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
        check_start(state.position, state.log_density, state.grad)
        for _ in range(self.num_steps):
            state, _ = self.step(recorded, state, generator=generator)
        check_finite(
            "position",
            state.position.detach(),
            f"a chain of {self} diverged: use a smaller step_size",
        )
        return state.position


@dataclass(frozen=True)
class Wrapper(Sampler[S]):
    """A sampler that runs another, ``sampler``: all that a subclass does not define is the
    other's.
    """

    sampler: Sampler
    num_steps: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_kind(self, Sampler, sampler=self.sampler)
        object.__setattr__(self, "num_steps", self.sampler.num_steps)

    @property
    def is_adjusted(self) -> bool:
        return self.sampler.is_adjusted

    @property
    def noise_level(self) -> float:
        return self.sampler.noise_level

    def init(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> S:
        return self.sampler.init(log_density, position, generator=generator)

    def step(
        self, log_density: LogDensity, state: S, *, generator: torch.Generator | None = None
    ) -> tuple[S, Info]:
        return self.sampler.step(log_density, state, generator=generator)

    @abstractmethod
    def run(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Iterator[tuple[S, Info]]:
        """As ``Sampler.run``, by the ``run`` or the steps of ``sampler``."""
