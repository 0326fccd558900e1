r"""A critic that judges every patch of an image, and distances in the layers of a classifier."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from latent_ebm.artefacts import Artefact
from latent_ebm.networks.classifier import FeatureClassifier
from samplers.checks import check_counts


class PatchCritic(Artefact):
    """Logits (batch, 1, h, w) of images (batch, in_channels, H, W): each judges one patch.

    ``depth`` convolutions halve the sides, and one more follows: with two, a patch is 18 pixels
    wide, with three, 38. Activations are normalised over the whole image. Smaller than the 70
    pixels of Isola et al. 2017, arXiv:1611.07004.

    Args:
        in_channels: Channels of an image.
        width: Channels of the first convolution; every other one has twice as many.
        depth: Number of halvings.
    """

    def __init__(self, in_channels: int = 3, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        check_counts(self, in_channels=in_channels, width=width, depth=depth)
        self.in_channels, self.width, self.depth = in_channels, width, depth
        widths = [in_channels, *(width * 2**i for i in range(depth))]
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise(widths)):
            layers.append(nn.Conv2d(a, b, 4, 2, 1))
            layers += [nn.GroupNorm(1, b)] if i else []
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, 1, h, w) of images ``x`` (batch, in_channels, H, W)."""
        return self.layers(x)


def perceptual_distance(network: FeatureClassifier, x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference of images ``x`` and ``y`` (batch, C, H, W) in all layers of
    ``network``, a scalar.

    The vectors of a layer are scaled to length 1 at every place, and layers count alike. Source:
    Zhang et al. 2018, arXiv:1801.03924, with equal weights.
    """
    distances, features = [], torch.cat([x, y])
    for layer in network.body:
        features = layer(features)
        if isinstance(layer, nn.ReLU):
            a, b = normalize(features, dim=1).chunk(2)
            distances.append((a - b).square().sum(1).mean())
    return torch.stack(distances).mean()
