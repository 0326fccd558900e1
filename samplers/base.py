r"""The sampler contract.

A *log-density* is any callable ``(chains, *event) -> (chains,)``, unnormalised, up is good. It is
the only thing a sampler sees. A sampler is a frozen dataclass of plain numbers; what the next step
needs travels in a ``State``, what only diagnostics need in an ``Info``. Every chain of the batch
is independent of the others.
"""

import math
import reprlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

LogDensity = Callable[[Tensor], Tensor]


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


class Given(ABC):
    """A log-density given ``data``: one of a ``family`` that stays while the data change."""

    def __init__(self, family: Any, data: Tensor) -> None:
        self.family, self.data = family, data

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Log-density (chains,) at ``x`` (chains, \\*event)."""

    @abstractmethod
    def given(self, data: Tensor) -> "Given":
        """The log-density of the same family given other ``data``."""


def value_and_grad(log_density: LogDensity, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``log_density(x)`` (chains,) and its gradient in ``x`` (chains, \\*event), both
    detached.

    The one place where samplers take gradients. A log-density that knows its gradient in closed
    form offers a method ``value_and_grad(x)`` of its own, which is then used instead of automatic
    differentiation.

    Raises ``RuntimeError`` under ``torch.inference_mode``, where no gradient can be recorded, and
    ``ValueError`` when the log-density does not return one number per chain, or a number that is
    detached from ``x``.
    """
    if isinstance(log_density, Recorded):
        return log_density.value_and_grad(x)
    closed_form = getattr(log_density, "value_and_grad", None)
    if closed_form is not None:
        value, grad = closed_form(x)
        check_value(value, x)
        return value.detach(), grad.detach()
    check_recording()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = log_density(x)
        grad = differentiate(value, x)
    return value.detach(), grad


def gradient_function(log_density: LogDensity, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The gradient (chains, \\*event) of ``value_and_grad`` alone, as a function of positions
    shaped like ``x``.

    A log-density that has it for less than its value, or in memory allocated once, offers a method
    ``gradient_function(x)``, which is then used. Call both under ``torch.no_grad``, and read a
    result before the next call, which may write over it.
    """
    closed_form = getattr(log_density, "gradient_function", None)
    return (lambda x: value_and_grad(log_density, x)[1]) if closed_form is None else closed_form(x)


def differentiate(
    value: Tensor, x: Tensor, name: str = "log_density", *, create_graph: bool = False
) -> Tensor:
    """The gradient, like ``x`` (chains, \\*event), of ``value`` (chains,), what ``name`` gives at
    ``x``.

    Raises ``ValueError`` for another shape of ``value``, or one without a gradient in ``x``: a
    constant cannot be told from a value that was detached by mistake.
    """
    check_value(value, x, name)
    total, grad = value.sum(), None
    if value.requires_grad:
        (grad,) = torch.autograd.grad(total, x, create_graph=create_graph, allow_unused=True)
    if grad is None:
        raise ValueError(
            f"{name} must return a value with a gradient in its argument, got one that is "
            "detached from it; "
            "write one that is constant on purpose as 0 * x.flatten(1).sum(1)"
        )
    return grad


class Recorded:
    """``log_density`` whose value and gradient keep their graph, so that a chain run on it can be
    differentiated.
    """

    def __init__(self, log_density: LogDensity) -> None:
        self.log_density = log_density

    def __call__(self, x: Tensor) -> Tensor:
        return self.log_density(x)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As the function ``value_and_grad``, differentiable in x (chains, \\*event) and in the
        density's parameters.
        """
        check_recording()
        recorded = x.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if recorded else x.detach().requires_grad_()
            value = self.log_density(x)
            return value, differentiate(value, x, create_graph=True)


def check_recording() -> None:
    """Raise ``RuntimeError`` under ``torch.inference_mode``, where no gradient can be recorded."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "a sampler needs gradients of log_density, which torch.inference_mode() forbids: "
            "use torch.no_grad(), or Trainer(inference_mode=False)"
        )


def check_value(value: Tensor, x: Tensor, name: str = "log_density") -> None:
    """Raise ``ValueError`` unless ``value``, what ``name`` gives at ``x`` (chains, \\*event), has
    shape (chains,).
    """
    if not isinstance(value, Tensor) or value.is_complex():
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name} must return a tensor of real numbers, one per chain, got {got}")
    if value.shape != x.shape[:1]:
        raise ValueError(
            f"{name} must return shape {tuple(x.shape[:1])}, one number per chain, got "
            f"{tuple(value.shape)}"
        )


def normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the shape, dtype and device of ``x``."""
    return torch.empty_like(x).normal_(generator=generator)


def is_readable(x: Tensor) -> bool:
    """Whether values of ``x`` can be looked at: not on the meta device or in a CUDA graph's
    making.
    """
    return not x.is_meta and not (x.is_cuda and torch.cuda.is_current_stream_capturing())


def check_finite(name: str, x: Tensor, hint: str = "") -> None:
    """Raise ``FloatingPointError`` if ``x`` (n, ...) ``is_readable`` and has a non-finite
    entry.
    """
    if not is_readable(x) or bool(torch.isfinite(x).all()):
        return
    bad = (
        int((~torch.isfinite(x)).flatten(1).any(1).sum())
        if x.ndim > 1
        else int((~torch.isfinite(x)).sum())
    )
    raise FloatingPointError(
        f"{name} must be finite: {bad} of {len(x)} are not{hint and '; ' + hint}"
    )


def check_position(x: Tensor, name: str = "position") -> None:
    """Raise ``ValueError`` unless ``x`` is a floating tensor (chains, \\*event), event not
    empty.
    """
    if not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= 2):
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else reprlib.repr(x)
        raise ValueError(
            f"{name} must be a floating tensor (chains, *event) with an event of one axis or "
            f"more, got {got}"
        )


