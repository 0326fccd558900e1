r"""Autoencoders: images as smaller maps, in which a diffusion model is cheaper.

Latents are standardised: ``encode(x) = (maps(x) - m) / s``, with the mean m and standard deviation
s of every channel of the raw maps, measured on training data. A schedule of noise then fits any
autoencoder (Rombach et al. 2022, arXiv:2112.10752, who divide by one number). m and s are buffers,
and travel with the weights.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from latent_ebm.artefacts import Artefact
from latent_ebm.blocks import BLOCK
from samplers.base import check_finite, is_readable, normal_like
from samplers.checks import as_shape, check_counts, check_kind


class Maps(NamedTuple):
    """Raw latents of images: their ``mean`` and their ``deviation`` (batch, channels, h, w), None
    if they are not random.
    """

    mean: Tensor
    deviation: Tensor | None

    def draw(self, generator: torch.Generator | None = None) -> Tensor:
        """Latents (batch, channels, h, w)."""
        if self.deviation is None:
            return self.mean
        return self.mean + self.deviation * normal_like(self.mean, generator)


class LatentSpace(Artefact, ABC):
    """Latents in which a diffusion model may learn, and the way back to data."""

    @abstractmethod
    def encode(
        self,
        x: Tensor,
        index: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Latents (batch, \\*latent_shape) of data ``x`` (batch, \\*event).

        ``index`` (batch,) says where the rows stand in their data set, for what keeps a state per
        row. Latents that are random are drawn with ``generator``.
        """

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Data (batch, \\*event) of latents ``z`` (batch, \\*latent_shape)."""


class Autoencoder(LatentSpace, ABC):
    """Maps images (batch, in_channels, H, W) to latents (batch, channels, H / f, W / f) and back.

    A leaf says how raw maps are made and read; the factor f divides the sides of an image.

    Args:
        in_channels: Channels of an image.
        channels: Channels of the latents.
        factor: How much smaller the sides of latents are.

    Raises:
        ValueError: If one of them is not an integer >= 1.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, in_channels: int, channels: int, factor: int) -> None:
        super().__init__()
        check_counts(self, in_channels=in_channels, channels=channels, factor=factor)
        self.in_channels, self.channels, self.factor = in_channels, channels, factor
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("deviation", torch.ones(channels, 1, 1))

    @abstractmethod
    def maps(self, x: Tensor) -> Maps:
        """Raw latents of images ``x`` (batch, in_channels, H, W)."""

    @abstractmethod
    def images(self, maps: Tensor) -> Tensor:
        """Images (batch, in_channels, H, W) of raw latents (batch, channels, h, w)."""

    def encode(
        self,
        x: Tensor,
        index: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Latents (batch, channels, h, w) of images ``x`` (batch, in_channels, H, W).

        If latents are random, they are drawn with ``generator``; ``index`` is ignored. Raises
        ``ValueError`` for images of another shape.
        """
        self.check_event(x)
        return (self.maps(x).draw(generator) - self.mean) / self.deviation

    def decode(self, z: Tensor) -> Tensor:
        """Images (batch, in_channels, H, W) of latents ``z`` (batch, channels, h, w).

        Raises ``ValueError`` for latents of another shape.
        """
        check_kind(self, Tensor, z=z)
        if z.ndim != 4 or z.shape[1] != self.channels or not z.is_floating_point():
            raise ValueError(
                f"z must be floating-point latents (batch, {self.channels}, h, w), got {z.dtype} "
                f"of shape {tuple(z.shape)}"
            )
        return self.images(z * self.deviation + self.mean)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions of images ``x`` (batch, in_channels, H, W), by the means of latents."""
        self.check_event(x)
        return self.images(self.maps(x).mean)

    def check_event(self, x: Tensor) -> None:
        """Raise ``ValueError`` unless ``x`` are floating-point images (batch, in_channels, H, W)
        with sides that ``factor`` divides.
        """
        check_kind(self, Tensor, x=x)
        if not x.is_floating_point():
            raise ValueError(f"x must be floating-point images, got {x.dtype}")
        self.latent_shape(x.shape[1:])

    def latent_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Shape of the latents of images of ``shape`` (in_channels, H, W).

        Raises ``ValueError`` for a shape of other channels, or sides that ``factor`` does not
        divide.
        """
        shape, f = as_shape(self, shape=shape), self.factor
        if len(shape) != 3 or shape[0] != self.in_channels or any(side % f for side in shape[1:]):
            raise ValueError(
                f"shape must be ({self.in_channels}, H, W) with sides that are multiples of {f}, "
                f"got {shape}"
            )
        return self.channels, shape[1] // f, shape[2] // f

    @torch.no_grad()
    def standardise(self, x: Tensor) -> None:
        """Measure mean and deviation of every latent channel on images ``x`` (n, in_channels, H,
        W), by the means of random latents.

        Raises ``ValueError`` for no images or a channel that is constant on them, and
        ``FloatingPointError`` for images that are not finite.
        """
        check_images(x)
        self.latent_shape(x.shape[1:])
        maps = torch.cat([self.maps(rows).mean for rows in x.split(BLOCK)]).double()
        deviation, mean = torch.std_mean(maps, (0, 2, 3), correction=0)
        self.set_statistics(mean, deviation)

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Standardise latents by ``mean`` and ``deviation`` (channels,) of their channels.

        Raises ``ValueError`` for a channel that is constant, and for statistics of another shape
        or that are no finite numbers.
        """
        for name, value in {"mean": mean, "deviation": deviation}.items():
            check_kind(self, Tensor, **{name: value})
            if value.shape != (self.channels,):
                raise ValueError(
                    f"{name} must have shape ({self.channels},), got {tuple(value.shape)}"
                )
            if is_readable(value) and not bool(value.isfinite().all()):
                raise ValueError(f"{name} must be finite, got {value.tolist()}")
        if is_readable(deviation) and bool((deviation < 0).any()):
            raise ValueError(f"deviation must not be negative, got {deviation.tolist()}")
        if is_readable(deviation) and bool((deviation == 0).any()):
            index = int((deviation == 0).int().argmax())
            raise ValueError(f"latents must vary, but channel {index} is constant")
        self.mean.copy_(mean[:, None, None])
        self.deviation.copy_(deviation[:, None, None])


def check_images(x: Tensor) -> None:
    """Raise ``ValueError`` unless ``x`` are images (n >= 1, C, H, W), and ``FloatingPointError``
    unless they are finite.
    """
    check_kind("autoencoder", Tensor, x=x)
    if x.ndim != 4 or len(x) == 0 or not x.is_floating_point():
        raise ValueError(
            f"x must be floating-point images (n >= 1, C, H, W), got {x.dtype} of shape "
            f"{tuple(x.shape)}"
        )
    check_finite("x", x, "remove or impute the offending rows")
