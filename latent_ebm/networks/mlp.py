r"""Multilayer perceptrons; the energy network knows its own gradient.

An energy on a latent space is a scalar MLP ``E(z) = w . a(h_L) + b``, ``h_l = W_l a(h_{l-1}) + b_l``. Langevin
dynamics asks for ``E`` and ``dE/dz`` at every step and for nothing else, so that the gradient is written down instead
of recorded: ``delta_L = w * a'(h_L)``, ``delta_{l-1} = (delta_l W_l) * a'(h_{l-1})``, ``dE/dz = delta_1 W_1``. The
pre-activations of the forward pass are used again, the gradient at the last layer is its weight row, and no graph is
built. The Laplacian, which the density along a gradient flow needs, is written down likewise.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2
BLOCK = 2**17  # entries of a block of tangents, which then stay in the cache

aten = torch.ops.aten


class Activation(NamedTuple):
    """``function`` a, and the ``module()`` that applies it; ``derivative(grad, pre)`` is ``grad * a'(pre)``, written over
    ``grad``, so that fewer pages are touched; ``curvature(pre, post)`` is ``a''(pre)``; ``post`` stands for ``a(pre)``.
    """

    module: Callable[[], nn.Module]
    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]
    curvature: Callable[[Tensor, Tensor], Tensor]


ACTIVATIONS = {
    "gelu": Activation(
        nn.GELU,
        F.gelu,
        lambda grad, pre: aten.gelu_backward.grad_input(grad, pre, grad_input=grad),
        lambda pre, post: (2 - pre.square()) * (pre.square() * -0.5 - 0.5 * math.log(2 * math.pi)).exp(),
    ),
    "leaky_relu": Activation(
        lambda: nn.LeakyReLU(SLOPE),
        partial(F.leaky_relu, negative_slope=SLOPE),
        lambda grad, pre: aten.leaky_relu_backward.grad_input(grad, pre, SLOPE, False, grad_input=grad),
        lambda pre, post: torch.zeros_like(pre),
    ),
    "silu": Activation(
        nn.SiLU,
        F.silu,
        lambda grad, pre: aten.silu_backward.grad_input(grad, pre, grad_input=grad),
        lambda pre, post: pre.sigmoid() * (-pre).sigmoid() * (2 - pre * (pre / 2).tanh()),
    ),
    "tanh": Activation(
        nn.Tanh,
        torch.tanh,
        lambda grad, pre: aten.tanh_backward.grad_input(grad, pre.tanh(), grad_input=grad),
        lambda pre, post: -2 * post * (1 - post.square()),
    ),
}


def make_activation(name: str) -> nn.Module:
    """Activation module called ``name``: ``gelu``, ``leaky_relu`` (slope .2), ``silu`` or ``tanh``."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name].module()


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
        (*weights, row), (*biases, bias) = self._tensors(x)
        tape = forward_pass(x, weights, biases, self.activation_name, F.linear)
        value = F.linear(last_activation(x, tape, self.activation_name), row, bias).squeeze(1)
        return value, backward_pass(x, row, tape, self.activation_name).to(x.dtype)

    @torch.no_grad()
    def gradient(self, x: Tensor) -> Tensor:
        """Gradient (batch, dim) at ``x`` (batch, dim) alone, detached."""
        (*weights, row), (*biases, _) = self._tensors(x)
        tape = forward_pass(x, weights, biases, self.activation_name, F.linear)
        return backward_pass(x, row, tape, self.activation_name).to(x.dtype)

    @torch.no_grad()
    def grad_and_laplacian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Gradient (batch, dim) and Laplacian ``tr d^2E/dx^2`` (batch,) at ``x`` (batch, dim), both detached.

        With forward tangents ``T_l = dh_l/dx``, ``T_1 = W_1``, ``T_{l+1} = W_{l+1} diag(a'(h_l)) T_l``, the Laplacian is
        ``sum_l sum_i b_{l,i} |T_{l,i}|^2``, ``b_l = dE/da(h_l) * a''(h_l)``.
        """
        *hidden, last = self._linears(x)
        activation = ACTIVATIONS[self.activation_name]
        post, slopes, bends = x, [], []
        for layer in hidden:
            pre = layer(post)
            post = self.activation(pre)
            slopes.append(activation.derivative(torch.ones_like(pre), pre))
            bends.append(activation.curvature(pre, post))
        grad = last.weight.detach().expand(len(x), -1)
        for layer, slope, bend in zip(reversed(hidden), reversed(slopes), reversed(bends), strict=True):
            bend.mul_(grad)
            grad = (grad * slope) @ layer.weight
        weights = [layer.weight.mT.contiguous() for layer in hidden]
        return grad, tangent_squares(weights, slopes, bends) if hidden else x.new_zeros(len(x))

    def _linears(self, x: Tensor) -> list[nn.Linear]:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x must have shape (batch, {self.dim}), got {tuple(x.shape)}")
        return cast(list[nn.Linear], list(self.layers))

    def _tensors(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        layers = self._linears(x)
        return [layer.weight for layer in layers], [layer.bias for layer in layers]


def tangent_squares(weights: list[Tensor], slopes: list[Tensor], bends: list[Tensor]) -> Tensor:
    """``sum_l sum_i b_{l,i} |T_{l,i}|^2`` (batch,) from transposed weights (in, out), slopes and bends (batch, width) of all
    hidden layers; tangents (rows, dim, width) are held for a few rows at a time.
    """
    rows = max(1, BLOCK // (len(weights[0]) * max(bend.shape[1] for bend in bends)))
    totals = []
    for block in zip(*(part.split(rows) for part in (*slopes, *bends)), strict=True):
        tangent, total = weights[0], block[len(slopes)] @ weights[0].square().sum(0)
        for weight, slope, bend in zip(weights[1:], block, block[len(slopes) + 1 :], strict=False):
            tangent = (tangent * slope.unsqueeze(1)) @ weight
            total = total + (torch.linalg.vecdot(tangent, tangent, dim=1) * bend).sum(1)
        totals.append(total)
    return torch.cat(totals)


class EnergyStack(nn.Module):
    r"""``sum_k w_k E_k(x)`` of networks of one shape, with one batched product a layer for all of them.

    ``networks`` are copied, so that later changes do not reach the stack; ``weights`` w_k (K,). What ``EnergyMLP`` says of
    its value and gradient holds here. Raises ``ValueError`` unless ``are_alike(networks)``.
    """

    def __init__(self, networks: Sequence[EnergyMLP], weights: Tensor) -> None:
        super().__init__()
        if not are_alike(networks):
            raise ValueError("networks must be EnergyMLPs of one shape and activation, at least one")
        self.activation_name = networks[0].activation_name
        layers = list(zip(*(cast(Iterable[nn.Linear], network.layers) for network in networks), strict=True))
        stacks = [torch.stack([layer.weight.detach() for layer in group]) for group in layers]
        biases = [torch.stack([layer.bias.detach() for layer in group]).unsqueeze(1) for group in layers]
        scale = weights.detach().view(-1, 1, 1)
        stacks[-1], biases[-1] = scale * stacks[-1], scale * biases[-1]
        self.weights, self.biases = (nn.ParameterList(part).requires_grad_(False) for part in (stacks, biases))

    def forward(self, x: Tensor) -> Tensor:
        """Energy (batch,) of ``x`` (batch, dim), differentiable."""
        x = x.expand(len(self.weights[0]), *x.shape)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = ACTIVATIONS[self.activation_name].function(stacked_linear(x, weight, bias))
        return stacked_linear(x, self.weights[-1], self.biases[-1]).sum(0).squeeze(1)

    @torch.no_grad()
    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Energy (batch,) of ``x`` (batch, dim) and its gradient in ``x`` (batch, dim), both detached."""
        (*weights, row), (*biases, bias) = list(self.weights), list(self.biases)
        x = x.expand(len(row), *x.shape)
        tape = forward_pass(x, weights, biases, self.activation_name, stacked_linear)
        value = stacked_linear(last_activation(x, tape, self.activation_name), row, bias).sum(0).squeeze(1)
        return value, backward_pass(x, row, tape, self.activation_name).sum(0).to(x.dtype)

    @torch.no_grad()
    def gradient(self, x: Tensor) -> Tensor:
        """Gradient (batch, dim) at ``x`` (batch, dim) alone, detached."""
        (*weights, row), (*biases, _) = list(self.weights), list(self.biases)
        x = x.expand(len(row), *x.shape)
        tape = forward_pass(x, weights, biases, self.activation_name, stacked_linear)
        return backward_pass(x, row, tape, self.activation_name).sum(0).to(x.dtype)


def are_alike(networks: Sequence[nn.Module]) -> bool:
    """Whether ``networks``, one or more, are ``EnergyMLP`` of one shape and activation, as ``EnergyStack`` asks."""
    kinds = {
        (network.activation_name, *(layer.weight.shape for layer in cast(Iterable[nn.Linear], network.layers)))
        if type(network) is EnergyMLP
        else None
        for network in networks
    }
    return len(kinds) == 1 and None not in kinds


def stacked_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``F.linear`` of K layers at once: x (K, batch, in), weight (K, out, in), bias (K, 1, out)."""
    return torch.baddbmm(bias, x, weight.mT)


Tape = list[tuple[Tensor, Tensor]]  # weight and pre-activation of every hidden layer


def forward_pass(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], activation: str, linear: Callable[..., Tensor]
) -> Tape:
    """What the gradient at ``x`` (..., batch, dim) needs, which is all but the last activation."""
    function, tape = ACTIVATIONS[activation].function, []
    for weight, bias in zip(weights, biases, strict=True):
        post = function(tape[-1][1]) if tape else x
        tape.append((weight, linear(post, weight, bias)))
    return tape


def last_activation(x: Tensor, tape: Tape, activation: str) -> Tensor:
    """What the output layer sees (..., batch, width)."""
    return ACTIVATIONS[activation].function(tape[-1][1]) if tape else x


def backward_pass(x: Tensor, row: Tensor, tape: Tape, activation: str) -> Tensor:
    """Gradient (..., batch, dim) at ``x`` of the output whose weights are ``row`` (..., 1, width)."""
    derivative = ACTIVATIONS[activation].derivative
    # A copy, since derivatives are taken in place; under autocast activations are of lower precision than the rest.
    grad = torch.empty_like(tape[-1][1] if tape else x).copy_(row)
    for weight, pre in reversed(tape):
        grad = derivative(grad, pre) @ weight
    return grad


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