def check_start(x: Tensor, log_density: Tensor, grad: Tensor) -> None:
    """Check position, log-density and gradient at the start of a run, once.

    Raises ``ValueError`` for a position that is not finite or where the density is zero, and
    ``FloatingPointError`` for a density or a gradient that is not finite.
    """
    if not is_readable(x) or bool(log_density.isfinite().all() & grad.isfinite().all()):
        return
    count, outside = len(x), int((log_density == -math.inf).sum())
    if bad := int((~x.isfinite()).flatten(1).any(1).sum()):
        raise ValueError(f"position must be finite at the start: {bad} of {count} chains are not")
    if outside:
        raise ValueError(
            "position must lie inside the support at the start: log_density is -inf at "
            f"{outside} of {count} chains"
        )
    check_finite("log_density at the start", log_density)
    check_finite("gradient of log_density at the start", grad)


def check_end(sampler: object, x: Tensor, log_density: Tensor, info: Any = None) -> None:
    """Check the end of a run, once: positions, their densities, and those of the last proposals.

    Raises ``FloatingPointError`` if a chain diverged, or if ``info.log_ratio`` (chains,) is NaN
    for most chains.
    """
    check_finite("position", x, f"a chain of {sampler} diverged: use a smaller step_size")
    check_finite(
        "log_density", log_density, f"a chain of {sampler} went where it is NaN or infinite"
    )
    log_ratio: Tensor | None = getattr(info, "log_ratio", None)
    undefined = 0 if log_ratio is None or not is_readable(x) else int(log_ratio.isnan().sum())
    if undefined > len(x) / 2:
        raise FloatingPointError(
            "log_density must be finite along a chain: it is NaN or inf at the last proposals "
            f"of {undefined} of {len(x)} "
            f"chains of {sampler}; use a smaller step_size, or mend it there"
        )


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
        return State(position, *value_and_grad(log_density, position))

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
