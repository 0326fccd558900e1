"""Retrieval: does a score find what is right among everything?

A row of scores is a query, such as a prompt, and a column a candidate, such as a picture. All
scores come from one matrix product: ``Scorer.score_matrix``, or ``queries @ gallery.T`` of unit
vectors.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from latent_ebm.metrics import Share, share_of
from samplers.checks import check_counts, check_kind


def retrieval_recall(
    scores: Tensor,
    right: Tensor,
    ranks: Sequence[int] = (1, 5, 10),
    *,
    confidence: float = 0.99,
) -> dict[int, Share]:
    """For each rank k, the share of queries with a right candidate among the k best, with the
    Wilson interval of independent queries.

    A wrong candidate with the same score as a right one counts as better, so that a constant
    score finds nothing.

    Args:
        scores: Score (n, m) of each of m candidates for each of n queries; higher is better.
        right: Whether each candidate is right (n, m); every query has one right candidate or more.
        ranks: The ranks k, from 1 to m.
        confidence: Coverage of the intervals, in (0, 1).

    Raises:
        ValueError: For other shapes, scores that are not finite, a query without a right
            candidate, or a number out of range.
    """
    check_kind("retrieval_recall", Tensor, scores=scores, right=right)
    if scores.ndim != 2 or right.shape != scores.shape or right.dtype != torch.bool:
        raise ValueError(
            f"scores and right must be matrices of one shape, right of truth values, got "
            f"{tuple(scores.shape)} and {right.dtype} of {tuple(right.shape)}"
        )
    if not len(scores):
        raise ValueError("scores must be those of one query or more, got none")
    if not bool(scores.isfinite().all()):
        raise ValueError("scores must be finite, got NaN or infinite entries")
    if none := int((~right.any(1)).sum()):
        raise ValueError(f"right must mark a candidate of every query, got {none} without one")
    for k in ranks:
        check_counts("retrieval_recall", rank=k)
        if k > scores.shape[1]:
            raise ValueError(f"rank must be at most {scores.shape[1]}, the candidates, got {k}")
    best = scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
    before = ((scores >= best) & ~right).sum(1)  # wrong candidates that come first
    return {k: share_of(int((before < k).sum()), len(scores), confidence) for k in ranks}
