r"""The tokens that are least like all others: DreamInpainter (Xie et al. 2023, arXiv:2312.03771).

Most tokens of a picture show what many others show too, such as the background. The subject is
recognised by those that are like few others.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from latent_ebm.selection.base import TokenSelection, check_enough, exactly, take
from samplers.checks import check_fields


@dataclass(frozen=True)
class Discriminative(TokenSelection):
    """The K tokens with the smallest scores, the smallest first.

    With the cosines ``d_ij`` of tokens i and j, token i distributes a weight of 1 over all tokens,
    ``p_i = softmax(d_i1, ..., d_iN)``. The score ``s_i = sum_j p_ji`` is the weight that token i
    gets from all: much if it is like many others. Scores are rounded to 9 decimals, because lower
    ones depend on the order of sums, and equal scores keep the order of the tokens. Source:
    equations 3 and 4 of arXiv:2312.03771.

    Args:
        num_tokens: The number K of tokens. The paper takes 24 of 1,024.

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
        order = scores(features).round(decimals=9).argsort(dim=1, stable=True)
        return take(features, order[:, : self.num_tokens])


@torch.no_grad()
def scores(features: Tensor) -> Tensor:
    """The score (batch, N) of every token of ``features`` (batch, N, D); their sum is N.

    The cosine of a token of zeros with any other is 0.
    """
    points = exactly(features)
    longest = points.abs().amax(2, keepdim=True)
    unit = normalize(points / longest.where(longest > 0, 1.0), dim=2)
    return (unit @ unit.mT).softmax(2).sum(1)
