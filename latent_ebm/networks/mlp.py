r"""Multilayer perceptrons; the energy network knows its own gradient.

An energy on a latent space is a scalar MLP ``E(z) = w . a(h_L) + b``, ``h_l = W_l a(h_{l-1}) + b_l``. Langevin
dynamics asks for ``E`` and ``dE/dz`` at every step and for nothing else, so that the gradient is written down instead
of recorded: ``delta_L = w * a'(h_L)``, ``delta_{l-1} = (delta_l W_l) * a'(h_{l-1})``, ``dE/dz = delta_1 W_1``. The
pre-activations of the forward pass are used again, the gradient at the last layer is its weight row, and no graph is
built.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2

# (gradient, pre-activation, activation) -> gradient, written over the incoming gradient: fewer pages to touch.
Derivative = Callable[[Tensor, Tensor, Tensor], Tensor]

aten = torch.ops.aten
ACTIVATIONS: dict[str, tuple[Callable[[], nn.Module], Derivative]] = {
    "gelu": (nn.GELU, lambda grad, pre, post: aten.gelu_backward.grad_input(grad, pre, grad_input=grad)),
    "leaky_relu": (
        lambda: nn.LeakyReLU(SLOPE),
        lambda grad, pre, post: aten.leaky_relu_backward.grad_input(grad, pre, SLOPE, False, grad_input=grad),
    ),
    "silu": (nn.SiLU, lambda grad, pre, post: aten.silu_backward.grad_input(grad, pre, grad_input=grad)),
    "tanh": (nn.Tanh, lambda grad, pre, post: aten.tanh_backward.grad_input(grad, post, grad_input=grad)),
}


def make_activation(name: str) -> nn.Module:
    """Activation module called ``name``: ``gelu``, ``leaky_relu`` (slope .2), ``silu`` or ``tanh``."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name][0]()


def check_counts(**counts: int) -> None:
    """Raise ``ValueError`` unless every argument is an integer >= 1."""
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")


def make_layers(in_dim: int, hidden: Sequence[int], out_dim: int) -> nn.ModuleList:
    """Linear layers ``in_dim -> *hidden -> out_dim``."""
    for width in hidden:
        check_counts(hidden=width)
    dims = [in_dim, *hidden, out_dim]
    return nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(dims))


class EnergyMLP(nn.Module):
    r"""Scalar energy ``(batch, dim) -> (batch,)`` with its gradient in closed form.

    Arguments: ``dim`` of the latent, ``hidden`` widths (empty: a linear energy), ``activation`` (see
    ``make_activation``). ``layers[-1]`` is the output layer: zero it to start from the constant energy zero. Two
    hidden layers of 200 units are the energy of arXiv:2006.08205.
    """

    def __init__(self, dim: int, hidden: Sequence[int] = (200, 200), activation: str = "gelu") -> None:
        super().__init__()
        check_counts(dim=dim)
        self.dim = dim
        self.activation_name = activation
        self.activation = make_activation(activation)
        self.layers = make_layers(dim, hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Energy (batch,) of ``x`` (batch, dim), differentiable."""
        *hidden, last = self._linears(x)
        for layer in hidden:
            x = self.activation(layer(x))
        return last(x).squeeze(1)

    @torch.no_grad()
    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Energy (batch,) of ``x`` (batch, dim) and its gradient in ``x`` (batch, dim), both detached."""
        *hidden, last = self._linears(x)
        activation, derivative = self.activation.forward, ACTIVATIONS[self.activation_name][1]
        post, tape = x, []
        for layer in hidden:
            weight = layer.weight
            pre = F.linear(post, weight, layer.bias)
            post = activation(pre)
            tape.append((weight, pre, post))
        row = last.weight
        value = F.linear(post, row, last.bias).squeeze(1)
        # A copy, since derivatives are taken in place; under autocast activations are of lower precision than the rest.
        grad = row.to(post.dtype).repeat(len(x), 1)
        for weight, pre, post in reversed(tape):
            grad = derivative(grad, pre, post) @ weight
        return value, grad.to(x.dtype)

    def _linears(self, x: Tensor) -> list[nn.Linear]:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x must have shape (batch, {self.dim}), got {tuple(x.shape)}")
        return cast(list[nn.Linear], list(self.layers))


class MLP(nn.Module):
    """Plain perceptron ``(batch, in_dim) -> (batch, *out_shape)``, for decoders and encoders of vectors.

    Arguments: ``in_dim``, ``out_shape`` (an integer or a tuple of them), ``hidden`` widths (empty: an affine map),
    ``activation`` (see ``make_activation``). Trailing axes of the input are flattened, so that images may be encoded.
    """

    def __init__(
        self,
        in_dim: int,
        out_shape: int | Sequence[int],
        hidden: Sequence[int] = (200, 200),
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        self.out_shape = (out_shape,) if isinstance(out_shape, int) else tuple(out_shape)
        check_counts(in_dim=in_dim)
        for size in self.out_shape:
            check_counts(out_shape=size)
        self.activation = make_activation(activation)
        self.layers = make_layers(in_dim, hidden, math.prod(self.out_shape))

    def forward(self, x: Tensor) -> Tensor:
        """Output (batch, \\*out_shape) of ``x`` (batch, \\*event) with ``in_dim`` numbers an event."""
        *hidden, last = self.layers
        x = x.flatten(1)
        for layer in hidden:
            x = self.activation(layer(x))
        return last(x).unflatten(1, self.out_shape)
