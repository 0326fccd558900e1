r"""A small U-Net for diffusion on images of 8 to 64 pixels a side, ``network(x, noise_level,
label)``.

It has residual blocks ``h + conv(silu(film(norm(conv(silu(norm(h)))))))`` at two resolutions, the
lower one with twice the channels, and skips from the way down to the way up (Ronneberger et al.
2015, arXiv:1505.04597; Ho et al. 2020, arXiv:2006.11239). The noise level, and the label if there
is one, scale and shift the second norm (Dhariwal & Nichol 2021, arXiv:2105.05233). Pixels are
first folded into cells of ``patch x patch``. No map has full resolution, where a usual U-Net
spends most of its time.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from latent_ebm.artefacts import Artefact
from latent_ebm.networks.conditioning import Conditioning, check_pixels
from samplers.checks import check_counts

NUM_GROUPS = 8
Convolution = Callable[[int, int], nn.Module]  # in_channels, out_channels
Layer = TypeVar("Layer", bound=nn.Module)


def convolution(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size of a map."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class Block(nn.Module):
    """Residual block (batch, in, H, W), condition (batch, dim) -> (batch, out, H, W). It starts as
    its shortcut alone.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        condition_dim: Dimension of the condition.
        convolution: Makes the two convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        condition_dim: int,
        convolution: Convolution = convolution,
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(NUM_GROUPS, in_channels)
        self.norm2 = nn.GroupNorm(NUM_GROUPS, out_channels)
        self.conv1 = convolution(in_channels, out_channels)
        self.conv2 = convolution(out_channels, out_channels)
        zeroed([*self.conv2.modules()][-1])
        self.film = nn.Linear(condition_dim, 2 * out_channels)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)
        self.activation = nn.SiLU()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(self.activation(self.norm1(x)))
        h = self.norm2(h) * (1 + scale) + shift
        return self.shortcut(x) + self.conv2(self.activation(h))


def zeroed(layer: Layer) -> Layer:
    """``layer`` with weights and biases 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class UNet(Artefact):
    """Maps images (batch, \\*shape), a noise level (batch,) and a label (batch,) to images (batch,
    \\*shape). Before training the output is 0.

    A label of -1 means that the class is unknown; without labels all classes are unknown.

    Args:
        shape: The shape (C, H, W) of an image; its sides are multiples of ``2 * patch``.
        channels: The number of maps at the higher resolution, a multiple of 8.
        num_classes: The number of classes; null: the network takes no labels.
        patch: The side of the cells: 2 suits images of 28 or 32 pixels a side, 1 those of 8.
        depth: The number of blocks per resolution, on the way down and on the way up.

    Raises:
        ValueError: For numbers that break these rules.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: int = 32,
        num_classes: int | None = None,
        patch: int = 2,
        depth: int = 2,
    ) -> None:
        super().__init__()
        check_counts(self, channels=channels, patch=patch, depth=depth)
        check_pixels(shape, 2 * patch)
        if channels % NUM_GROUPS:
            raise ValueError(f"channels must be a multiple of {NUM_GROUPS}, got {channels}")
        self.shape, self.channels, self.num_classes = tuple(shape), channels, num_classes
        self.patch, self.depth = patch, depth
        dim, cell = 4 * channels, shape[0] * patch**2
        self.condition = Conditioning(dim, num_classes)
        self.enter = nn.Sequential(fold(patch), convolution(cell, channels))
        self.down = blocks(channels, channels, depth, dim)
        self.shrink = nn.Conv2d(channels, 2 * channels, 4, 2, 1)
        self.middle = blocks(2 * channels, 2 * channels, 2 * depth, dim)
        self.grow = nn.ConvTranspose2d(2 * channels, channels, 4, 2, 1)
        self.up = blocks(2 * channels, channels, depth, dim)
        last = zeroed(convolution(channels, cell))
        self.leave = nn.Sequential(
            nn.GroupNorm(NUM_GROUPS, channels), nn.SiLU(), last, unfold(patch)
        )

    def forward(self, x: Tensor, noise_level: Tensor, label: Tensor | None = None) -> Tensor:
        """Images (batch, \\*shape). Raises ``ValueError`` for labels if the network has no
        classes.
        """
        condition = self.condition(noise_level.to(x.dtype), label)
        h = self.enter(x)
        skips = []
        for block in self.down:
            h = block(h, condition)
            skips.append(h)
        h = self.shrink(h)
        for block in self.middle:
            h = block(h, condition)
        h = self.grow(h)
        for block in self.up:
            h = block(torch.cat([h, skips.pop()], 1), condition)
        return self.leave(h)


def fold(patch: int) -> nn.Module:
    """Moves cells of pixels into channels: ``PixelUnshuffle``, also of no rows."""
    return Rearrange("n c (h p) (w q) -> n (c p q) h w", p=patch, q=patch)


def unfold(patch: int) -> nn.Module:
    """Moves channels back into cells of pixels: ``PixelShuffle``, also of no rows."""
    return Rearrange("n (c p q) h w -> n c (h p) (w q)", p=patch, q=patch)


def blocks(in_channels: int, out_channels: int, depth: int, condition_dim: int) -> nn.ModuleList:
    """``depth`` blocks in a row."""
    return nn.ModuleList(Block(in_channels, out_channels, condition_dim) for _ in range(depth))
