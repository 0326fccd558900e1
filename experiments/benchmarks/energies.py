"""Langevin chains on energies in the plane, 10,000 chains: ``python -m
experiments.benchmarks.energies``

The unit is drawing the noise. Energies: the double well ``2 sum_i (x_i^2 - 1)^2``, and eight
Gaussians on a ring.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks import peers
from experiments.benchmarks.timing import Ratios, available, compare, measured
from samplers import Density, GaussianMixture, Langevin, LogDensity

CHAINS, STEPS, STEP_SIZE, RADIUS, SCALE = 10_000, 50, 0.01, 2.0, 0.3
ANGLES = [2 * math.pi * k / 8 for k in range(8)]


class DoubleWell(Density):
    """Log-density with four modes, and its gradient."""

    def __call__(self, x: Tensor) -> Tensor:
        return -2 * (x.square() - 1).square().sum(1)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gap = x.square() - 1
        return -2 * gap.square().sum(1), -8 * x * gap

    def workspace(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        out = torch.empty_like(x)
        return lambda x: torch.mul(x, x, out=out).sub_(1).mul_(x).mul_(-8)


def eight() -> GaussianMixture:
    """The mixture."""
    means = [[RADIUS * math.cos(a), RADIUS * math.sin(a)] for a in ANGLES]
    return GaussianMixture([1 / 8] * 8, means, [SCALE] * 8)


def jax_energy(name: str) -> Any:
    """The log-density as a JAX function of a batch."""
    import jax  # pyright: ignore[reportMissingImports]
    from jax import numpy as jnp  # pyright: ignore[reportMissingImports]

    if name == "double_well":
        return lambda x: -2 * ((x**2 - 1) ** 2).sum(-1)
    means = jnp.asarray([[RADIUS * math.cos(a), RADIUS * math.sin(a)] for a in ANGLES])
    return lambda x: jax.nn.logsumexp(
        -0.5 * ((x[:, None] - means) ** 2).sum(-1) / SCALE**2, axis=1
    )


def chain(name: str, log_density: LogDensity) -> Ratios:
    """All contestants on one energy."""
    x, noise = torch.randn(CHAINS, 2), torch.empty(CHAINS, 2)
    sampler, settings = Langevin(STEP_SIZE, STEPS), (x, STEP_SIZE, STEPS)

    def draw() -> None:
        for _ in range(STEPS):
            noise.normal_()

    contestants = {
        "noise": draw,
        "latent-ebm": partial(sampler.sample, log_density, x),
        "latent-ebm, autograd": partial(sampler.sample, lambda x: log_density(x), x),
        "autograd, plain loop": peers.plain_loop(log_density, *settings),
    }
    contestants |= available(
        {
            "torchebm": lambda: peers.torchebm(lambda x: -log_density(x), *settings),
            "ebmkit": lambda: peers.ebmkit(lambda x: -log_density(x), *settings),
            "blackjax SGLD": lambda: peers.blackjax_sgld(jax_energy(name), *settings),
        }
    )
    return compare(contestants, "noise")


def main() -> None:
    config = {"chains": CHAINS, "steps": STEPS, "step_size": STEP_SIZE}
    for name, log_density in {"double_well": DoubleWell(), "eight_gaussians": eight()}.items():
        measured(f"energies-{name}", partial(chain, name, log_density), **config)


if __name__ == "__main__":
    main()
