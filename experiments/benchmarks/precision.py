"""What bfloat16 does to a chain's distribution: ``python -m experiments.benchmarks.precision``

60 Langevin steps in an energy prior with relief (16 dimensions), 4,000 chains. The distributions
in float32 and in bfloat16 are compared with that of other chains in float32, so that the first row
of a pair shows the effect of chance.
"""

import torch
from torch import Tensor

from experiments.benchmarks.chain import make_prior
from experiments.benchmarks.timing import Ratios, measured
from latent_ebm import EnergyPrior
from samplers import LowPrecision, Sampler

DIM, CHAINS, ROUNDS, RELIEF = 16, 4000, 7, 2.0


def steep_prior() -> EnergyPrior:
    """Weights that have grown, as they do in training."""
    prior = make_prior(dim=DIM)
    for parameter in prior.network.parameters():
        parameter.mul_(RELIEF)
    return prior


def difference(prior: EnergyPrior, z: Tensor, reference: Tensor) -> tuple[float, float]:
    """Mean energy against that of ``reference`` in its standard deviations, and ratio of the mean
    variances.
    """
    energy, wanted = prior.network(z), prior.network(reference)
    return ((energy.mean() - wanted.mean()) / wanted.std()).item(), (
        z.var(0).mean() / reference.var(0).mean()
    ).item()


@torch.no_grad()
def law() -> Ratios:
    """Lowest, median and highest over seeds."""
    prior = steep_prior()
    samplers: dict[str, Sampler] = {
        "float32": prior.sampler,
        "bfloat16": LowPrecision(prior.sampler),
    }
    found: dict[str, list[float]] = {}
    for seed in range(ROUNDS):
        torch.manual_seed(seed)
        reference = prior.sampler.sample(prior, torch.randn(CHAINS, DIM))
        for name, sampler in samplers.items():
            shift, ratio = difference(
                prior, sampler.sample(prior, torch.randn(CHAINS, DIM)), reference
            )
            found.setdefault(f"{name}: shift of the mean energy / its deviation", []).append(shift)
            found.setdefault(f"{name}: variance", []).append(ratio)
    spread = {name: sorted(values) for name, values in found.items()}
    return {
        name: (values[0], values[len(values) // 2], values[-1]) for name, values in spread.items()
    }


def main() -> None:
    measured("precision", law, dim=DIM, chains=CHAINS, relief=RELIEF)


if __name__ == "__main__":
    main()
