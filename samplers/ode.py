r"""What all flows share: ordinary differential equations ``dx/dt = v(t, x)`` and the density along
them.

A smooth velocity defines an invertible map of the start, and ``d/dt log q_t(x_t) = -div v(t,
x_t)``, where the divergence is the trace of the velocity's Jacobian. The solvers come from
torchdiffeq. A *flow* here is a frozen dataclass with the fields of ``Flow``. Source: Chen et al.
2018, arXiv:1806.07366; Hutchinson's trace: Grathwohl et al. 2019, arXiv:1810.01367.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from samplers.checks import check_fields
from samplers.derivatives import value_and_divergence
from samplers.run_checks import check_finite

# Methods of torchdiffeq by name, with their order.
FIXED_STEP = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}
ADAPTIVE = {"adaptive_heun": 2, "fehlberg2": 2, "bosh3": 3, "dopri5": 5, "dopri8": 8}


# (t, state) -> its derivative, both tuples of tensors (batch, ...)
Velocity = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]


class Flow(Protocol):
    """Settings of a solver.

    Fixed-step methods take ``num_steps`` steps; adaptive ones keep the error of each step of each
    row below ``atol + rtol |x|``. The trace is exact for events of up to ``exact_dim`` entries;
    for larger ones it is Hutchinson's estimate with ``num_probes`` vectors.
    """

    @property
    def method(self) -> str: ...
    @property
    def num_steps(self) -> int: ...
    @property
    def rtol(self) -> float | None: ...
    @property
    def atol(self) -> float | None: ...
    @property
    def exact_dim(self) -> int: ...
    @property
    def num_probes(self) -> int: ...


def check_flow(flow: Flow) -> None:
    """Raise ``ValueError`` for an unknown method or a non-positive setting. ``num_steps`` may be 0
    (left out) if the method is adaptive.
    """
    if flow.method not in {**FIXED_STEP, **ADAPTIVE}:
        raise ValueError(
            f"method must be one of {', '.join({**FIXED_STEP, **ADAPTIVE})}, got {flow.method!r}"
        )
    if flow.num_steps or flow.method in FIXED_STEP:
        check_fields(flow, num_steps="count")
    check_fields(flow, exact_dim="count", num_probes="count")
    for name in ("rtol", "atol"):
        if getattr(flow, name) is not None:
            check_fields(flow, **{name: "positive"})


def check_log_prob(name: str, log_prob: Tensor, x: Tensor) -> None:
    """Raise ``ValueError`` unless ``log_prob`` has one entry per row of ``x``."""
    if log_prob.shape != x.shape[:1]:
        raise ValueError(
            f"{name} must have shape {tuple(x.shape[:1])}, got {tuple(log_prob.shape)}"
        )


def solve(
    flow: Flow,
    velocity: Velocity,
    state: tuple[Tensor, ...],
    ends: Tensor,
    num_steps: int,
    adjoint: nn.Module | None = None,
) -> tuple[Tensor, ...]:
    """Carry ``state``, a tuple of tensors, along ``velocity(t, state)`` from time ``ends[0]`` to
    ``ends[1]``.

    Fixed-step methods take ``num_steps`` steps; adaptive ones take as many as they need in each
    of ``num_steps`` equal parts. With a module ``adjoint``, gradients with respect to its
    parameters and the state come from backward integration.

    Raises:
        ValueError: If the start is not finite.
        FloatingPointError: If a path diverges.
    """
    from torchdiffeq import odeint, odeint_adjoint

    x = state[0]
    if not len(x):
        return state
    if x.is_meta:  # solvers choose their steps from values, which meta tensors do not have
        return tuple(
            a + (ends[1] - ends[0]) * b
            for a, b in zip(state, velocity(ends[0], state), strict=True)
        )
    integrate = odeint
    if adjoint is not None and torch.is_grad_enabled():
        integrate = partial(
            odeint_adjoint,
            adjoint_params=tuple(p for p in adjoint.parameters() if p.requires_grad),
        )
    times, options = steps(flow, ends.to(x), num_steps)
    tolerance = 1e-9 if x.dtype == torch.float64 else 1e-5
    rtol, atol = flow.rtol or tolerance, flow.atol or tolerance
    try:
        path = integrate(
            velocity, state, times, rtol=rtol, atol=atol, method=flow.method, options=options
        )
    except AssertionError as error:  # torchdiffeq reports in this way that its steps shrank to 0
        check_departure(velocity, state, ends)
        raise FloatingPointError(
            f"a chain of {flow} diverged or its velocity is not smooth: {error}"
        ) from error
    end = tuple(a[-1] for a in path)
    if not all(bool(a.isfinite().all()) for a in end):
        check_departure(velocity, state, ends)
    for a in end:
        check_finite(
            "position and log_prob", a.detach(), f"a chain of {flow} diverged: use more steps"
        )
    return end


def check_departure(velocity: Velocity, state: tuple[Tensor, ...], ends: Tensor) -> None:
    """Look for the cause of a path that diverged. Raise ``ValueError`` if its start is not finite,
    and ``FloatingPointError`` if its velocity at the start is not.
    """
    if bad := sum(int((~a.isfinite()).sum()) for a in state):
        raise ValueError(
            f"x and its log-density must be finite at the start: {bad} of their entries are not"
        )
    for a in velocity(ends[0], state):
        check_finite("velocity at the start", a.detach())


def steps(flow: Flow, ends: Tensor, num_steps: int) -> tuple[Tensor, dict[str, object]]:
    """The times at which torchdiffeq returns the path, and the options that make it step as
    ``solve`` promises.
    """
    if flow.method in FIXED_STEP:
        return ends, {"grid_constructor": lambda func, y0, t: evenly(t, num_steps + 1)}
    times = evenly(ends, num_steps + 1)
    # a solver that steps exactly onto the times does not interpolate, which would be of lower
    # order
    return times, {"norm": largest, "step_t": times}


def evenly(times: Tensor, num: int) -> Tensor:
    """``num`` times from the first to the last of ``times``."""
    return torch.linspace(
        float(times[0]), float(times[-1]), num, dtype=times.dtype, device=times.device
    )


def largest(state: tuple[Tensor, ...]) -> Tensor:
    """The largest entry of a tuple of scaled errors, so that tolerances hold for every row and not
    only on average.
    """
    return torch.stack([a.abs().max() for a in state]).max()


def with_density(
    flow: Flow,
    field: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    generator: torch.Generator | None,
) -> Velocity:
    """The velocity of ``(x, log q)``, of shapes (batch, \\*event) and (batch,). ``field(t, x)`` is
    the velocity of x.
    """
    signs = random_signs(flow, x, generator)

    def velocity(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        value, divergence = value_and_divergence(partial(field, t), state[0], signs)
        return value, -divergence

    return velocity


def random_signs(flow: Flow, x: Tensor, generator: torch.Generator | None) -> Tensor | None:
    """The random signs (probes, batch, \\*event) of Hutchinson's estimate, drawn once per path;
    None for the exact trace.
    """
    if x.shape[1:].numel() <= flow.exact_dim:
        return None
    signs = torch.empty(flow.num_probes, *x.shape, dtype=x.dtype, device=x.device)
    return signs.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
