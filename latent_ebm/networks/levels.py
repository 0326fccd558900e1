r"""Parts of a text-conditional U-Net: the blocks of one resolution, and what they are told."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from latent_ebm.networks.attention import Gated, TransformerBlock
from latent_ebm.networks.unet import NUM_GROUPS, Block, zeroed
from samplers.checks import as_shape, check_counts


class Told(NamedTuple):
    """The conditions as one vector (batch, dim); the text's tokens, their mask and their mean; and
    the tokens of a subject, if blocks see them.
    """

    vector: Tensor
    text: Tensor | None
    mask: Tensor | None
    mean: Tensor | None
    subject: Gated | None = None


class Level(nn.Module):
    """Blocks of one resolution, which keep maps on the way down and take them on the way up."""

    def __init__(
        self, blocks: Sequence[Block], transformers: Sequence[TransformerBlock], takes: bool
    ) -> None:
        super().__init__()
        self.blocks, self.transformers = nn.ModuleList(blocks), nn.ModuleList(transformers)
        self.takes = takes

    def forward(self, h: Tensor, told: Told, skips: list[Tensor]) -> Tensor:
        """A map like ``h`` (batch, C, H, W). Blocks add their maps to ``skips``, or take them."""
        for block in self.blocks:
            h = block(torch.cat([h, skips.pop()], 1) if self.takes else h, told.vector)
            skips.extend([] if self.takes else [h])
        pixels = rearrange(h, "b c h w -> b (h w) c")
        for block in self.transformers:
            pixels = block(pixels, told.text, told.mask, told.subject)
        return rearrange(pixels, "b (h w) c -> b c h w", h=h.shape[2])


def separable_convolution(in_channels: int, channels: int) -> nn.Module:
    """A 3x3 convolution of every channel alone, and a 1x1 convolution of all of them."""
    alone = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels)
    return nn.Sequential(alone, nn.Conv2d(in_channels, channels, 1))


def weigh(dim: int) -> nn.Sequential:
    """Maps weights of guidance (batch, 1) to vectors (batch, dim), which are 0 at first."""
    return nn.Sequential(nn.Linear(1, dim), nn.SiLU(), zeroed(nn.Linear(dim, dim)))


def check_channels(channels: Sequence[int], num_heads: int) -> tuple[int, ...]:
    """``channels`` as a tuple. Raises ``ValueError`` unless 8 and ``num_heads`` divide them."""
    channels = as_shape("MobileUNet", channels=channels)
    check_counts("MobileUNet", num_heads=num_heads)
    if any(c % NUM_GROUPS or c % num_heads for c in channels):
        rule = f"multiples of {NUM_GROUPS} and of num_heads {num_heads}"
        raise ValueError(f"channels must be {rule}, got {channels}")
    return channels
