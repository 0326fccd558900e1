"""A scorer that the library trains, on pictures and their captions."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from latent_ebm.networks.attention import pool
from latent_ebm.scorers.base import Scorer
from latent_ebm.text import TextEncoder
from samplers.checks import check_counts, check_kind

START, LEAST = 0.07, 0.01  # temperatures of CLIP: before training, and the lowest allowed


class ContrastiveScorer(Scorer):
    """An image encoder and a text encoder with a linear map each into one space.
    ``TextImageContrast`` trains it.

    The text encoder's vectors are averaged over the tokens that it shows. ``temperature`` is
    learnt too, and stays above 0.01; cosines divided by it are the logits of training. Source:
    CLIP, Radford et al. 2021, arXiv:2103.00020.

    Args:
        image_encoder: Maps pictures (n, C, H, W) to features (n, \\*event), such as a
            ``ResidualEncoder``.
        text_encoder: Maps tokens to vectors, such as a ``TextTransformer``.
        image_dim: Number of features of ``image_encoder``.
        dim: Number of entries of the vectors that are compared.

    Raises:
        ValueError: For a number below 1, or another kind of text encoder.
    """

    def __init__(
        self, image_encoder: nn.Module, text_encoder: TextEncoder, image_dim: int, dim: int = 64
    ) -> None:
        super().__init__()
        check_kind(self, TextEncoder, text_encoder=text_encoder)
        check_counts(self, image_dim=image_dim, dim=dim)
        self.image_encoder, self.text_encoder = image_encoder, text_encoder
        self.image_dim, self.dim = image_dim, dim
        self.image_map = nn.Linear(image_dim, dim, bias=False)
        self.text_map = nn.Linear(text_encoder.dim, dim, bias=False)
        self.log_excess = nn.Parameter(torch.tensor(math.log(START - LEAST)))

    @property
    def temperature(self) -> Tensor:
        """What training divides cosines by, a positive number ()."""
        return LEAST + self.log_excess.exp()

    def image_features(self, x: Tensor) -> Tensor:
        """Unit vectors (n, dim) of pictures ``x`` (n, C, H, W) in [-1, 1]."""
        found = self.image_encoder(x).flatten(1)
        if found.shape[1] != self.image_dim:
            raise ValueError(
                f"image_dim must be the number of features of image_encoder, {found.shape[1]}, "
                f"got {self.image_dim}"
            )
        return normalize(self.image_map(found))

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors (n, dim) of prompts. Raises ``ValueError`` for prompts that the tokenizer
        refuses.
        """
        with self.log_excess.device:
            tokens = self.text_encoder.tokenizer(prompts)
        return self.token_features(tokens)

    def token_features(self, tokens: Tensor) -> Tensor:
        """Unit vectors (n, dim) of ``tokens`` (n, m), as a batch of captions carries them."""
        return normalize(self.text_map(pool(*self.text_encoder(tokens))))
