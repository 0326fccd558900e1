"""One training step of each rule against the published algorithm: ``python -m
experiments.benchmarks.training``

28x28 images in batches of 100, 60 prior steps and 40 posterior steps, the same networks; the
published algorithm (arXiv:2006.08205) is written plainly. ``ratio`` draws no prior chain in a
step; moving its pool when a stage closes is the row ``pool``, in prior chains of one step of
maximum likelihood.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks.peers import published_loop
from experiments.benchmarks.posterior import plain_decoder, published
from experiments.benchmarks.timing import Contestants, Ratios, compare, measured
from latent_ebm import (
    EnergyPrior,
    GaussianLikelihood,
    GaussianPrior,
    LatentModel,
    MCMCPosterior,
    RatioPrior,
)
from latent_ebm.learning import MultiStageRatio, RatioStages, ShortRunMLE
from latent_ebm.learning.latent import LatentRule
from latent_ebm.networks import ConvDecoder, EnergyMLP
from samplers import Langevin, LowPrecision, PersistentChains, Sampler

DIM, BATCH, SHAPE, CHANNELS, SCALE, STAGES = 100, 100, (1, 28, 28), (16, 64), 0.3, 3
PRIOR, STEP_SIZE = Langevin(0.08, 60), 0.005
Shape = tuple[int, int, int]


def published_step(x: Tensor, channels: int, steps: int) -> Callable[[], None]:
    """Algorithm 1 of the paper with Adam and so many posterior ``steps``."""
    energy, decoder = EnergyMLP(DIM), plain_decoder(x.shape[1:], channels)
    adam_e, adam_g = (torch.optim.Adam(m.parameters(), lr=1e-4) for m in (energy, decoder))

    def run() -> None:
        z_prior = published_loop(
            energy, torch.randn(BATCH, DIM), PRIOR.step_size, PRIOR.num_steps
        )()
        z_posterior = published(energy, decoder, x, torch.randn(BATCH, DIM), steps)()
        adam_g.zero_grad()
        ((decoder(z_posterior) - x).square().sum() / (2 * SCALE**2) / BATCH).backward()
        adam_g.step()
        adam_e.zero_grad()
        (energy(z_posterior).mean() - energy(z_prior).mean()).backward()
        adam_e.step()

    return run


def rule_step(rule: LatentRule, x: Tensor) -> Callable[[], None]:
    """A step of a learning rule, without a trainer."""
    optimizer: Any = rule.configure_optimizers()
    batch = (x, torch.zeros(len(x)), torch.arange(len(x)))

    def run() -> None:
        loss = torch.stack(list(rule.losses(batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def adam(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=1e-4)


def likelihood(shape: Shape = SHAPE, channels: int = CHANNELS[0]) -> GaussianLikelihood:
    return GaussianLikelihood(ConvDecoder(DIM, shape, channels), SCALE)


def mle(
    prior: Sampler, posterior: MCMCPosterior, shape: Shape = SHAPE, channels: int = CHANNELS[0]
) -> ShortRunMLE:
    """Maximum likelihood."""
    energy = EnergyPrior(EnergyMLP(DIM), GaussianPrior(DIM), prior)
    return ShortRunMLE(LatentModel(energy, likelihood(shape, channels)), posterior, adam)


def ratio(
    posterior: MCMCPosterior, shape: Shape = SHAPE, channels: int = CHANNELS[0]
) -> MultiStageRatio:
    """Ratio estimation after ``STAGES`` closed stages."""
    prior = RatioPrior(GaussianPrior(DIM), [], PRIOR)
    for _ in range(STAGES):
        prior.append(EnergyMLP(DIM))
    stages = RatioStages(EnergyMLP(DIM), DIM, 4000)
    stages.start(prior.prefix(0))
    return MultiStageRatio(
        LatentModel(prior, likelihood(shape, channels)), posterior, stages, adam
    )


def contestants(channels: int, shape: Shape = SHAPE, steps: int = 40) -> Contestants:
    """All contestants with a decoder of so many ``channels`` and so many posterior ``steps``."""
    x, posterior = torch.rand(BATCH, *shape) * 2 - 1, Langevin(STEP_SIZE, steps)
    half, short = LowPrecision(posterior), LowPrecision(Langevin(STEP_SIZE, 10))
    rules = {
        "mle": mle(PRIOR, MCMCPosterior(posterior), shape, channels),
        "mle, bfloat16": mle(LowPrecision(PRIOR), MCMCPosterior(half), shape, channels),
        "ratio": ratio(MCMCPosterior(posterior), shape, channels),
        "ratio, bfloat16": ratio(MCMCPosterior(half), shape, channels),
        "ratio, bfloat16, persistent chains of 10 steps": ratio(
            MCMCPosterior(short, PersistentChains(BATCH, DIM)), shape, channels
        ),
    }
    runs = {name: rule_step(rule, x) for name, rule in rules.items()}
    return {"published algorithm": published_step(x, channels, steps), **runs}


def training(channels: int) -> Ratios:
    """CPU time of all contestants."""
    return compare(contestants(channels), "published algorithm")


def pool() -> Ratios:
    """Moving the pool of 4,000 when a stage closes, in prior chains of one step of maximum
    likelihood.
    """
    energy = mle(PRIOR, MCMCPosterior(Langevin(STEP_SIZE, 40))).model.prior
    prior: Any = ratio(MCMCPosterior(Langevin(STEP_SIZE, 40))).model.prior
    particles = torch.randn(4000, DIM)
    contestants = {
        "prior chain of mle": partial(energy.sample, BATCH),
        "pool": lambda: PRIOR.sample(prior, particles),
    }
    return compare(contestants, "prior chain of mle")


def main() -> None:
    config = {"dim": DIM, "batch": BATCH, "stages": STAGES}
    for channels in CHANNELS:
        measured(f"training-step-{channels}", partial(training, channels), **config)
    measured("training-pool", pool, **config)


if __name__ == "__main__":
    main()
