r"""Log-densities: what a sampler draws from, and how they add up.

A *log-density* is any callable ``(chains, *event) -> (chains,)``, unnormalised, up is good. One
that knows more than its value is a ``Density``: it overrides those of the methods below that it
has in closed form, and automatic differentiation does the others. Densities add up,

    base - energy        beta * density        prior + likelihood,

to a ``Sum`` of weighted terms, whose value, gradient, workspace and Laplacian are the weighted
sums of its terms', each in closed form where it is known. A target whose value is unknown is a
``Score``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from samplers.checks import check_numbers
from samplers.derivatives import check_recording, check_value, differentiate, value_and_divergence
from samplers.scores import Score

LogDensity = Callable[[Tensor], Tensor]
Weight = float | Tensor
Terms = Sequence[tuple[Weight, LogDensity]]


class Density(ABC):
    """A log-density that may know more than its value; x is (chains, \\*event) everywhere.

    A subclass defines ``__call__`` (an ``nn.Module``: ``forward``), and overrides what it has in
    closed form. Results in closed form need not be detached from parameters.
    """

    __array_ufunc__ = None  # numbers and arrays of NumPy leave ``weight * density`` to __rmul__

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """The log-density (chains,) at ``x``, differentiable."""

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The value (chains,) and the gradient, like ``x``, in memory of its own."""
        check_recording()
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = self(x)
            grad = differentiate(value, x)
        return value.detach(), grad

    def gradient(self, x: Tensor) -> Tensor:
        """The gradient, like ``x``, in memory of its own."""
        return evaluate(self, x)[1]

    def workspace(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """The gradient as a function of positions shaped like ``x``, whose next call may write
        over the result of the last: read it at once, or use ``gradient``.

        Its memory is allocated here, once for a chain. Call both under ``torch.no_grad``.
        """
        return self.gradient

    def grad_and_laplacian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient, like ``x``, and the trace (chains,) of the Hessian, without a graph."""
        with torch.no_grad():
            return value_and_divergence(Recorded(self).gradient, x)

    def settled(self) -> "Density":
        """The density in the form that is fastest for one chain, along which no parameter
        changes. Samplers ask for it where a chain starts.
        """
        return self

    def terms(self) -> Terms:
        """The weighted terms that the density is the sum of: itself, unless it is a ``Sum``."""
        return ((1.0, self),)

    def __add__(self, other: LogDensity) -> "Total":
        return Total(*self.terms(), *as_density(other).terms())

    def __radd__(self, other: LogDensity | int) -> "Density":
        if callable(other):
            return as_density(other) + self
        if other == 0:  # where ``sum`` starts
            return self
        raise ValueError(f"log_density must be a function of positions, got {other!r}")

    def __sub__(self, other: LogDensity) -> "Total":
        return Total(*self.terms(), (-1.0, as_density(other)))

    def __rsub__(self, other: LogDensity) -> "Total":
        return as_density(other) - self

    def __mul__(self, weight: Weight) -> "Total":
        if not isinstance(weight, Tensor):
            check_numbers("a density", "finite", weight=weight)
        return Total((weight, self))

    __rmul__ = __mul__

    def __neg__(self) -> "Total":
        return Total((-1.0, self))


class Plain(Density):
    """A callable that knows only its value. Raises ``ValueError`` unless it is a function."""

    def __init__(self, function: LogDensity) -> None:
        if not callable(function):
            raise ValueError(f"log_density must be a function of positions, got {function!r}")
        self.function = function

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)


class Recorded(Density):
    """``log_density`` whose value and gradient keep their graph, so that a chain that runs on it
    can be differentiated.
    """

    def __init__(self, log_density: LogDensity) -> None:
        self.log_density = log_density

    def __call__(self, x: Tensor) -> Tensor:
        return self.log_density(x)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As ``Density.value_and_grad``, differentiable in ``x`` and in the density's
        parameters.
        """
        check_recording()
        recorded = x.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if recorded else x.detach().requires_grad_()
            value = self.log_density(x)
            return value, differentiate(value, x, create_graph=True)


class Sum(Density):
    """A density that is a sum of weighted terms, which a subclass names in ``terms``.

    A weight is a number, or a tensor () or (chains,). Raises ``ValueError``, when evaluated, for a
    weight of another shape.
    """

    @abstractmethod
    def terms(self) -> Terms:
        """The terms ``(weight, log_density)``, one or more."""

    def __call__(self, x: Tensor) -> Tensor:
        weights, densities = zip(*self.terms(), strict=True)
        values = [density(x) for density in densities]
        for value in values:
            check_value(value, x)
        return weighted_sum(weights, values)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, densities = zip(*self.terms(), strict=True)
        values, grads = zip(*(value_and_grad(density, x) for density in densities), strict=True)
        return weighted_sum(weights, values), weighted_sum(weights, grads)

    def gradient(self, x: Tensor) -> Tensor:
        weights, densities = zip(*self.terms(), strict=True)
        return weighted_sum(weights, [as_density(density).gradient(x) for density in densities])

    def workspace(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        weights, densities = zip(*self.terms(), strict=True)
        gradients = [as_density(density).workspace(x) for density in densities]
        out = torch.empty_like(x)
        return lambda x: weighted_sum(weights, [gradient(x) for gradient in gradients], out)

    @torch.no_grad()
    def grad_and_laplacian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, densities = zip(*self.terms(), strict=True)
        parts = [as_density(density).grad_and_laplacian(x) for density in densities]
        grads, laplacians = zip(*parts, strict=True)
        return weighted_sum(weights, grads), weighted_sum(weights, laplacians)

    def settled(self) -> Density:
        return Total(*((weight, as_density(f).settled()) for weight, f in self.terms()))


class Total(Sum):
    """The sum of the given terms ``(weight, log_density)``, what ``+``, ``-`` and ``*`` make."""

    def __init__(self, *terms: tuple[Weight, LogDensity]) -> None:
        if not terms:
            raise ValueError("a sum of log-densities must have one term or more, got none")
        self._terms = terms

    def terms(self) -> Terms:
        return self._terms


def as_density(log_density: LogDensity) -> Density:
    """``log_density`` itself if it is a ``Density``; else one that is differentiated
    automatically.

    Raises ``ValueError`` for a ``Score``, which has no value.
    """
    if isinstance(log_density, Density):
        return log_density
    if isinstance(log_density, Score):
        log_density.refuse()
    return Plain(log_density)


def as_target(log_density: LogDensity) -> Density | Score:
    """As ``as_density``, and a ``Score`` as it is."""
    return log_density if isinstance(log_density, Score) else as_density(log_density)


def value_and_grad(log_density: LogDensity, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``log_density(x)`` (chains,) and its gradient in ``x`` (chains, \\*event), both
    detached: in closed form if a ``Density`` knows it, else by automatic differentiation.

    Raises ``RuntimeError`` under ``torch.inference_mode``, where no gradient can be recorded, and
    ``ValueError`` if the log-density does not return one number per chain, or returns one that is
    detached from ``x``.
    """
    return evaluate(as_density(log_density), x)


def evaluate(log_density: LogDensity, x: Tensor) -> tuple[Tensor, Tensor]:
    """As ``value_and_grad``, with zeros in place of the value of a ``Score``."""
    target = as_target(log_density)
    value, grad = target.value_and_grad(x)
    check_value(value, x)
    return (value, grad) if isinstance(target, Recorded) else (value.detach(), grad.detach())


def gradient_function(log_density: LogDensity, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The gradient (chains, \\*event) alone, as a function of positions shaped like ``x``: for
    samplers that take many between two values, in memory allocated once.

    A result is safe to keep, as a method of several steps keeps it. Call both under
    ``torch.no_grad``.
    """
    gradient = as_density(log_density).settled().workspace(x)
    return lambda x: gradient(x).clone()


def weighted_sum(
    weights: Sequence[Weight], parts: Sequence[Tensor], out: Tensor | None = None
) -> Tensor:
    """``sum_k weights_k parts_k`` from left to right, parts (chains, ...), written to ``out`` if
    it is given and there is something to compute.
    """
    first, total = weights[0], parts[0]
    if isinstance(first, Tensor) or first != 1:
        total = torch.mul(total, per_chain(first, total))
    for weight, part in zip(weights[1:], parts[1:], strict=True):
        if isinstance(weight, Tensor):
            total = torch.add(total, per_chain(weight, part) * part, out=out)
        else:
            total = torch.add(total, part, alpha=weight, out=out)
    return total


def per_chain(weight: Weight, x: Tensor) -> Weight:
    """``weight``, viewed so that a tensor (chains,) multiplies ``x`` (chains, ...) chain by
    chain.
    """
    if not isinstance(weight, Tensor) or not weight.ndim:
        return weight
    if weight.shape != x.shape[:1]:
        raise ValueError(
            f"the weight of a log-density must have shape {tuple(x.shape[:1])}, got "
            f"{tuple(weight.shape)}"
        )
    return weight.view(-1, *[1] * (x.ndim - 1))
