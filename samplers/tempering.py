r"""Tempering: wrappers that take a sampler through the flattened densities ``p(x)^beta``, ``0 <
beta <= 1``.

A chain of local moves does not cross the valley between two modes of ``p``, but it crosses those
of ``p^beta`` with small ``beta``. ``Annealed`` raises ``beta`` along a ladder while the chain
runs. ``ParallelTempering`` keeps one replica per rung and exchanges neighbours with probability
``min(1, exp((beta_i - beta_j) (log p(x_j) - log p(x_i))))``, which leaves the product of all
``p^beta`` invariant, hence ``p`` itself for the replica at ``beta = 1``.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from samplers.base import ChainState, Info, Sampler, State, Wrapper
from samplers.checks import check_numbers, is_real, plain
from samplers.densities import LogDensity, Sum, Terms, Weight, as_density, per_chain
from samplers.run_checks import check_end, check_finite, check_position, check_start


def as_ladder(owner: Sampler, ladder: Iterable[float]) -> tuple[float, ...]:
    """``ladder`` as plain numbers. Raises ``ValueError`` unless these increase strictly from above
    0 to 1.
    """
    betas = tuple(map(plain, ladder)) if isinstance(ladder, Iterable) else ()
    numbers = tuple(filter(is_real, betas))
    rises = all(a < b for a, b in pairwise((0.0, *numbers)))
    if numbers != betas or numbers[-1:] != (1,) or not rises:
        raise ValueError(
            f"{type(owner).__name__}: ladder must increase from above 0 to 1, got "
            f"{betas or ladder!r}"
        )
    return numbers


class Tempered(Sum):
    """The log-density ``beta * log_density(x)``, ``beta`` a number or a tensor (chains,).

    Raises ``ValueError`` for a number that is negative or not finite, and, when evaluated, for a
    tensor of another shape.
    """

    def __init__(self, log_density: LogDensity, beta: Weight) -> None:
        number = plain(beta)  # of a tensor without axes too
        if not isinstance(number, Tensor):
            check_numbers(self, "non-negative", beta=number)
        self.log_density = as_density(log_density)
        self.beta = number if is_real(number) else beta

    def terms(self) -> Terms:
        return ((self.beta, self.log_density),)


@dataclass(frozen=True)
class Annealed(Wrapper):
    """Run ``sampler`` on ``p^beta`` for every ``beta`` of ``ladder`` in turn, each from where the
    last one ended.

    Its ``num_steps`` are spent at every rung. States yielded by ``run`` hold the log-density of
    their rung. This is a heuristic to reach the modes: the result has the distribution ``p``
    only in the limit of many steps (``annealed_importance`` has the weights that make it exact).
    Raises ``ValueError`` unless the ladder increases from above 0 to 1.
    """

    ladder: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        ladder = as_ladder(self, self.ladder)
        object.__setattr__(self, "ladder", ladder)
        object.__setattr__(self, "num_steps", len(ladder) * self.sampler.num_steps)

    @property
    def noise_level(self) -> float:
        return math.sqrt(len(self.ladder)) * self.sampler.noise_level

    def run(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Iterator[tuple[ChainState, Info]]:
        for beta in self.ladder:
            for state, info in self.sampler.run(
                Tempered(log_density, beta), position, generator=generator
            ):
                position = state.position
                yield state, info

    def sample(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        for beta in self.ladder:
            position = self.sampler.sample(
                Tempered(log_density, beta), position, generator=generator
            )
        return position


class TemperingState(NamedTuple):
    """The state of the cold chain, that of all ``replicas`` (rungs * chains rows, the coldest
    last), and the number of sweeps done.
    """

    position: Tensor
    log_density: Tensor
    grad: Tensor
    replicas: State
    sweep: int


@dataclass(frozen=True)
class ParallelTempering(Wrapper[TemperingState]):
    """Replica exchange (Geyer 1991), even and odd pairs in turn (Syed et al. 2022,
    arXiv:1905.02939).

    A step moves the replicas at all inverse temperatures of ``ladder`` by one step of ``sampler``
    and then proposes to swap every other pair of neighbours. The log-density is called once for
    all replicas, with rungs * chains rows; row ``r * chains + c`` belongs to chain ``c``. If the
    log-density has data for each row, tile them accordingly.

    The product of all ``p^beta`` is exactly invariant if ``sampler`` leaves every target
    invariant. ``p`` alone is not as long as the hot replicas have not reached their distributions.
    Because all replicas start at the ``position`` of their chain, even exact draws of p leave p
    for a while, so that the first steps should be dropped. On a funnel in three dimensions (ladder
    .25, .6, 1; ``MALA(.05)``) the mean of its axis was off by .09 standard deviations after 30
    steps, by .06 after 300 and by .01 after 3,000; with exact draws at every rung, 20,000 chains
    showed no error. A chain that is continued in several calls, as ``PersistentChains`` does,
    starts its hot replicas anew in each of them, and the error stays.

    Raises ``ValueError`` unless the ladder increases from above 0 to 1, and for a ``sampler`` with
    a ladder of its own.
    """

    ladder: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "ladder", as_ladder(self, self.ladder))
        inner = self.sampler
        while isinstance(inner, Wrapper):
            if isinstance(inner, Annealed | ParallelTempering):
                raise ValueError(
                    "ParallelTempering: sampler must have no ladder of its own, which would be "
                    f"lost, got {self.sampler}"
                )
            inner = inner.sampler

    def init(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> TemperingState:
        """Every replica of a chain starts at the ``position`` (chains, \\*event) of the chain."""
        x = position.repeat(len(self.ladder), *[1] * (position.ndim - 1))
        replicas = self.sampler.init(Tempered(log_density, self._beta(x)), x, generator=generator)
        return cold_chain(replicas, len(position), 0)

    def step(
        self,
        log_density: LogDensity,
        state: TemperingState,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[TemperingState, Info]:
        chains, beta = len(state.position), self._beta(state.replicas.position)
        replicas, info = self.sampler.step(
            Tempered(log_density, beta), state.replicas, generator=generator
        )
        replicas, prob, swapped = swap(
            replicas, beta, len(self.ladder), state.sweep % 2, generator=generator
        )
        noise, log_ratio = (
            None if a is None else a[-chains:] for a in (info.noise, info.log_ratio)
        )
        cold = Info(
            info.accept_prob[-chains:], info.accepted[-chains:], noise, log_ratio, prob, swapped
        )
        return cold_chain(replicas, chains, state.sweep + 1), cold

    def run(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Iterator[tuple[TemperingState, Info]]:
        """As ``Sampler.run``; raises ``FloatingPointError`` at the end if any replica diverged."""
        check_position(position)
        log_density = as_density(log_density).settled()
        state, info = self.init(log_density, position.detach(), generator=generator), None
        check_start(*state.replicas[:3])
        for _ in range(self.num_steps):
            state, info = self.step(log_density, state, generator=generator)
            yield state, info
        check_finite(
            "replicas", state.replicas.position, f"{self} diverged: use a smaller step_size"
        )
        check_end(self, state.position, state.log_density, info and info.log_ratio)

    def _beta(self, x: Tensor) -> Tensor:
        """Inverse temperature of every row of ``x`` (rungs * chains, \\*event)."""
        return x.new_tensor(self.ladder).repeat_interleave(len(x) // len(self.ladder))


def cold_chain(replicas: State, chains: int, sweep: int) -> TemperingState:
    """The state whose last ``chains`` rows of ``replicas`` are the cold chain."""
    cold = replicas.position[-chains:], replicas.log_density[-chains:], replicas.grad[-chains:]
    return TemperingState(*cold, replicas, sweep)


def swap(
    replicas: State, beta: Tensor, rungs: int, parity: int, *, generator: torch.Generator | None
) -> tuple[State, Tensor, Tensor]:
    """Exchange neighbours ``(i, i + 1)``, ``i % 2 == parity``, of ``replicas`` (rungs * chains
    rows), chain by chain.

    Returns the new replicas, and swap probabilities and decisions (rungs - 1, chains).
    """
    raw, rung_beta = (replicas.log_density / beta).view(rungs, -1), beta.view(rungs, -1)
    log_ratio = (rung_beta[:-1] - rung_beta[1:]) * (raw[1:] - raw[:-1])
    prob = log_ratio.clamp(max=0.0).exp().nan_to_num(nan=0.0)
    index = torch.arange(len(beta), device=beta.device).view(rungs, -1)
    mine = torch.arange(rungs - 1, device=beta.device) % 2 == parity
    swapped = (torch.empty_like(prob).uniform_(generator=generator) < prob) & mine[:, None]
    hop = torch.nn.functional.pad(
        swapped.long() * raw.shape[1], (0, 0, 1, 1)
    )  # rows up, and by whom rows down
    index = (index + hop[1:] - hop[:-1]).flatten()
    ratio = beta / beta[index]
    moved = type(replicas)(*(field[index] for field in replicas))
    scaled = moved._replace(
        log_density=ratio * moved.log_density, grad=per_chain(ratio, moved.grad) * moved.grad
    )
    return scaled, prob, swapped
