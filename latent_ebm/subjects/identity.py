"""Identity: whether two pictures show the same subject, whatever its pose, place and background.

An encoder maps pictures to unit vectors. The inner product of two of them says how alike the
subjects are; for the features of DINO its mean is the DINO score of personalisation
(arXiv:2208.12242).
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn.functional import normalize

from latent_ebm.artefacts import Artefact


class IdentityEncoder(Artefact, ABC):
    """Maps pictures (n, C, H, W) in [-1, 1] to unit vectors (n, D): alike for one subject."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Unit vectors (n, D) of pictures ``x`` (n, C, H, W) in [-1, 1]."""


class LearnedIdentity(IdentityEncoder):
    """The features of a network, scaled to length 1. ``SupervisedContrast`` trains it.

    Args:
        network: Maps pictures (n, C, H, W) to features (n, \\*event), such as a
            ``ResidualEncoder``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Unit vectors (n, D) of pictures ``x`` (n, C, H, W) in [-1, 1]."""
        return normalize(self.network(x).flatten(1))
