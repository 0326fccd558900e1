r"""A convolutional autoencoder that starts as patch PCA.

Encoder and decoder are a linear map between patches and latents, as in ``PatchPCA``, plus
convolutions over the maps of patches, whose last layer is 0 at first. So training starts at the
best linear autoencoder and can only add what neighbouring patches tell. No map exists at full
resolution, where most of the time of a usual decoder goes; the sizes of encoder and decoder are
apart, since every image that is generated needs the decoder and none the encoder.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, silu

from latent_ebm.autoencoders.base import Autoencoder, Maps
from latent_ebm.autoencoders.pca import PatchPCA
from latent_ebm.networks.unet import NUM_GROUPS, zeroed
from samplers.checks import check_counts, check_kind

LOG_DEVIATION = -3.0  # of random latents at first, whose own deviation is 1


class ConvAutoencoder(Autoencoder):
    """Patches, a linear map and convolutions, to latents and back; ``start`` makes it patch PCA.

    Args:
        channels: Channels of the latents, such as 4, 8 or 16.
        patch: Side of a patch, by which the sides of latents are smaller.
        in_channels: Channels of an image.
        width: Channels of the encoder's convolutions, a multiple of 8.
        depth: Number of the encoder's residual blocks.
        decoder_width: Channels of the decoder's convolutions, a multiple of 8.
        decoder_depth: Number of the decoder's residual blocks.
        random: Whether latents are drawn from a normal distribution that the encoder tells, as a
            rule with a KL term needs.

    Raises:
        ValueError: For numbers that break these rules.
    """

    def __init__(
        self,
        channels: int = 8,
        patch: int = 4,
        in_channels: int = 3,
        width: int = 64,
        depth: int = 2,
        decoder_width: int = 64,
        decoder_depth: int = 2,
        random: bool = False,
    ) -> None:
        super().__init__(in_channels, channels, patch)
        self.patch, self.random = patch, random
        self.width, self.depth = width, depth
        self.decoder_width, self.decoder_depth = decoder_width, decoder_depth
        size = in_channels * patch**2
        self.encoder = Residual(size, channels, width, depth)
        self.decoder = Residual(channels, size, decoder_width, decoder_depth)
        self.log_deviation = zeroed(nn.Conv2d(size, channels, 3, padding=1)) if random else None
        if self.log_deviation is not None and self.log_deviation.bias is not None:
            nn.init.constant_(self.log_deviation.bias, LOG_DEVIATION)

    def maps(self, x: Tensor) -> Maps:
        patches = pixel_unshuffle(x, self.factor)
        if self.log_deviation is None:
            return Maps(self.encoder(patches), None)
        return Maps(self.encoder(patches), self.log_deviation(patches).exp())

    def images(self, maps: Tensor) -> Tensor:
        return pixel_shuffle(self.decoder(maps), self.factor)

    @torch.no_grad()
    def start(self, pca: PatchPCA) -> "ConvAutoencoder":
        """Become ``pca``, whose latents and images it then gives; returns itself.

        Raises ``ValueError`` for a ``pca`` of other channels or patches.
        """
        check_kind(self, PatchPCA, pca=pca)
        for name in ("in_channels", "channels", "factor"):
            if getattr(pca, name) != getattr(self, name):
                raise ValueError(
                    f"{name} of pca must be {getattr(self, name)}, got {getattr(pca, name)}"
                )
        deviation = pca.deviation.flatten()
        centre = pca.centre + pca.components.T @ pca.mean.flatten()
        self.encoder.become(pca.components / deviation[:, None], -centre)
        self.decoder.become(pca.components.T * deviation, None, centre)
        self.set_statistics(torch.zeros_like(deviation), torch.ones_like(deviation))
        return self

    @torch.no_grad()
    def take_encoder(self, trained: "ConvAutoencoder") -> "ConvAutoencoder":
        """Take the encoder of ``trained``, its statistics and the linear part of its decoder; the
        rest of the decoder, which may have other sizes, starts at 0. Returns itself.

        Raises ``ValueError`` for an encoder of other sizes.
        """
        check_kind(self, ConvAutoencoder, trained=trained)
        if trained.random != self.random:
            raise ValueError(f"random of trained must be {self.random}, got {trained.random}")
        parts = {name: part for name, part in trained.named_children() if name != "decoder"}
        for name, part in parts.items():
            own, state = self.get_submodule(name), part.state_dict()
            ours = {key: value.shape for key, value in own.state_dict().items()}
            if ours != {key: value.shape for key, value in state.items()}:
                raise ValueError(f"the {name} of trained must have the sizes of this one")
            own.load_state_dict(state)
        self.decoder.linear.load_state_dict(trained.decoder.linear.state_dict())
        zeroed(self.decoder.leave)
        self.set_statistics(trained.mean.flatten(), trained.deviation.flatten())
        return self

    def freeze_encoder(self) -> None:
        """Exempt all that makes latents from training."""
        for name, part in self.named_children():
            part.requires_grad_(name == "decoder")


class Residual(nn.Module):
    """``linear(x) + convolutions(x)`` of maps (batch, in_channels, h, w); at first the linear map.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        width: Channels of the convolutions, a multiple of 8.
        depth: Number of residual blocks between the first and the last of them.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int, depth: int) -> None:
        super().__init__()
        check_counts("ConvAutoencoder", width=width, depth=depth)
        if width % NUM_GROUPS:
            raise ValueError(f"width must be a multiple of {NUM_GROUPS}, got {width}")
        self.linear = nn.Conv2d(in_channels, out_channels, 1)
        self.enter = nn.Conv2d(in_channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.leave = zeroed(nn.Conv2d(width, out_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, out_channels, h, w)."""
        h = self.enter(x)
        for block in self.blocks:
            h = block(h)
        return self.linear(x) + self.leave(silu(h))

    def become(
        self, weight: Tensor, before: Tensor | None = None, after: Tensor | None = None
    ) -> None:
        """Be ``weight (x + before) + after`` alone."""
        bias = torch.zeros_like(weight[:, 0]) if after is None else after
        bias = bias if before is None else bias + weight @ before
        self.linear.load_state_dict({"weight": weight[:, :, None, None], "bias": bias})
        zeroed(self.leave)


class Block(nn.Module):
    """``h + conv(silu(norm(conv(silu(norm(h))))))`` of maps (batch, width, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(NUM_GROUPS, width) for _ in range(2))
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Maps like ``x``."""
        h = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            h = convolution(silu(norm(h)))
        return x + h
