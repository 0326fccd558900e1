"""What a prior chain's cost grows with: ``python -m experiments.benchmarks.scaling``

CPU time of ten Langevin steps in an energy prior (2 x 200 units) over the number of chains and of
latent dimensions, and of a gradient of a ratio prior over its stages, stacked and one after
another, against the same products in one batch.
"""

from functools import partial
from typing import Any

import torch

from experiments.benchmarks.chain import STEP_SIZE, make_prior
from experiments.benchmarks.timing import Ratios, compare, measured, repeated
from latent_ebm import GaussianPrior, RatioPrior
from latent_ebm.networks import EnergyMLP
from samplers import Langevin, value_and_grad

STEPS, CHAINS, DIMS, STAGES, DIM = (
    10,
    (100, 1000, 10_000, 100_000),
    (8, 32, 128, 512),
    (1, 2, 4, 8),
    100,
)


def over_chains() -> Ratios:
    """Cost a chain, in that of 1,000 chains."""
    prior, sampler = make_prior(), Langevin(STEP_SIZE, STEPS)
    most = max(CHAINS)
    contestants = {}
    for chains in CHAINS:
        run = partial(sampler.sample, prior, torch.randn(chains, DIM))
        contestants[str(chains)] = repeated(run, most // chains // 10 or 1)
    found = compare(contestants, "1000")
    scale = {str(c): c * (most // c // 10 or 1) / (1000 * (most // 1000 // 10)) for c in CHAINS}
    return {name: tuple(v / scale.get(name, 1) for v in row) for name, row in found.items()}  # pyright: ignore


def over_dims() -> Ratios:
    """Cost at 1,000 chains, in that of the smallest dimension."""
    sampler = Langevin(STEP_SIZE, STEPS)
    contestants = {
        str(d): partial(sampler.sample, make_prior(dim=d), torch.randn(1000, d)) for d in DIMS
    }
    return compare(contestants, str(DIMS[0]))


def over_stages(stages: int, chains: int) -> Ratios:
    """Value and gradient of a ratio prior, in the same products as one batch."""
    prior = RatioPrior(
        GaussianPrior(DIM), [EnergyMLP(DIM) for _ in range(stages)], Langevin(STEP_SIZE, 1)
    )
    prior.requires_grad_(False)
    stacked, z = prior.settled(), torch.randn(chains, DIM)
    w1, w2, w3 = (
        torch.randn(stages, 200, DIM),
        torch.randn(stages, 200, 200),
        torch.randn(stages, 1, 200),
    )
    x, h, one = (
        torch.randn(stages, chains, DIM),
        torch.randn(stages, chains, 200),
        torch.randn(stages, chains, 1),
    )

    def products() -> Any:
        return x @ w1.mT, h @ w2.mT, h @ w3.mT, one @ w3, h @ w2, h @ w1

    contestants = {
        "products in one batch": products,
        "stacked": partial(value_and_grad, stacked, z),
        "stacked, in a chain": partial(stacked.workspace(z), z),
        "one after another": partial(value_and_grad, prior, z),
    }
    return compare(
        {name: repeated(run, 2000 // chains) for name, run in contestants.items()},
        "products in one batch",
    )


def main() -> None:
    measured("scaling-chains", over_chains, chains=CHAINS, steps=STEPS)
    measured("scaling-dimensions", over_dims, dims=DIMS, steps=STEPS)
    for chains in (100, 1000):
        for stages in STAGES:
            measured(
                f"scaling-stages-{chains}-{stages}", partial(over_stages, stages, chains), dim=DIM
            )


if __name__ == "__main__":
    main()
