"""A step of EM distillation against its network passes: ``python -m experiments.benchmarks.distilling``

A small UNet on 28x28 images is teacher, student and fake, batch 8. With K Langevin steps the passes are K forward and
backward ones of the student, 2 K of the denoisers, and those of the two losses.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch

from experiments.benchmarks.timing import Ratios, compare, measured
from latent_ebm.denoisers import Preconditioned
from latent_ebm.distillation import EMDistillation
from latent_ebm.networks import UNet
from samplers import Langevin, VPCosine

SHAPE, BATCH, CHANNELS, LANGEVIN = (1, 28, 28), 8, 16, (1, 16)


def passes(teacher: Preconditioned, fake: Preconditioned, student: torch.nn.Module, steps: int) -> Callable[[], None]:
    """The networks alone."""
    x, t = torch.randn(BATCH, *SHAPE), torch.full((BATCH,), 0.5)

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


def step(num_steps: int) -> Ratios:
    """A whole training step, optimiser included, and its passes."""
    teacher, student = Preconditioned(UNet(SHAPE, CHANNELS), VPCosine()), OneStepUNet()
    rule = EMDistillation(
        teacher, student, None, SHAPE, lambda groups: torch.optim.Adam(groups), Langevin(0.16, num_steps)
    )
    optimizer: Any = rule.configure_optimizers()
    batch = torch.zeros(BATCH, *SHAPE)

    def whole() -> None:
        loss = torch.stack(list(rule.losses(batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    fake = deepcopy(teacher).requires_grad_()
    return compare({"passes": passes(rule.teacher, fake, deepcopy(student), num_steps), "step": whole}, "passes")  # pyright: ignore


class OneStepUNet(torch.nn.Module):
    """A generator of the shape of a denoiser."""

    def __init__(self) -> None:
        super().__init__()
        self.network = UNet(SHAPE, CHANNELS)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Images (batch, \\*SHAPE) of z (batch, \\*SHAPE)."""
        return self.network(z, z.new_zeros(len(z)))


def main() -> None:
    for num_steps in LANGEVIN:
        measured(f"distilling-{num_steps}", partial(step, num_steps), batch=BATCH, channels=CHANNELS)


if __name__ == "__main__":
    main()
