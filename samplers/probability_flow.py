r"""The probability-flow equation by a solver, with the density along it.

In the frame ``y = x / sqrt(alpha^2 + sigma^2)`` of ``samplers.reverse`` the deterministic equation
is smooth in ``tau = log(sigma / alpha)``, and its divergence gives the density of what it makes.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.densities import LogDensity
from samplers.ode import check_flow, check_log_prob, solve, with_density
from samplers.reverse import Denoise, ReverseSampler
from samplers.run_checks import check_position
from samplers.schedules import Schedule, broadcast

Flow = tuple[Tensor, ...]  # x, and the log-densities that go with it


@dataclass(frozen=True)
class ProbabilityFlow(ReverseSampler):
    """The probability-flow equation by a solver of torchdiffeq, with the density along it.

    A fixed-step ``method`` takes one step, in log-SNR, from each time of ``grid`` to the next; an
    adaptive one takes as many as keep the error of every row below ``atol + rtol |y|``, so that
    ``num_steps`` = 1, its default, is enough. Source: Song et al. 2021, arXiv:2011.13456.

    Args:
        schedule: The noise, that of the denoiser.
        num_steps: The number of steps of a fixed-step method.
        method: The solver of torchdiffeq.
        grid: The scale on which the steps are equal: "time", "log_snr" or "karras".
        rtol: Relative tolerance of an adaptive method.
        atol: Absolute tolerance of an adaptive method.
        exact_dim: The divergence is exact up to this many entries per event.
        num_probes: The number of random probes of the divergence above ``exact_dim``.

    Raises:
        ValueError: For a non-positive number or an unknown name.
    """

    schedule: Schedule
    num_steps: int = 0
    method: str = "dopri5"
    grid: str = "log_snr"
    rtol: float | None = None
    atol: float | None = None
    exact_dim: int = 64
    num_probes: int = 1

    def __post_init__(self) -> None:
        check_flow(self)
        object.__setattr__(self, "num_steps", self.num_steps or 1)
        super().__post_init__()

    @property
    def is_deterministic(self) -> bool:
        return True

    def step(
        self,
        denoise: Denoise,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """As ``ReverseSampler.step``; raises ``ValueError`` unless the times are scalars."""
        if t.ndim or s.ndim:
            raise ValueError(
                f"t and s must be scalars, got shapes {tuple(t.shape)} and {tuple(s.shape)}"
            )
        field = self._field(denoise)
        return self._solve(
            lambda tau, state: (field(tau, state[0]),), (x_t,), torch.stack([t, s])
        )[0]

    def flow(
        self,
        denoise: Denoise,
        x_T: Tensor,
        log_prob_T: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Where ``x_T`` (batch, \\*event) ends at t = 0, and the log-density (batch,) there, given
        ``log_prob_T`` (batch,).

        Differentiable in all arguments (under ``torch.no_grad`` no graph is kept). Raises
        ``ValueError`` for a ``log_prob_T`` of another shape, and ``FloatingPointError`` if a path
        leaves to infinity.
        """
        check_log_prob("log_prob_T", log_prob_T, x_T)
        velocity = with_density(self, self._field(denoise), x_T, generator)
        x, log_prob = self._solve(velocity, (x_T, log_prob_T), self.times(x_T))
        return x, log_prob

    def log_prob(
        self,
        denoise: Denoise,
        x_0: Tensor,
        base_log_prob: LogDensity | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Log-density (batch,) at t = 0 in given points ``x_0`` (batch, \\*event), by
        integrating to t = 1.

        ``base_log_prob`` is the normalised log-density at t = 1, by default that of ``N(0,
        (alpha_1^2 + sigma_1^2) I)``.
        """
        velocity = with_density(self, self._field(denoise), x_0, generator)
        x_T, change = self._solve(
            velocity, (x_0, x_0.new_zeros(len(x_0))), self.times(x_0).flip(0)
        )
        base = (base_log_prob or self._noise_log_prob)(x_T)
        check_log_prob("base_log_prob(x_T)", base, x_T)
        return base - change

    def _noise_log_prob(self, x: Tensor) -> Tensor:
        log_scale = frame_scale(self.schedule, self.schedule.log_snr(x.new_ones(()))).log().to(x)
        square = (x * (-log_scale).exp()).flatten(1).square().sum(1)
        return -0.5 * square - x.shape[1:].numel() * (log_scale + 0.5 * math.log(2 * math.pi))

    def _field(self, denoise: Denoise) -> Callable[[Tensor, Tensor], Tensor]:
        """``a (a y - D)`` at ``tau = log(sigma / alpha)`` and y (batch, \\*event)."""

        def field(tau: Tensor, y: Tensor) -> Tensor:
            log_snr = -2 * tau.double()
            a = broadcast(log_snr.sigmoid().sqrt(), y)
            scale = broadcast(frame_scale(self.schedule, log_snr), y)
            return a * (
                a * y - self.estimate(denoise, scale * y, self.schedule.time(log_snr).clamp(0, 1))
            )

        return field

    def _solve(self, velocity: Callable[[Tensor, Flow], Flow], state: Flow, times: Tensor) -> Flow:
        """``(x,)`` or ``(x, log q)`` at the last of ``times``, given those at the first."""
        log_snr = self.schedule.log_snr(times)
        scale = frame_scale(self.schedule, log_snr)
        check_position(state[0], "x")
        x, dim = state[0], state[0].shape[1:].numel()
        state = (x / broadcast(scale[0], x), *state[1:])
        for ends in itertools.pairwise(-0.5 * log_snr):
            state = solve(self, velocity, state, torch.stack(ends), 1)
        growth = dim * (scale[0] / scale[-1]).log()
        return (
            state[0] * broadcast(scale[-1], x),
            *(log_prob + broadcast(growth, x) for log_prob in state[1:]),
        )


def frame_scale(schedule: Schedule, log_snr: Tensor) -> Tensor:
    """``sqrt(alpha^2 + sigma^2)``, float64: 1 where the schedule preserves variance."""
    return torch.linalg.vector_norm(torch.stack(schedule.frame(log_snr)), dim=0)
