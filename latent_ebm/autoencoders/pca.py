r"""The best linear autoencoder of square patches, in closed form.

A patch of p x p pixels with C channels is a vector v of ``C p^2`` entries. With the covariance
``Sigma = E[(v - m)(v - m)^T]`` of all patches of the training images and its eigenvectors W of the
c largest eigenvalues, ``W (v - m)`` loses least: the squared error of a patch is on average the
sum of the other eigenvalues (Eckart & Young 1936). Patches do not overlap, so this is a
convolution of stride p, and the latents are as many small maps as eigenvectors are kept.
"""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from latent_ebm.autoencoders.base import Autoencoder, Maps, check_images
from latent_ebm.blocks import BLOCK
from samplers.run_checks import is_readable

SMALLEST = 1e-10  # share of the variance below which a direction counts as constant


class PatchPCA(Autoencoder):
    """Principal components of patches of ``patch x patch`` pixels; ``fit`` finds them.

    Args:
        channels: Number of components that are kept, at most ``in_channels * patch ** 2``.
        patch: Side of a patch.
        in_channels: Channels of an image.

    Raises:
        ValueError: For numbers that break these rules.
    """

    components: Tensor
    centre: Tensor
    eigenvalues: Tensor

    def __init__(self, channels: int = 8, patch: int = 4, in_channels: int = 3) -> None:
        super().__init__(in_channels, channels, patch)
        self.patch = patch
        size = in_channels * patch**2
        if channels > size:
            raise ValueError(f"channels must be at most {size}, got {channels}")
        self.register_buffer("components", torch.eye(channels, size))
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("eigenvalues", torch.ones(size))

    @torch.no_grad()
    def fit(self, x: Tensor) -> "PatchPCA":
        """Find the components in images ``x`` (n, in_channels, H, W); returns itself.

        The signs of components are such that the largest entry is positive. Raises ``ValueError``
        for images of another shape, or that vary in fewer directions than ``channels``.
        """
        check_images(x)
        self.latent_shape(x.shape[1:])
        centre, covariance = patch_moments(x, self.factor)
        ascending, vectors = torch.linalg.eigh(covariance)
        eigenvalues, vectors = ascending.flip(0).clamp(min=0), vectors.T.flip(0)[: self.channels]
        smallest = eigenvalues[self.channels - 1]
        if is_readable(smallest) and bool(smallest <= SMALLEST * eigenvalues.sum()):
            raise ValueError(f"x must vary in at least {self.channels} directions, got fewer")
        largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
        self.components.copy_(vectors * largest.sign())
        self.centre.copy_(centre)
        self.eigenvalues.copy_(eigenvalues)
        self.mean.zero_()
        self.deviation.copy_(eigenvalues[: self.channels, None, None].sqrt())
        return self

    def maps(self, x: Tensor) -> Maps:
        patches = pixel_unshuffle(x, self.factor) - self.centre[:, None, None]
        return Maps(torch.einsum("cv, bvhw -> bchw", self.components, patches), None)

    def images(self, maps: Tensor) -> Tensor:
        patches = torch.einsum("cv, bchw -> bvhw", self.components, maps)
        return pixel_shuffle(patches + self.centre[:, None, None], self.factor)


def patch_moments(x: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Mean (v,) and covariance (v, v) of the patches of images ``x`` (n, C, H, W), float64, with
    ``v = C patch^2``.
    """
    blocks = [rearrange(pixel_unshuffle(r, patch), "b v h w -> (b h w) v") for r in x.split(BLOCK)]
    num = sum(len(block) for block in blocks)
    mean = torch.stack([block.double().sum(0) for block in blocks]).sum(0) / num
    centred = (block.double() - mean for block in blocks)
    return mean, torch.stack([block.T @ block for block in centred]).sum(0) / num
