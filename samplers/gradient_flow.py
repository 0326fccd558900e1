r"""The gradient flow of a log-density: Langevin dynamics without its noise.

``dx/dt = grad log p(x)`` for ``t`` in [0, T] is deterministic and smooth, hence an invertible map
``F`` of the start: a *generator* whose density is known. Along the flow

    d/dt log q_t(x_t) = -div grad log p(x_t) = -tr H(x_t),    H the Hessian of log p,

so that a start with density ``q_0`` ends with ``log q_T(F(x_0)) = log q_0(x_0) - int_0^T tr H
dt``. In terms of an energy ``U = -log p``, the flow gains density where ``U`` is convex. The
density at a *given* point is found by integrating backwards. A flow that contracts forwards
expands backwards, and the round-trip error shows how many digits that costs. One Euler step ``x +
eta grad log p`` is a map of its own, with ``log q' = log q - log|det(I + eta H)|``. It is
invertible while ``eta |H| < 1``.

``q_T`` is not ``p``: without noise every chain ends at a mode as T grows. Source: Xiao, Yan, Amit
2021, arXiv:2102.11757; densities of flows: Chen et al. 2018, arXiv:1806.07366; Hutchinson's trace:
Grathwohl et al. 2019, arXiv:1810.01367.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from samplers.base import Info, Sampler, State
from samplers.checks import check_fields
from samplers.densities import LogDensity, Recorded, as_density, as_target
from samplers.derivatives import jacobian_products, unit_vectors, value_and_divergence
from samplers.ode import Velocity, check_flow, check_log_prob, random_signs, solve
from samplers.run_checks import check_finite, check_position


class PointDensity(NamedTuple):
    """The density at given points x: its logarithm ``log_prob`` (chains,), the starts ``x0``
    whose paths end at x, and ``round_trip_error`` = ``|F(x0) - x|`` (chains,).
    """

    log_prob: Tensor
    x0: Tensor
    round_trip_error: Tensor


@dataclass(frozen=True)
class GradientFlow(Sampler[State]):
    """``dx/dt = grad log p(x)`` over the time ``horizon``, with the density along the flow.

    All chains of a call share the steps of the chain that needs most.

    Args:
        horizon: The time T of the flow.
        method: A solver of torchdiffeq. Fixed-step: "euler", "midpoint", "heun2", "heun3", "rk4";
            adaptive: "dopri5" and others.
        num_steps: Steps of a fixed-step method. For an adaptive one, the number of equal parts of
            the horizon (1 if left out, as 0); each part ends with a step.
        rtol: An adaptive method keeps the error of each step of each chain below ``atol + rtol
            |x|``. Default: 1e-9 in float64 and 1e-5 in lower precision.
        atol: See ``rtol``; the same default.
        exact_dim: For events of up to this many entries the trace is exact, at the cost of that
            many Hessian-vector products per step. For larger ones it is Hutchinson's estimate, the
            mean of ``v^T H v`` over vectors of random signs, which are drawn once per flow; it is
            unbiased, with variance ``2 sum_{i != j} H_ij^2 / num_probes``.
        num_probes: Number of vectors of Hutchinson's estimate.
        adjoint: Compute gradients through ``rsample`` and ``flow`` by backward integration, in
            memory that does not grow with the number of steps. The log-density must then be an
            ``nn.Module``.

    Raises:
        ValueError: For a non-positive ``horizon`` or count, an unknown ``method``, or a fixed-step
            method without ``num_steps``.
    """

    horizon: float
    method: str = "dopri5"
    num_steps: int = 0
    rtol: float | None = None
    atol: float | None = None
    exact_dim: int = 64
    num_probes: int = 1
    adjoint: bool = False

    def __post_init__(self) -> None:
        check_fields(self, horizon="positive")
        check_flow(self)
        object.__setattr__(self, "num_steps", self.num_steps or 1)

    @property
    def has_rsample(self) -> bool:
        return True

    @property
    def noise_level(self) -> float:
        return 0.0

    @torch.no_grad()
    def step(
        self, log_density: LogDensity, state: State, *, generator: torch.Generator | None = None
    ) -> tuple[State, Info]:
        """Follow the flow over one part of the horizon, ``horizon / num_steps``."""
        x = self._transport(log_density, state.position, 1)
        ones = torch.ones_like(state.log_density)
        return self.init(log_density, x), Info(ones, ones.bool())

    @torch.no_grad()
    def sample(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``F(position)`` (chains, \\*event), detached. Raises ``FloatingPointError`` if a chain
        diverged.
        """
        return self._transport(log_density, position, self.num_steps)

    def rsample(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return self._transport(Recorded(log_density), position, self.num_steps)

    def flow(
        self,
        log_density: LogDensity,
        x0: Tensor,
        log_prob0: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The end of the path from ``x0`` (chains, \\*event), and ``log q_T`` (chains,) there,
        given ``log_prob0 = log q_0(x0)``.

        Differentiable in all three arguments (under ``torch.no_grad`` no graph is kept).
        ``log_density`` must have second derivatives.

        Raises:
            ValueError: For a ``log_prob0`` whose shape is not (chains,).
            FloatingPointError: If a chain diverged.
        """
        check_log_prob("log_prob0", log_prob0, x0)
        velocity = self._augmented(log_density, x0, generator)
        start, adjoint = (x0, log_prob0), self._adjoint(log_density)
        x, log_prob = solve(self, velocity, start, self._ends(x0), self.num_steps, adjoint)
        return x, log_prob

    def euler_flow(
        self, log_density: LogDensity, x0: Tensor, log_prob0: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Like ``flow``, for ``num_steps`` Euler maps ``x + eta grad log p`` with ``eta = horizon
        / num_steps``.

        Their log-determinants are exact, ``sum_i log(1 + eta lambda_i)`` over the eigenvalues of
        H.

        Raises:
            ValueError: If ``eta |H| >= 1`` at a point of a path, where the map may not be
                invertible, or if an event has more than ``exact_dim`` entries.
        """
        check_log_prob("log_prob0", log_prob0, x0)
        check_position(x0, "x0")
        dim = x0.shape[1:].numel()
        if dim > self.exact_dim:
            raise ValueError(
                f"x0 must have at most exact_dim = {self.exact_dim} entries per event, got {dim}"
            )
        x, log_prob, eta = x0, log_prob0, self.horizon / self.num_steps
        for k in range(self.num_steps):
            grad, hessian = score_and_hessian(log_density, x)
            stretch = eta * torch.linalg.eigvalsh(hessian)
            if not x.is_meta and not bool((stretch.abs() < 1).all()):
                raise ValueError(
                    "num_steps must be large enough that eta |H| < 1 everywhere, else an Euler "
                    "step may fold space: got "
                    f"{float(stretch.detach().abs().max()):.3g} in step {k + 1} of "
                    f"{self.num_steps} with eta = {eta:.3g}"
                )
            x, log_prob = x + eta * grad, log_prob - stretch.log1p().sum(1)
        check_finite("position", x.detach())
        check_finite("log_prob", log_prob.detach())
        return x, log_prob

    def log_prob(
        self,
        log_density: LogDensity,
        x: Tensor,
        base_log_prob: LogDensity,
        *,
        generator: torch.Generator | None = None,
    ) -> PointDensity:
        """Density ``q_T`` at given points ``x`` (chains, \\*event), by integrating backwards.

        ``base_log_prob`` is ``log q_0``. Look at ``round_trip_error``: a long flow contracts, so
        that its inverse loses digits.

        Raises:
            FloatingPointError: If a path diverges, as from points that no start reaches.
        """
        velocity, start = self._augmented(log_density, x, generator), (x, x.new_zeros(len(x)))
        x0, change = solve(
            self,
            velocity,
            start,
            self._ends(x).flip(0),
            self.num_steps,
            self._adjoint(log_density),
        )
        error = self._transport(log_density, x0.detach(), self.num_steps) - x
        base = base_log_prob(x0)
        check_log_prob("base_log_prob(x0)", base, x0)
        return PointDensity(base - change, x0, error.detach().flatten(1).norm(dim=1))

    def _augmented(
        self, log_density: LogDensity, x: Tensor, generator: torch.Generator | None
    ) -> Velocity:
        """The velocity of ``(x, log q)``."""
        signs = random_signs(self, x, generator)

        def velocity(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            grad, laplacian = score_and_laplacian(log_density, state[0], signs)
            return grad, -laplacian

        return velocity

    def _transport(self, log_density: LogDensity, x: Tensor, num_steps: int) -> Tensor:
        """``x`` after ``num_steps`` parts of the flow."""
        ends = self._ends(x) * (num_steps / self.num_steps)
        gradient = as_target(log_density).settled().workspace(x)

        def velocity(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (gradient(state[0]),)  # copied by the solver, which joins the parts of a state

        return solve(self, velocity, (x,), ends, num_steps, self._adjoint(log_density))[0]

    def _ends(self, x: Tensor) -> Tensor:
        check_position(x, "x")
        return x.new_tensor([0.0, self.horizon])

    def _adjoint(self, log_density: LogDensity) -> nn.Module | None:
        """The module whose parameters get gradients by backward integration; None without
        ``adjoint`` or under ``torch.no_grad``.
        """
        if not (self.adjoint and torch.is_grad_enabled()):
            return None
        module = log_density.log_density if isinstance(log_density, Recorded) else log_density
        if not isinstance(module, nn.Module):
            raise ValueError(
                "log_density must be an nn.Module for adjoint gradients, got "
                f"{type(module).__name__}"
            )
        return module


def score(log_density: LogDensity) -> Callable[[Tensor], Tensor]:
    """``grad log p``, differentiable."""
    return Recorded(log_density).gradient


def score_and_laplacian(
    log_density: LogDensity, x: Tensor, signs: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``grad log p`` (chains, \\*event) and ``tr H`` (chains,) at ``x`` (chains, \\*event).

    With ``signs`` (probes, chains, \\*event) the trace is Hutchinson's mean of ``v^T H v``.
    Without them it is exact, in closed form if the ``Density`` has one and no graph is kept.
    """
    if signs is None and not torch.is_grad_enabled():
        return as_density(log_density).grad_and_laplacian(x)
    return value_and_divergence(score(log_density), x, signs)


def score_and_hessian(log_density: LogDensity, x: Tensor) -> tuple[Tensor, Tensor]:
    """``grad log p`` (chains, \\*event) and its Hessian H (chains, dim, dim), for events
    of ``dim`` entries.
    """
    grad, products = jacobian_products(score(log_density), x, unit_vectors(x))
    return grad, products.flatten(2).transpose(0, 1)
