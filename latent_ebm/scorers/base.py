"""A scorer maps pictures and prompts to unit vectors of one space. The inner product of two of
them, a cosine, says how well the picture shows what the prompt says (CLIPScore, Hessel et al.
2021, arXiv:2104.08718).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from latent_ebm.artefacts import Artefact


class Scorer(Artefact, ABC):
    """Scores pairs by ``scorer(prompts, x)``, and every prompt with every picture by
    ``scorer.score_matrix(prompts, x)``, for ``retrieval_recall``.

    ``image_features`` also serve distribution metrics: ``frechet`` and ``cmmd`` take them.
    """

    @abstractmethod
    def image_features(self, x: Tensor) -> Tensor:
        """Unit vectors (n, dim) of pictures ``x`` (n, C, H, W) in [-1, 1]."""

    @abstractmethod
    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors (n, dim) of prompts."""

    def forward(self, prompts: Sequence[str], x: Tensor) -> Tensor:
        """Scores (n,) in [-1, 1] of pictures ``x`` (n, C, H, W) in [-1, 1], each for the prompt in
        the same place.

        Raises ``ValueError`` if there are not as many prompts as pictures.
        """
        if len(prompts) != len(x):
            raise ValueError(f"prompts must be one per picture, {len(x)}, got {len(prompts)}")
        return (self.text_features(prompts) * self.image_features(x)).sum(1)

    def score_matrix(self, prompts: Sequence[str], x: Tensor) -> Tensor:
        """Scores (m, n) in [-1, 1] of every one of m prompts with every one of n pictures ``x``
        (n, C, H, W) in [-1, 1].
        """
        return self.text_features(prompts) @ self.image_features(x).mT
