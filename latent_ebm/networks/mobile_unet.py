r"""A text-conditional U-Net that has every saving of MobileDiffusion as an argument.

The paper (Zhao et al. 2023, arXiv:2311.16567) starts from the U-Net of latent diffusion and makes
it smaller step by step: transformer blocks move from high resolutions to the lowest one,
self-attention is left out where maps are large, keys and values share a projection, feed-forward
parts get narrower and use swish, attention weights are ReLU in place of softmax, and convolutions
below the highest resolution are depthwise separable. Here each of these is an argument.

Maps pass through several resolutions, each half of the one before. At each resolution there are
residual blocks and then transformer blocks, on the way down and again on the way up. On the way up
every residual block also sees the map of its counterpart on the way down.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from itertools import islice, pairwise
from math import prod

from torch import Tensor, nn

from latent_ebm.artefacts import Artefact
from latent_ebm.networks.attention import (
    Attention,
    FeedForward,
    Gate,
    TransformerBlock,
    Weights,
    check_text,
    pool,
)
from latent_ebm.networks.conditioning import Conditioning, check_pixels
from latent_ebm.networks.levels import (
    Level,
    Told,
    check_channels,
    separable_convolution,
    weigh,
)
from latent_ebm.networks.unet import NUM_GROUPS, Block, convolution, fold, unfold, zeroed
from samplers.checks import as_shape, check_counts, check_kind


class MobileUNet(Artefact):
    """Maps images (batch, \\*shape), a noise level (batch,) and a text to images.

    Sequences have one entry per resolution, the highest first. Before training the output is 0.

    Args:
        shape: Shape (C, H, W) of an image. Its sides are multiples of
            ``patch * 2 ** (len(channels) - 1)``.
        text_dim: Dimension of the tokens of a text.
        channels: Channels at each resolution, multiples of 8 and of ``num_heads``.
        depth: Number of residual blocks at each resolution, on the way down and on the way up.
        transformers: Number of transformer blocks at each resolution, on either way.
        self_attention: Whether the transformer blocks of a resolution have self-attention.
        cross_attention: Whether they have cross-attention to the text.
        shared_kv: Whether keys and values share one projection.
        weights: Attention weights, "softmax" or "relu".
        expansion: Width of the feed-forward parts in multiples of the channels, an even number.
        gate: Activation in the feed-forward parts, "gelu" or "silu".
        separable: Whether convolutions below the highest resolution are depthwise separable.
        num_heads: Number of heads of every attention.
        patch: Side of the cells of pixels that are first folded into channels.
        guided: Whether the network takes the weight of guidance as an input.
        text_map: Whether a linear map of the pooled text is added to the first map. Pictures whose
            layout their name decides, such as emoji, are learned much faster with it.

    Raises:
        ValueError: For sequences of different lengths, or numbers that break these rules.
    """

    weights: Weights
    gate: Gate

    def __init__(
        self,
        shape: Sequence[int],
        text_dim: int,
        channels: Sequence[int] = (32, 64, 96),
        depth: Sequence[int] = (1, 1, 1),
        transformers: Sequence[int] = (0, 1, 2),
        self_attention: Sequence[bool] = (False, False, True),
        cross_attention: Sequence[bool] = (True, True, True),
        shared_kv: bool = True,
        weights: Weights = "softmax",
        expansion: int = 6,
        gate: Gate = "silu",
        separable: bool = True,
        num_heads: int = 4,
        patch: int = 1,
        guided: bool = False,
        text_map: bool = False,
    ) -> None:
        super().__init__()
        self.shape, self.text_dim = as_shape(self, shape=shape), text_dim
        self.channels = check_channels(channels, num_heads)
        check_levels(
            self,
            {"depth": depth, "transformers": transformers},
            {"self_attention": self_attention, "cross_attention": cross_attention},
        )
        self.depth, self.transformers = tuple(depth), tuple(transformers)
        self.self_attention, self.cross_attention = tuple(self_attention), tuple(cross_attention)
        self.shared_kv, self.weights, self.separable = shared_kv, weights, separable
        self.expansion, self.gate, self.num_heads = expansion, gate, num_heads
        self.patch, self.guided, self.text_map = patch, guided, text_map
        check_counts(self, text_dim=text_dim, patch=patch)
        check_kind(self, bool, shared_kv=shared_kv, separable=separable, guided=guided)
        check_kind(self, bool, text_map=text_map)
        check_pixels(self.shape, patch * 2 ** (len(self.channels) - 1))
        dim = 4 * self.channels[0]
        self.noise, self.pooled = Conditioning(dim), nn.Linear(text_dim, dim)
        size = self.sizes[0]
        paint = nn.Sequential(nn.Linear(text_dim, prod(size)), nn.Unflatten(1, size))
        self.guidance, self.paint = weigh(dim) if guided else None, paint if text_map else None
        self.build()

    @property
    def sizes(self) -> list[tuple[int, int, int]]:
        """The shape (channels, h, w) of the maps of each resolution."""
        _, height, width = self.shape
        cells = [self.patch * 2**i for i in range(len(self.channels))]
        return [(c, height // k, width // k) for c, k in zip(self.channels, cells, strict=True)]

    def with_guidance(self) -> "MobileUNet":
        """A copy that is ``guided``. Until it is trained, the weight does not change its output.

        Raises ``ValueError`` if this network is guided already.
        """
        if self.guided:
            raise ValueError("with_guidance needs a network that is not guided, got a guided one")
        made = deepcopy(self)
        made.guided, made.guidance = True, weigh(4 * self.channels[0]).to(self.pooled.weight)
        return made

    def build(self) -> None:
        """Make both ways."""
        first, cell = self.channels[0], self.shape[0] * self.patch**2
        levels, pairs = range(len(self.channels)), list(pairwise(self.channels))
        self.enter = nn.Sequential(fold(self.patch), convolution(cell, first))
        self.down = nn.ModuleList(self.level(i, takes=False) for i in levels)
        self.up = nn.ModuleList(self.level(i, takes=True) for i in levels)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairs)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, 4, 2, 1) for a, b in pairs)
        last = zeroed(convolution(first, cell))
        self.leave = nn.Sequential(
            nn.GroupNorm(NUM_GROUPS, first), nn.SiLU(), last, unfold(self.patch)
        )

    def level(self, i: int, takes: bool) -> Level:
        """The blocks of resolution ``i``."""
        width, dim = self.channels[i], 4 * self.channels[0]
        kind = separable_convolution if self.separable and i else convolution
        block = partial(Block, (1 + takes) * width, width, dim, kind)
        attentive = [self.transformer(i) for _ in range(self.transformers[i])]
        return Level([block() for _ in range(self.depth[i])], attentive, takes)

    def transformer(self, i: int) -> TransformerBlock:
        """A transformer block of resolution ``i``."""
        width, heads = self.channels[i], self.num_heads
        attention = partial(Attention, num_heads=heads, shared_kv=self.shared_kv)
        own = attention(width, weights=self.weights) if self.self_attention[i] else None
        cross = None
        if self.cross_attention[i]:
            cross = attention(width, self.text_dim, weights=self.weights)
        return TransformerBlock(width, own, cross, FeedForward(width, self.expansion, self.gate))

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        text: Tensor | None = None,
        mask: Tensor | None = None,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """Images like ``x`` (batch, \\*shape).

        Args:
            x: Images (batch, \\*shape).
            noise_level: Noise level (batch,), as ``Preconditioned`` passes it.
            text: Tokens (batch, m, text_dim); None for no text.
            mask: True for the tokens that count (batch, m); None for all of them.
            guidance: Weight of guidance (batch,), for a network that is ``guided``.

        Raises:
            ValueError: For images, a text or weights of another shape.
        """
        if x.shape[1:] != self.shape:
            raise ValueError(f"x must have shape (batch, *{self.shape}), got {tuple(x.shape)}")
        told = self.tell(noise_level.to(x.dtype), text, mask, guidance)
        return self.expand(*self.contract(x, told), told)

    def tell(
        self,
        noise_level: Tensor,
        text: Tensor | None,
        mask: Tensor | None,
        guidance: Tensor | None,
    ) -> Told:
        """The conditions of the blocks; arguments are those of ``forward``."""
        vector, mean = self.noise(noise_level), None
        if text is not None:
            check_text(text, mask, self.text_dim)
            mean = pool(text, mask)
            vector = vector + self.pooled(mean)
        if (guidance is None) != (self.guidance is None):
            got = "none" if guidance is None else "weights"
            raise ValueError(f"guidance must be given to guided networks alone, got {got}")
        if self.guidance is not None and guidance is not None:
            vector = vector + self.guidance(guidance.to(vector)[:, None])
        return Told(vector, text, mask, mean)

    def contract(self, x: Tensor, told: Told) -> tuple[Tensor, list[Tensor]]:
        """The way down: the map of the lowest resolution, and those that the way up takes."""
        skips = list[Tensor]()
        *_, h = self.descend(x, told, skips)
        return h, skips

    def descend(self, x: Tensor, told: Told, skips: list[Tensor]) -> Iterator[Tensor]:
        """Yield the map of every resolution on the way down; blocks add theirs to ``skips``."""
        h = self.enter(x)
        if self.paint is not None and told.mean is not None:
            h = h + self.paint(told.mean)
        for level, shrink in zip(self.down, [nn.Identity(), *self.shrink], strict=True):
            h = level(shrink(h), told, skips)
            yield h

    def features(self, x: Tensor, noise_level: Tensor, level: int) -> Tensor:
        """The map (batch, channels[level], h, w) of resolution ``level`` on the way down, for
        images (batch, \\*shape) at a noise level (batch,), without a text.
        """
        told = self.tell(noise_level.to(x.dtype), None, None, None)
        return next(islice(self.descend(x, told, []), level, None))

    def expand(self, h: Tensor, skips: list[Tensor], told: Told) -> Tensor:
        """The way up, from what ``contract`` returns to images (batch, \\*shape)."""
        for level, grow in zip(reversed(self.up), [*reversed(self.grow), self.leave], strict=True):
            h = grow(level(h, told, skips))
        return h


def check_levels(
    net: MobileUNet, counts: Mapping[str, Sequence[int]], switches: Mapping[str, Sequence[bool]]
) -> None:
    """Raise ``ValueError`` unless all have one entry per resolution: ``counts`` integers that are
    not negative, and ``switches`` truth values.
    """
    num = len(net.channels)
    for name, entries in {**counts, **switches}.items():
        if not isinstance(entries, Sequence) or len(entries) != num:
            raise ValueError(f"{name} must have {num} entries, like channels, got {entries!r}")
        for entry in entries:
            if name in switches:
                check_kind(net, bool, **{name: entry})
            else:
                check_counts(net, least=0, **{name: entry})
