r"""Energy networks, which know their own gradient.

An energy on a latent space is a scalar MLP ``E(z) = w . a(h_L) + b``, ``h_l = W_l a(h_{l-1}) +
b_l``. Langevin dynamics needs only ``E`` and ``dE/dz`` at every step. The gradient is therefore
computed in closed form, without autograd: ``delta_L = w * a'(h_L)``, ``delta_{l-1} = (delta_l W_l)
* a'(h_{l-1})``, ``dE/dz = delta_1 W_1``. It reuses the pre-activations of the forward pass, and no
graph is built. The Laplacian, which the density along a gradient flow needs, has a closed form of
the same kind.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn

from latent_ebm.artefacts import Artefact
from latent_ebm.networks.mlp import ACTIVATIONS, make_activation, make_layers
from samplers.checks import check_counts
from samplers.densities import Density, Terms

BLOCK = 2**17  # entries of a block of tangents, small enough to stay in the cache


class EnergyMLP(Artefact, Density):
    r"""Scalar energy ``(batch, dim) -> (batch,)`` with its gradient in closed form.

    ``layers[-1]`` is the output layer: zero it to start from the constant energy zero. Two hidden
    layers of 200 units are the energy of arXiv:2006.08205.

    Args:
        dim: The dimension of the latent.
        hidden: The widths of the hidden layers; none: a linear energy.
        activation: See ``make_activation``.
    """

    def __init__(
        self, dim: int, hidden: Sequence[int] = (200, 200), activation: str = "gelu"
    ) -> None:
        super().__init__()
        check_counts(self, dim=dim)
        self.dim, self.hidden, self.activation = dim, tuple(hidden), activation
        self.bend = make_activation(activation)
        self.layers = make_layers(dim, hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Energy (batch,) of ``x`` (batch, dim), differentiable."""
        *hidden, last = self._linears(x)
        for layer in hidden:
            x = self.bend(layer(x))
        return last(x).squeeze(1)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Energy (batch,) of ``x`` (batch, dim) and its gradient in ``x`` (batch, dim), both
        detached.
        """
        return self._closed_form(x).value_and_grad(x.detach())

    def workspace(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """The gradient (batch, dim) as a function of points shaped like ``x``, in memory that the
        next call writes over.
        """
        return self._closed_form(x).gradient

    @torch.no_grad()
    def grad_and_laplacian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Gradient (batch, dim) and Laplacian ``tr d^2E/dx^2`` (batch,) at ``x`` (batch, dim),
        both detached.

        With forward tangents ``T_l = dh_l/dx``, ``T_1 = W_1``, ``T_{l+1} = W_{l+1} diag(a'(h_l))
        T_l``, the Laplacian is ``sum_l sum_i b_{l,i} |T_{l,i}|^2``, ``b_l = dE/da(h_l) *
        a''(h_l)``.
        """
        *hidden, last = self._linears(x)
        activation = ACTIVATIONS[self.activation]
        post, slopes, bends = x, [], []
        for layer in hidden:
            pre = layer(post)
            post = self.bend(pre)
            slopes.append(activation.derivative(torch.ones_like(pre), pre))
            bends.append(activation.curvature(pre, post))
        grad = last.weight.detach().expand(len(x), -1)
        for layer, slope, bend in zip(
            reversed(hidden), reversed(slopes), reversed(bends), strict=True
        ):
            bend.mul_(grad)
            grad = (grad * slope) @ layer.weight
        weights = [layer.weight.mT.contiguous() for layer in hidden]
        return grad, tangent_squares(weights, slopes, bends) if hidden else x.new_zeros(len(x))

    def linears(self) -> list[nn.Linear]:
        """The layers, from the latent to the energy."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def _linears(self, x: Tensor) -> list[nn.Linear]:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x must have shape (batch, {self.dim}), got {tuple(x.shape)}")
        return self.linears()

    def _closed_form(self, x: Tensor) -> "ClosedForm":
        layers = self._linears(x)
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        return ClosedForm(x, weights, biases, self.activation)


def tangent_squares(weights: list[Tensor], slopes: list[Tensor], bends: list[Tensor]) -> Tensor:
    """``sum_l sum_i b_{l,i} |T_{l,i}|^2`` (batch,) from transposed weights (in, out), slopes and
    bends (batch, width) of all hidden layers; tangents (rows, dim, width) are held for a few rows
    at a time.
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


