"""Intervals of log Z on densities whose log Z is known: ``python -m experiments.normalisers``

Each problem is a random density over a base N(0, I) in 2 to 20 dimensions. Its draws, like those
of approximate posteriors, reach all modes but have wrong shares: all modes the same. In the
*planted* problems a narrow bump lies 3.5 to 5 away from the base. It has 1 to 5 nats of mass, and
the chain of the prior does not reach it. They are measured with draws that know of the bump and
without any.
"""

import argparse
import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from experiments.common import cached
from latent_ebm.evaluation import prior_log_z
from latent_ebm.priors import GaussianPrior, Prior, RatioPrior
from samplers import HMC, MALA, Banana, Density, Gaussian, GaussianMixture
from samplers.densities import value_and_grad

KINDS, DIMS = ("gaussian", "mixture", "banana", "stages", "planted"), (2, 5, 10, 20)
CHAIN, NUM_DRAWS = MALA(0.05, 30), 500


class Known(Prior):
    """A prior whose log-density is a ``target``, drawn by a chain from the base."""

    def __init__(self, target: Density, dim: int) -> None:
        super().__init__()
        self.target, self.base = target, GaussianPrior(dim).double()

    def log_density(self, z: Tensor) -> Tensor:
        return self.target(z)

    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """As the target has it."""
        return value_and_grad(self.target, z)

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        return CHAIN.sample(self, self.base.sample(num, generator=generator), generator=generator)


class Share(nn.Module):
    """Half of the log-ratio of a ``target`` to the base."""

    def __init__(self, target: Density, base: Prior) -> None:
        super().__init__()
        self.target, self.base = target, base

    def forward(self, z: Tensor) -> Tensor:
        return (self.target(z) - self.base(z)) / 2


class Beside(Density):
    """``first`` on the first two coordinates beside N(0, I) on the others."""

    def __init__(self, first: Banana, dim: int) -> None:
        self.first, self.dim = first, dim
        self.log_z = first.log_z + (dim - 2) / 2 * math.log(2 * math.pi)

    def __call__(self, x: Tensor) -> Tensor:
        return self.first(x[:, :2]) - 0.5 * x[:, 2:].square().sum(1)

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Exact draws (num, dim)."""
        rest = torch.empty(num, self.dim - 2, dtype=torch.float64).normal_(generator=generator)
        return torch.cat([self.first.sample(num, generator=generator), rest], 1)


def problem(kind: str, dim: int, generator: torch.Generator) -> tuple[Any, Any]:
    """A target with ``log_z``, and a density like it that gives all modes the same share."""

    def normal(*shape: int) -> Tensor:
        return torch.empty(*shape, dtype=torch.float64).normal_(generator=generator)

    def uniform(low: float, high: float, num: int = 1) -> Tensor:
        return torch.empty(num, dtype=torch.float64).uniform_(low, high, generator=generator)

    if kind == "gaussian":
        root = 0.1 * normal(dim, dim) / dim**0.5 + uniform(0.4, 1.2) * torch.eye(dim).double()
        target = Gaussian(0.7 * normal(dim), root @ root.mT)
        return target, target
    if kind == "banana":
        target = Beside(Banana(uniform(0.3, 1).item(), uniform(0.4, 1, 2)), dim)
        return target, target
    if kind == "planted":
        place = normal(dim)
        means = torch.stack([torch.zeros_like(place), uniform(3.5, 5) * place / place.norm()])
        weights = torch.cat([torch.ones(1).double(), uniform(1, 5).exp()])
        scales = torch.cat([torch.ones(1).double(), uniform(0.15, 0.3)])
    else:
        means, weights = 1.2 * normal(3, dim), uniform(0.2, 3, 3)
        scales = uniform(0.3, 0.9, 3)
    flat = GaussianMixture(torch.ones_like(weights), means, scales)
    return GaussianMixture(weights, means, scales), flat


def run(kind: str, dim: int, seed: int, with_draws: bool) -> dict[str, Any]:
    """One interval, beside the truth."""
    generator = torch.Generator().manual_seed(seed)
    target, flat = problem(kind, dim, generator)
    prior: Prior = Known(target, dim)
    if kind == "stages":
        prior = RatioPrior(prior.base, [Share(target, prior.base) for _ in range(2)], CHAIN)
        prior.log_z_steps = prior.log_z_steps + target.log_z.item() / 2
    draws = flat.sample(NUM_DRAWS, generator=generator) if with_draws else None
    begin = time.process_time()
    found = prior_log_z(prior, HMC(0.1, 5, 2), draws, num_rungs=40, generator=generator)
    seconds = time.process_time() - begin
    return {
        "truth": target.log_z.item(),
        "estimate": found.estimate,
        "lower": found.lower,
        "upper": found.upper,
        "from_base": found.from_base,
        "reasons": " | ".join(found.reasons),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", type=int, default=25, help="of each kind and dimension")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for kind in KINDS:
        for dim in DIMS:
            for seed in range(args.problems):
                for with_draws in (True, False)[: 2 if kind == "planted" else 1]:
                    config = {"kind": kind, "dim": dim, "seed": seed, "draws": with_draws}
                    name = f"{kind}-{dim}-{'draws' if with_draws else 'blind'}-{seed}"
                    cached(
                        f"normalisers/{name}",
                        {**config, "version": 2},
                        lambda config=config: run(*config.values()),
                    )
