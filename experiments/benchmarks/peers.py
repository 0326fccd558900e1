"""Chains of other libraries: each function returns a callable that runs one. They import their
library themselves.
"""

import math
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from latent_ebm.networks import EnergyMLP

os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)
Energy = Callable[[Tensor], Tensor]


def plain_loop(
    log_density: Energy, x: Tensor, step_size: float, num_steps: int
) -> Callable[[], Tensor]:
    """What one writes first: autograd, and a Langevin step."""

    def run() -> Tensor:
        z = x.clone()
        for _ in range(num_steps):
            z = z.detach().requires_grad_()
            (grad,) = torch.autograd.grad(log_density(z).sum(), z)
            z = z + step_size * grad + math.sqrt(2 * step_size) * torch.randn_like(z)
        return z.detach()

    return run


def compiled_step(
    log_density: Energy, x: Tensor, step_size: float, num_steps: int, mode: str = "default"
) -> Callable[[], Tensor]:
    """A whole step by ``torch.compile``, but for its noise, which is drawn outside."""

    @partial(torch.compile, mode=mode)
    def step(z: Tensor, noise: Tensor) -> Tensor:
        grad = torch.func.grad(lambda z: log_density(z).sum())(z)
        return z + step_size * grad + math.sqrt(2 * step_size) * noise

    @torch.no_grad()
    def run() -> Tensor:
        z, noise = x, torch.empty_like(x)
        for _ in range(num_steps):
            z = step(z, noise.normal_())
        return z

    return run


def published_loop(
    network: EnergyMLP, x: Tensor, step_size: float, num_steps: int
) -> Callable[[], Tensor]:
    """The prior chain as published with arXiv:2006.08205, in the papers' step s."""
    s = math.sqrt(2 * step_size)

    def run() -> Tensor:
        z = x.clone().detach()
        z.requires_grad = True
        for _ in range(num_steps):
            (grad,) = torch.autograd.grad(network(z).sum(), z)
            z.data = z.data - 0.5 * s * s * (grad + 1.0 * z.data)
            z.data += s * torch.randn_like(z).data
        return z.detach()

    return run


def torchebm(energy: Energy, x: Tensor, step_size: float, num_steps: int) -> Callable[[], Any]:
    """torchebm's LangevinDynamics."""
    from torchebm.core import BaseModel  # pyright: ignore[reportMissingImports]
    from torchebm.samplers import LangevinDynamics  # pyright: ignore[reportMissingImports]

    class Model(BaseModel):
        def forward(self, x: Tensor) -> Tensor:
            return energy(x)

    sampler = LangevinDynamics(Model(), step_size=step_size)
    return lambda: sampler.sample(x, n_steps=num_steps)


def ebmkit(energy: Energy, x: Tensor, step_size: float, num_steps: int) -> Callable[[], Any]:
    """ebmkit's LangevinDynamics."""
    from ebm.samplers import LangevinDynamics  # pyright: ignore[reportMissingImports]

    sampler = LangevinDynamics(step_size, num_steps)
    return lambda: sampler.sample(energy, x)


def blackjax_sgld(
    log_density: Callable[[Any], Any], x: Tensor, step_size: float, num_steps: int
) -> Callable[[], Any]:
    """blackjax's SGLD kernel with exact gradients, scanned and compiled; ``log_density`` is a JAX
    function of a batch.
    """
    import blackjax  # pyright: ignore[reportMissingImports]
    import jax  # pyright: ignore[reportMissingImports]

    kernel = blackjax.sgld(lambda position, _: jax.grad(lambda p: log_density(p).sum())(position))

    def one(position: Any, key: Any) -> tuple[Any, None]:
        return kernel.step(key, position, None, step_size), None

    @jax.jit
    def run(key: Any, position: Any) -> Any:
        return jax.lax.scan(one, position, jax.random.split(key, num_steps))[0]

    start = jax.numpy.asarray(x.cpu().numpy())
    return lambda: run(jax.random.key(0), start).block_until_ready()


def jax_prior(network: EnergyMLP) -> Callable[[Any], Any]:
    """The log-density ``-|z|^2 / 2 - E(z)`` of a batch as a JAX function."""
    import jax  # pyright: ignore[reportMissingImports]
    from jax import numpy as jnp  # pyright: ignore[reportMissingImports]

    layers = [layer for layer in network.layers if isinstance(layer, nn.Linear)]
    parts = [
        (jnp.asarray(m.weight.numpy(force=True)), jnp.asarray(m.bias.numpy(force=True)))
        for m in layers
    ]
    activation = {
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.2),
    }[network.activation]

    def log_density(z: Any) -> Any:
        h = z
        for weight, bias in parts[:-1]:
            h = activation(h @ weight.T + bias)
        return -0.5 * (z * z).sum(-1) - (h @ parts[-1][0].T + parts[-1][1])[..., 0]

    return log_density