class EnergyStack(nn.Module, Density):
    r"""``sum_k w_k E_k(x)`` of networks of one shape, with one batched product a layer for all of
    them.

    ``networks`` are copied, so that later changes do not reach the stack; ``weights`` w_k (K,).
    What ``EnergyMLP`` says of its value and gradient holds here. Raises ``ValueError`` unless
    ``are_alike(networks)``.
    """

    def __init__(self, networks: Sequence[nn.Module], weights: Tensor) -> None:
        super().__init__()
        if not are_alike(networks):
            raise ValueError(
                "networks must be EnergyMLPs of one shape and activation, at least one"
            )
        self.activation, self.bend = networks[0].activation, networks[0].bend
        layers = list(zip(*(network.linears() for network in networks), strict=True))
        stacks = [torch.stack([layer.weight.detach() for layer in group]) for group in layers]
        biases = [
            torch.stack([layer.bias.detach() for layer in group]).unsqueeze(1) for group in layers
        ]
        scale = weights.detach().view(-1, 1, 1)
        stacks[-1], biases[-1] = scale * stacks[-1], scale * biases[-1]
        self.weights, self.biases = (
            nn.ParameterList(part).requires_grad_(False) for part in (stacks, biases)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Energy (batch,) of ``x`` (batch, dim), differentiable."""
        x = self._copies(x)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = self.bend(torch.baddbmm(bias, x, weight.mT))
        return torch.baddbmm(self.biases[-1], x, self.weights[-1].mT).sum(0).squeeze(1)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Energy (batch,) of ``x`` (batch, dim) and its gradient in ``x`` (batch, dim), both
        detached.
        """
        values, grads = self._closed_form(x).value_and_grad(self._copies(x.detach()))
        return values.sum(0), grads.sum(0)

    def workspace(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """The gradient (batch, dim) as a function of points shaped like ``x``."""
        gradients = self._closed_form(x).gradient
        return lambda x: gradients(self._copies(x)).sum(0)

    def _copies(self, x: Tensor) -> Tensor:
        return x.expand(len(self.weights[0]), *x.shape)

    def _closed_form(self, x: Tensor) -> "ClosedForm":
        return ClosedForm(self._copies(x), self.weights, self.biases, self.activation)


def stacked(networks: Iterable[nn.Module], weights: Tensor) -> Terms:
    """The terms of ``sum_k w_k f_k(x)`` that are fastest in a chain: one ``EnergyStack`` if
    ``are_alike(networks)``, else every network with its weight (K,).
    """
    networks = list(networks)
    if are_alike(networks):
        return ((1.0, EnergyStack(networks, weights)),)
    return tuple(zip(weights, networks, strict=True))


def are_alike(networks: Sequence[nn.Module]) -> TypeGuard[Sequence[EnergyMLP]]:
    """Whether ``networks``, one or more, are ``EnergyMLP`` of one shape and activation, as
    ``EnergyStack`` asks.
    """
    kinds = {
        (network.activation, *(layer.weight.shape for layer in network.linears()))
        if type(network) is EnergyMLP
        else None
        for network in networks
    }
    return len(kinds) == 1 and None not in kinds


class ClosedForm:
    """Values (..., batch) and gradients (..., batch, dim) of scalar MLPs at points shaped like
    ``x`` (..., batch, dim).

    One network and (batch, dim), or K networks, parameters stacked, and (K, batch, dim). Memory
    for the results of products and activations is allocated once, and every call writes over it:
    the pages of large blocks that are allocated anew at every step would be returned to the system
    and faulted in again each time. Products have the precision that ``torch.autocast`` asks for
    when this object is made.
    Raises ``ValueError`` if ``x`` is of another dtype than the networks.
    """

    def __init__(
        self, x: Tensor, weights: Iterable[Tensor], biases: Iterable[Tensor], activation: str
    ) -> None:
        self.activation, self.dtype = ACTIVATIONS[activation], product_dtype(x)
        self.affine, self.product = (
            (torch.addmm, torch.mm) if x.ndim == 2 else (torch.baddbmm, torch.bmm)
        )
        weights, low = list(weights), self.dtype != x.dtype
        if not low and weights[0].dtype != x.dtype:
            raise ValueError(
                f"x must have the dtype {weights[0].dtype} of the network, got {x.dtype}"
            )
        *weights, self.row = [
            weight.detach().to(self.dtype) if low else weight.detach() for weight in weights
        ]
        *biases, self.bias = [
            bias.detach().to(self.dtype) if low else bias.detach() for bias in biases
        ]
        example, batch = x.new_empty(0, dtype=self.dtype), x.shape[:-1]
        pres = [example.new_empty(*batch, weight.shape[-2]) for weight in weights]
        # For what a layer sees, a(h_l), in the forward pass, and for the gradient in it in the
        # backward pass.
        *rooms, self.top = [example.new_empty(x.shape), *map(torch.empty_like, pres)]
        self.forward_steps = list(
            zip([weight.mT for weight in weights], biases, pres, rooms, strict=True)
        )
        self.backward_steps = list(zip(weights, pres, rooms, strict=True))[::-1]

    def gradient(self, x: Tensor) -> Tensor:
        """Gradients at ``x``."""
        post, pre = x if x.dtype == self.dtype else x.to(self.dtype), None
        for weight, bias, out, room in self.forward_steps:
            post = post if pre is None else self.activation.write(pre, room)
            pre = self.affine(bias, post, weight, out=out)
        grad = self.top.copy_(self.row)
        for weight, pre, room in self.backward_steps:
            grad = self.product(self.activation.derivative(grad, pre), weight, out=room)
        return grad if x.dtype == self.dtype else grad.to(x.dtype)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values and gradients at ``x``."""
        grad = self.gradient(x)
        hidden = self.backward_steps
        post = self.activation.write(hidden[0][1], self.top) if hidden else x.to(self.dtype)
        return self.affine(self.bias, post, self.row.mT).squeeze(-1), grad


def product_dtype(x: Tensor) -> torch.dtype:
    """Precision of matrix products with ``x``: that of ``torch.autocast`` where it is on, which
    leaves float64 alone.
    """
    device = x.device.type
    low = x.dtype != torch.float64 and device != "meta" and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if low else x.dtype
