r"""Selection of tokens: from the N vectors of a picture to the few that another network sees.

A network that sees all vectors of a reference picture can copy it. With few of them it has to keep
the subject and is free to change the rest (Xie et al. 2023, arXiv:2312.03771).
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from latent_ebm.artefacts import Described
from samplers.checks import check_kind
from samplers.run_checks import check_finite


class TokenSelection(Described, ABC):
    """Maps features (batch, N, D) to tokens (batch, K, D) and their indices (batch, K).

    Leaves are frozen dataclasses of plain numbers, and define ``select``.
    """

    @abstractmethod
    def select(
        self, features: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens (batch, K, D) of ``features`` (batch, N, D), which are checked already, and their
        indices (batch, K).
        """

    def __call__(
        self, features: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens (batch, K, D), through which gradients flow, and their indices (batch, K), int64.

        Args:
            features: The vectors of a picture (batch, N, D).
            generator: The random stream, for a selection that is random.

        Raises:
            ValueError: For features of another kind, or fewer than K of them.
            FloatingPointError: If features are not finite.
        """
        check_kind(self, Tensor, features=features)
        if features.ndim != 3 or not features.is_floating_point() or 0 in features.shape[1:]:
            raise ValueError(
                f"features must be floating-point vectors (batch, N, D), got {features.dtype} of "
                f"shape {tuple(features.shape)}"
            )
        check_finite("features", features)
        return self.select(features, generator=generator)


def take(features: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """The ``features`` (batch, N, D) at ``indices`` (batch, K), and these indices."""
    return features.take_along_dim(indices[:, :, None], 1), indices


def check_enough(features: Tensor, num_tokens: int) -> None:
    """Raise ``ValueError`` unless there are at least ``num_tokens`` features (batch, N, D)."""
    if num_tokens > features.shape[1]:
        raise ValueError(
            f"num_tokens must be at most the number of features, {features.shape[1]}, got "
            f"{num_tokens}"
        )


def exactly(features: Tensor) -> Tensor:
    """``features`` as constants in float64, which autocast leaves alone: scores differ little."""
    return features.detach().double()
