"""Simple selections to compare with: all tokens, random, long or scattered ones, their mean."""

from dataclasses import dataclass

import torch
from torch import Tensor

from latent_ebm.selection.base import TokenSelection, check_enough, exactly, take
from samplers.checks import check_fields


@dataclass(frozen=True)
class All(TokenSelection):
    """All tokens, in their order. A network that sees them all can copy the picture."""

    def select(
        self, features: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        batch, num, _ = features.shape
        return features, torch.arange(num, device=features.device).expand(batch, num)


@dataclass(frozen=True)
class Random(TokenSelection):
    """Different tokens drawn at random, for every row of a batch anew.

    Args:
        num_tokens: The number K of tokens.

    Raises:
        ValueError: If ``num_tokens`` is not an integer >= 1.
    """

    num_tokens: int

    def __post_init__(self) -> None:
        check_fields(self, num_tokens="count")

    def select(
        self, features: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        check_enough(features, self.num_tokens)
        draws = torch.rand(features.shape[:2], device=features.device, generator=generator)
        return take(features, draws.argsort(1)[:, : self.num_tokens])


@dataclass(frozen=True)
class Norm(TokenSelection):
    """The tokens with the greatest Euclidean norms, the greatest first.

    Args:
        num_tokens: The number K of tokens.

    Raises:
        ValueError: If ``num_tokens`` is not an integer >= 1.
    """

    num_tokens: int

    def __post_init__(self) -> None:
        check_fields(self, num_tokens="count")

    def select(
        self, features: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        check_enough(features, self.num_tokens)
        order = exactly(features).norm(dim=2).argsort(dim=1, descending=True, stable=True)
        return take(features, order[:, : self.num_tokens])


@dataclass(frozen=True)
class FarthestPoint(TokenSelection):
    """Tokens far from each other: the first is the farthest from the mean, and every further one
    the farthest from those chosen before, by the Euclidean distance to the nearest of them.

    Source: Gonzalez 1985, "Clustering to minimize the maximum intercluster distance".

    Args:
        num_tokens: The number K of tokens.

    Raises:
        ValueError: If ``num_tokens`` is not an integer >= 1.
    """

    num_tokens: int

    def __post_init__(self) -> None:
        check_fields(self, num_tokens="count")

    def select(
        self, features: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        check_enough(features, self.num_tokens)
        points = exactly(features)
        chosen = [distances(points, points.mean(1, keepdim=True)).argmax(1, keepdim=True)]
        nearest = torch.full_like(points[:, :, 0], torch.inf)
        while len(chosen) < self.num_tokens:
            last, _ = take(points, chosen[-1])
            nearest = nearest.minimum(distances(points, last)).scatter(1, chosen[-1], -1.0)
            chosen.append(nearest.argmax(1, keepdim=True))
        return take(features, torch.cat(chosen, 1))


@dataclass(frozen=True)
class Pooled(TokenSelection):
    """One token, the mean of all. It has no index: indices are (batch, 0)."""

    def select(
        self, features: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        none = torch.empty(len(features), 0, dtype=torch.int64, device=features.device)
        return features.mean(1, keepdim=True), none


def distances(points: Tensor, other: Tensor) -> Tensor:
    """Distances (batch, N) of ``points`` (batch, N, D) from one ``other`` (batch, 1, D)."""
    return (points - other).norm(dim=2)
