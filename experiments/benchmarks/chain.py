"""A Langevin step in latent space, its own matrix products, and peers: ``python -m
experiments.benchmarks.chain``

Energy network 100-200-200-1 and the Gaussian term; 60 steps a chain. The unit is the six products
that a value and a gradient take, the same number of times.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from experiments.benchmarks import peers
from experiments.benchmarks.timing import (
    Contestants,
    Ratios,
    available,
    compare,
    measured,
    repeated,
)
from latent_ebm import EnergyPrior, GaussianPrior
from latent_ebm.networks import EnergyMLP
from samplers import Langevin, LowPrecision

DIM, STEPS, STEP_SIZE = 100, 60, 0.08
CHAINS, ACTIVATIONS = (1000, 100), ("gelu", "leaky_relu")


def make_prior(activation: str = "gelu", dim: int = DIM) -> EnergyPrior:
    """An energy prior as it starts, parameters frozen."""
    torch.manual_seed(0)
    prior = EnergyPrior(
        EnergyMLP(dim, (200, 200), activation), GaussianPrior(dim), Langevin(STEP_SIZE, STEPS)
    )
    return prior.requires_grad_(False)


def floor(network: EnergyMLP, chains: int, steps: int = STEPS) -> Callable[[], Any]:
    """The products of ``steps`` values and gradients."""
    w1, w2, w3 = (layer.weight.detach() for layer in cast(Iterable[nn.Linear], network.layers))
    z, h, one = (
        torch.randn(chains, w1.shape[1]),
        torch.randn(chains, w2.shape[1]),
        torch.randn(chains, 1),
    )

    def products() -> Any:
        last = None
        for _ in range(steps):
            last = z @ w1.mT, h @ w2.mT, h @ w3.mT, one @ w3, h @ w2, h @ w1
        return last

    return products


def contestants(activation: str, chains: int) -> Contestants:
    """All contestants at one setting."""
    prior = make_prior(activation)
    network, z = prior.network, torch.randn(chains, DIM)
    settings = (z, STEP_SIZE, STEPS)

    def energy(z: Tensor) -> Tensor:
        return -prior.log_density(z)

    found = {
        "products": floor(network, chains),  # pyright: ignore[reportArgumentType]
        "latent-ebm": partial(prior.sampler.sample, prior, z),
        "latent-ebm, bfloat16": partial(LowPrecision(prior.sampler).sample, prior, z),
        "autograd, plain loop": peers.plain_loop(prior.log_density, *settings),
        "autograd, torch.compile": peers.compiled_step(prior.log_density, *settings),
        "published loop": peers.published_loop(
            make_prior(activation).network.requires_grad_(True),  # pyright: ignore
            *settings,
        ),
    }
    return found | available(
        {
            "torchebm": lambda: peers.torchebm(energy, *settings),
            "ebmkit": lambda: peers.ebmkit(energy, *settings),
            "blackjax SGLD": lambda: peers.blackjax_sgld(peers.jax_prior(network), *settings),  # pyright: ignore
        }
    )


def chain(activation: str, chains: int) -> Ratios:
    """CPU time of 1,000 chains, in turns of ``chains``."""
    runs = contestants(activation, chains).items()
    return compare({name: repeated(run, 1000 // chains) for name, run in runs}, "products")


def main() -> None:
    for activation in ACTIVATIONS:
        for chains in CHAINS:
            name = f"chain-{activation}-{chains}"
            measured(
                name, partial(chain, activation, chains), dim=DIM, steps=STEPS, step_size=STEP_SIZE
            )


if __name__ == "__main__":
    main()
