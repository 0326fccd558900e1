"""A step of EM distillation against its network passes: ``python -m
experiments.benchmarks.distilling``

A small UNet on 28x28 images is teacher, student and fake, batch 8. With K Langevin steps the
passes are K forward and backward ones of the student, 2 K of the denoisers, and those of the two
losses.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch

from experiments.benchmarks.timing import Contestants, Ratios, compare, measured
from latent_ebm.denoisers import Preconditioned
from latent_ebm.distillation import EMDistillation
from latent_ebm.networks import UNet
from samplers import Langevin, VPCosine

SHAPE, BATCH, CHANNELS, LANGEVIN = (1, 28, 28), 8, 16, (1, 16)
Shape = tuple[int, int, int]


def passes(
    teacher: Preconditioned,
    fake: Preconditioned,
    student: torch.nn.Module,
    steps: int,
    x: torch.Tensor,
) -> Callable[[], None]:
    """The networks alone, at rows like ``x``."""
    t = torch.full((len(x),), 0.5)

    def run() -> None:
        with torch.no_grad():
            student(x)
        fake(x, t).square().sum().backward()
        for _ in range(steps):
            z = x.clone().requires_grad_()
            torch.autograd.grad(student(z), z, x)
            with torch.no_grad():
                teacher(x, t), fake(x, t)  # pyright: ignore[reportUnusedExpression]
        student(x).square().sum().backward()

    return run


def contestants(
    num_steps: int, shape: Shape = SHAPE, channels: int = CHANNELS, batch_size: int = BATCH
) -> Contestants:
    """A whole training step, optimiser included, and its passes."""
    teacher, student = (
        Preconditioned(UNet(shape, channels), VPCosine()),
        OneStepUNet(shape, channels),
    )
    sampler = Langevin(0.16, num_steps)
    rule = EMDistillation(teacher, student, None, shape, torch.optim.Adam, sampler)
    optimizer: Any = rule.configure_optimizers()
    batch = torch.randn(batch_size, *shape)

    def whole() -> None:
        loss = torch.stack(list(rule.losses(batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    fake = deepcopy(teacher).requires_grad_()
    alone = passes(teacher, fake, deepcopy(student), num_steps, batch)
    return {"passes": alone, "step": whole}


def step(num_steps: int) -> Ratios:
    """CPU time of both."""
    return compare(contestants(num_steps), "passes")


class OneStepUNet(torch.nn.Module):
    """A generator of the shape of a denoiser."""

    def __init__(self, shape: Shape, channels: int) -> None:
        super().__init__()
        self.network = UNet(shape, channels)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Images (batch, \\*shape) of z (batch, \\*shape)."""
        return self.network(z, z.new_zeros(len(z)))


def main() -> None:
    for num_steps in LANGEVIN:
        measured(
            f"distilling-{num_steps}", partial(step, num_steps), batch=BATCH, channels=CHANNELS
        )


if __name__ == "__main__":
    main()
