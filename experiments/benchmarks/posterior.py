"""A posterior step through a convolutional decoder: ``python -m experiments.benchmarks.posterior``

Batches of 100; the unit is the published loop (arXiv:2006.08205) with the layers of the same
network.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from experiments.benchmarks.chain import make_prior
from experiments.benchmarks.timing import Contestants, Ratios, compare, measured
from latent_ebm import GaussianLikelihood, LatentModel
from latent_ebm.networks import ConvDecoder, EnergyMLP
from latent_ebm.networks.convnet import base_size
from samplers import Langevin, LowPrecision

DIM, BATCH, SCALE, STEP_SIZE, STEPS = 100, 100, 0.3, 0.005, 10
SETTINGS = {
    "28x28-16": ((1, 28, 28), 16),
    "28x28-64": ((1, 28, 28), 64),
    "32x32-64": ((3, 32, 32), 64),
}


def published(
    energy: EnergyMLP, decoder: nn.Module, x: Tensor, z: Tensor, steps: int
) -> Callable[[], Tensor]:
    """The posterior chain as published."""
    s = math.sqrt(2 * STEP_SIZE)

    def run() -> Tensor:
        y = z.clone().detach().requires_grad_()
        for _ in range(steps):
            log_lkhd = 1.0 / (2.0 * SCALE * SCALE) * (decoder(y) - x).square().sum()
            (grad_g,) = torch.autograd.grad(log_lkhd, y)
            (grad_e,) = torch.autograd.grad(energy(y).sum(), y)
            y.data = y.data - 0.5 * s * s * (grad_g + grad_e + 1.0 * y.data)
            y.data += s * torch.randn_like(y).data
        return y.detach()

    return run


def plain_decoder(shape: Sequence[int], channels: int) -> nn.Module:
    """The layers of ``ConvDecoder`` for images of 28 pixels or more, as one would write them."""
    size, halvings = base_size(shape)
    widths = [channels * 2**k for k in range(halvings, 0, -1)]
    layers = [
        nn.Linear(DIM, widths[0] * size**2),
        nn.Unflatten(1, (widths[0], size, size)),
        nn.GELU(),
    ]
    for wide, narrow in pairwise(widths):
        layers += [nn.ConvTranspose2d(wide, narrow, 4, 2, 1), nn.GELU()]
    last = nn.Conv2d(widths[-1], 4 * shape[0], 3, padding=1)
    return nn.Sequential(*layers, last, nn.PixelShuffle(2), nn.Tanh())


def passes(decoder: nn.Module, x: Tensor, z: Tensor) -> Callable[[], None]:
    """Forward passes and gradients in z of one decoder, nothing else."""

    def run() -> None:
        for _ in range(STEPS):
            y = z.clone().requires_grad_()
            torch.autograd.grad(decoder(y), y, x)

    return run


def contestants(shape: tuple[int, int, int], channels: int) -> Contestants:
    """All contestants with one decoder."""
    prior = make_prior().requires_grad_(True)
    decoder, plain = ConvDecoder(DIM, shape, channels), plain_decoder(shape, channels)
    model = LatentModel(prior, GaussianLikelihood(decoder, SCALE))
    x, z = torch.rand(BATCH, *shape) * 2 - 1, torch.randn(BATCH, DIM)
    log_posterior, sampler = model.log_posterior(x), Langevin(STEP_SIZE, STEPS)
    return {
        "published loop": published(prior.network, plain, x, z, STEPS),  # pyright: ignore[reportArgumentType]
        "forward and input gradient": passes(plain, x, z),
        "the same, ConvDecoder": passes(decoder, x, z),
        "latent-ebm": partial(sampler.sample, log_posterior, z),
        "latent-ebm, bfloat16": partial(LowPrecision(sampler).sample, log_posterior, z),
    }


def step(shape: tuple[int, int, int], channels: int) -> Ratios:
    """CPU time of all contestants with one decoder."""
    return compare(contestants(shape, channels), "published loop")


def main() -> None:
    for name, setting in SETTINGS.items():
        measured(f"posterior-{name}", partial(step, *setting), batch=BATCH, dim=DIM, steps=STEPS)


if __name__ == "__main__":
    main()
