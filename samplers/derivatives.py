r"""Derivatives by automatic differentiation, for samplers and flows: gradients of log-densities,
and the divergence of a field.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def differentiate(
    value: Tensor, x: Tensor, name: str = "log_density", *, create_graph: bool = False
) -> Tensor:
    """The gradient, like ``x`` (chains, \\*event), of ``value`` (chains,), which ``name`` returned
    at ``x``.

    Raises ``ValueError`` if ``value`` has another shape or no gradient in ``x``: a constant cannot
    be told from a value that was detached by mistake.
    """
    check_value(value, x, name)
    total, grad = value.sum(), None
    if value.requires_grad:
        (grad,) = torch.autograd.grad(total, x, create_graph=create_graph, allow_unused=True)
    if grad is None:
        raise ValueError(
            f"{name} must return a value with a gradient in its argument, got one that is "
            "detached from it; write one that is constant on purpose as 0 * x.flatten(1).sum(1)"
        )
    return grad


def value_and_divergence(
    field: Callable[[Tensor], Tensor], x: Tensor, signs: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``v(x)`` and the trace (batch,) of its Jacobian at ``x`` (batch, \\*event).

    The exact trace, or, with ``signs`` (probes, batch, \\*event), Hutchinson's mean of ``u^T J
    u``.
    """
    directions = unit_vectors(x) if signs is None else signs
    value, products = jacobian_products(field, x, directions)
    traces = (directions * products).flatten(2).sum(2)
    return value, traces.sum(0) if signs is None else traces.mean(0)


def jacobian_products(
    field: Callable[[Tensor], Tensor], x: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """``v(x)`` like ``x`` (batch, \\*event), and ``u^T J`` for all ``directions`` u (k, batch,
    \\*event) in one pass.
    """
    check_recording()
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if keep and x.requires_grad else x.detach().requires_grad_()
        value = field(x)
    if not value.requires_grad:  # a constant field
        return value, torch.zeros_like(directions)
    (products,) = torch.autograd.grad(
        value, x, directions, is_grads_batched=True, create_graph=keep, materialize_grads=True
    )
    return (value if keep else value.detach()), products


def unit_vectors(x: Tensor) -> Tensor:
    """The axes of an event of ``x`` (batch, \\*event), for every row: (dim, batch, \\*event)."""
    event = x.shape[1:]
    return (
        torch.eye(event.numel(), dtype=x.dtype, device=x.device)
        .view(-1, 1, *event)
        .expand(-1, *x.shape)
    )


def check_recording() -> None:
    """Raise ``RuntimeError`` under ``torch.inference_mode``, where no gradient can be recorded."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "a sampler needs gradients of log_density, which torch.inference_mode() forbids: "
            "use torch.no_grad(), or Trainer(inference_mode=False)"
        )


def check_value(value: Tensor, x: Tensor, name: str = "log_density") -> None:
    """Raise ``ValueError`` unless ``value``, which ``name`` returned at ``x`` (chains, \\*event),
    is a real tensor of shape (chains,).
    """
    if not isinstance(value, Tensor) or value.is_complex():
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name} must return a tensor of real numbers, one per chain, got {got}")
    if value.shape != x.shape[:1]:
        raise ValueError(
            f"{name} must return shape {tuple(x.shape[:1])}, one number per chain, got "
            f"{tuple(value.shape)}"
        )
