"""Multilayer perceptrons, and the activations that they share with the energy networks."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latent_ebm.artefacts import Artefact
from samplers.checks import as_shape, check_counts

SLOPE = 0.2

aten = torch.ops.aten


class Activation(NamedTuple):
    """``module()`` applies a; ``write(pre, out)`` writes ``a(pre)`` to ``out``; ``derivative(grad,
    pre)`` is ``grad * a'(pre)``, written over ``grad``; ``curvature(pre, post)`` is ``a''(pre)``
    for ``post = a(pre)``.
    """

    module: Callable[[], nn.Module]
    write: Callable[[Tensor, Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]
    curvature: Callable[[Tensor, Tensor], Tensor]


ACTIVATIONS = {
    "gelu": Activation(
        nn.GELU,
        lambda pre, out: aten.gelu.out(pre, out=out),
        lambda grad, pre: aten.gelu_backward.grad_input(grad, pre, grad_input=grad),
        lambda pre, post: (
            (2 - pre.square()) * (pre.square() * -0.5 - 0.5 * math.log(2 * math.pi)).exp()
        ),
    ),
    "leaky_relu": Activation(
        lambda: nn.LeakyReLU(SLOPE),
        lambda pre, out: aten.leaky_relu.out(pre, SLOPE, out=out),
        lambda grad, pre: aten.leaky_relu_backward.grad_input(
            grad, pre, SLOPE, False, grad_input=grad
        ),
        lambda pre, post: torch.zeros_like(pre),
    ),
    "silu": Activation(
        nn.SiLU,
        lambda pre, out: aten.silu.out(pre, out=out),
        lambda grad, pre: aten.silu_backward.grad_input(grad, pre, grad_input=grad),
        lambda pre, post: pre.sigmoid() * (-pre).sigmoid() * (2 - pre * (pre / 2).tanh()),
    ),
    "tanh": Activation(
        nn.Tanh,
        lambda pre, out: torch.tanh(pre, out=out),
        lambda grad, pre: aten.tanh_backward.grad_input(grad, pre.tanh(), grad_input=grad),
        lambda pre, post: -2 * post * (1 - post.square()),
    ),
}


def make_activation(name: str) -> nn.Module:
    """Activation module called ``name``: ``gelu``, ``leaky_relu`` (slope .2), ``silu`` or
    ``tanh``.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name].module()


def make_layers(in_dim: int, hidden: Sequence[int], out_dim: int) -> nn.ModuleList:
    """Linear layers ``in_dim -> *hidden -> out_dim``."""
    for width in hidden:
        check_counts("layers", hidden=width)
    dims = [in_dim, *hidden, out_dim]
    return nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(dims))


class MLP(Artefact):
    """Plain perceptron ``(batch, in_dim) -> (batch, *out_shape)``, for decoders and encoders.

    Axes of the input after the first are flattened, so that images can be encoded.

    Args:
        in_dim: The number of entries of an input.
        out_shape: The shape of an output; an integer for vectors.
        hidden: The widths of the hidden layers; none: an affine map.
        activation: "gelu", "leaky_relu", "silu" or "tanh".
    """

    def __init__(
        self,
        in_dim: int,
        out_shape: int | Sequence[int],
        hidden: Sequence[int] = (200, 200),
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        check_counts(self, in_dim=in_dim)
        self.out_shape = as_shape(self, out_shape=out_shape)
        self.in_dim, self.hidden, self.activation = in_dim, tuple(hidden), activation
        self.bend = make_activation(activation)
        self.layers = make_layers(in_dim, hidden, math.prod(self.out_shape))

    def forward(self, x: Tensor) -> Tensor:
        """Output (batch, \\*out_shape) of ``x`` (batch, \\*event) with ``in_dim`` entries per
        event.
        """
        *hidden, last = self.layers
        x = x.flatten(1)
        for layer in hidden:
            x = self.bend(layer(x))
        return last(x).unflatten(1, self.out_shape)
