"""Toy densities in two dimensions, where a minute of training and a plot show what a method does.

Training, validation and test rows are independent draws from the density, within about
[-3, 3]^2. The label is the component that a row was drawn from.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from latent_ebm.data.base import DataModule, Pair, make_generator
from samplers.checks import check_counts


def _uniform(num: int, generator: Generator) -> Tensor:
    return torch.rand(num, generator=generator)


def _polar(radius: Tensor | float, angle: Tensor) -> Tensor:
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


def _blur(x: Tensor, scale: float, generator: Generator) -> Tensor:
    return x + scale * torch.randn(x.shape, generator=generator)


def moons(num: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Two interleaved half circles of radius 2, blurred by .15."""
    label = torch.randint(2, (num,), generator=generator)
    sign = 1.0 - 2.0 * label
    arc = sign.unsqueeze(1) * (
        _polar(2.0, math.pi * _uniform(num, generator)) - torch.tensor([1.0, 0.5])
    )
    return _blur(arc, 0.15, generator), label


def rings(num: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Circles of radius 1 and 2.2, equally likely, blurred by .1."""
    label = torch.randint(2, (num,), generator=generator)
    circle = _polar(1.0 + 1.2 * label, 2 * math.pi * _uniform(num, generator))
    return _blur(circle, 0.1, generator), label


def eight_gaussians(num: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Eight Gaussians of scale .2 on a circle of radius 2."""
    label = torch.randint(8, (num,), generator=generator)
    return _blur(_polar(2.0, math.pi / 4 * label), 0.2, generator), label


def gaussian_grid(num: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """25 Gaussians of scale .12 on a square grid of spacing 1.2."""
    label = torch.randint(25, (num,), generator=generator)
    return _blur(1.2 * (torch.stack([label // 5, label % 5], 1) - 2), 0.12, generator), label


def checkerboard(num: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Uniform on the eight dark squares, of side 1, of a 4 x 4 board."""
    label = torch.randint(8, (num,), generator=generator)
    row = label // 2
    corner = torch.stack([2 * (label % 2) + row % 2, row], 1) - 2.0
    return corner + torch.rand(num, 2, generator=generator), label


def spiral(num: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Two arms that wind one and a half times around the origin, blurred by .08."""
    label = torch.randint(2, (num,), generator=generator)
    turn = _uniform(num, generator).sqrt()
    arm = _polar(2.5 * turn, math.pi * (3 * turn + label))
    return _blur(arm, 0.08, generator), label


TOYS: dict[str, Callable[[int, Generator], tuple[Tensor, Tensor]]] = {
    "moons": moons,
    "rings": rings,
    "eight_gaussians": eight_gaussians,
    "gaussian_grid": gaussian_grid,
    "checkerboard": checkerboard,
    "spiral": spiral,
}


class Toy2D(DataModule):
    """``num`` training rows (2,) of the density ``name``, and a fifth of that number each for
    validation and for test.
    """

    def __init__(
        self, name: str = "moons", num: int = 10_000, batch_size: int = 100, seed: int = 0
    ) -> None:
        super().__init__(batch_size, seed)
        if name not in TOYS:
            raise ValueError(f"name must be one of {', '.join(TOYS)}, got {name!r}")
        check_counts(self, num=num)
        self.toy, self.num = name, num

    def load(self) -> tuple[Pair, Pair, Pair]:
        num_held = max(1, self.num // 5)
        draw = TOYS[self.toy]
        train, val, test = (
            draw(num, make_generator(self.seed, stream))
            for stream, num in enumerate((self.num, num_held, num_held))
        )
        return train, val, test
