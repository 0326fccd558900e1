r"""What a denoising network receives besides its input: the noise level and the class.

A noise level ``c`` (batch,), ``log(sigma / alpha) / 4`` in the frame of Karras et al. 2022
(arXiv:2206.00364), becomes sines and cosines of ``w_k c`` with geometrically spaced frequencies
from 1/4 to 16. One vector per class is added to them, and the sum passes through a small
perceptron. An unknown class has a vector of its own. If labels are dropped at random in training,
the network learns both the conditional and the marginal distribution, which classifier-free
guidance needs (Ho & Salimans 2022, arXiv:2207.12598).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latent_ebm.artefacts import Artefact
from latent_ebm.conditions import UNKNOWN
from samplers.checks import check_counts


class Conditioning(Artefact):
    """Noise level (batch,) and label (batch,) -> vectors (batch, dim) for the blocks of a network.

    A label is one of 0 to ``num_classes`` - 1, or -1 if the class is unknown. Without labels all
    classes are unknown.

    Args:
        dim: The dimension of the vectors, even.
        num_classes: The number of classes; null: the network takes no labels.

    Raises:
        ValueError: For an odd ``dim``, or a number that is not positive.
    """

    frequencies: Tensor

    def __init__(self, dim: int, num_classes: int | None = None) -> None:
        super().__init__()
        check_counts(self, dim=dim, num_classes=1 if num_classes is None else num_classes)
        if dim % 2:
            raise ValueError(f"dim must be even, got {dim}")
        self.dim, self.num_classes = dim, num_classes
        self.register_buffer("frequencies", torch.logspace(-2, 4, dim // 2, base=2.0))
        self.layers = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU())
        self.classes = None if num_classes is None else nn.Embedding(num_classes + 1, dim)

    def forward(self, noise_level: Tensor, label: Tensor | None = None) -> Tensor:
        """Vectors (batch, dim). Raises ``ValueError`` for labels if there are no classes."""
        angles = noise_level[:, None] * self.frequencies
        features = torch.cat([angles.sin(), angles.cos()], 1)
        if self.classes is not None:
            label = (
                torch.full_like(noise_level, UNKNOWN, dtype=torch.long) if label is None else label
            )
            features = features + self.classes(label + 1)
        elif label is not None:
            raise ValueError("label must be None for a network without num_classes, got a tensor")
        return self.layers(features)


def check_pixels(shape: Sequence[int], multiple: int) -> None:
    """Raise ``ValueError`` unless ``shape`` is (C, H, W) with sides that are multiples of
    ``multiple``.
    """
    if (
        len(shape) != 3
        or shape[0] < 1
        or any(side < multiple or side % multiple for side in shape[1:])
    ):
        raise ValueError(
            f"shape must be (C, H, W) with sides that are multiples of {multiple}, got "
            f"{tuple(shape)}"
        )
