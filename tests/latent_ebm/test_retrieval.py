"""Recall at ranks, by sorting; ties and chance."""

import pytest
import torch
from torch import Tensor

from latent_ebm.data.base import make_generator
from latent_ebm.evaluation import retrieval_recall


def table(num: int, size: int, chance: float) -> tuple[Tensor, Tensor]:
    """Random scores, and pairs that are right, one a row at least."""
    scores = torch.randn(num, size, generator=make_generator(1))
    right = torch.rand(num, size, generator=make_generator(2)) < chance
    right[torch.arange(num), torch.randint(size, (num,), generator=make_generator(3))] = True
    return scores, right


def test_recall_is_that_of_sorted_rows_with_several_right_answers() -> None:
    scores, right = table(60, 30, 0.05)
    found = retrieval_recall(scores, right, (1, 2, 7, 30))
    for k, share in found.items():
        hits = 0
        for row, pair in zip(scores.tolist(), right.tolist(), strict=True):
            order = sorted(range(30), key=lambda j: -row[j])[:k]
            hits += any(pair[j] for j in order)
        assert (share.correct, share.num) == (hits, 60)
        assert share.low <= share.estimate <= share.high
    assert found[30].estimate == 1 > found[1].estimate > 0


def test_guessing_finds_k_of_the_gallery() -> None:
    scores, right = table(20000, 50, 0)
    for k, share in retrieval_recall(scores, right, confidence=0.999).items():
        assert share.low < k / 50 < share.high


def test_a_tie_with_what_is_wrong_finds_nothing_and_one_among_the_right_ones_is_none() -> None:
    right = torch.tensor([[True, True, False]])
    assert retrieval_recall(torch.zeros(1, 3), right, [1])[1].correct == 0
    assert retrieval_recall(torch.zeros(1, 3), right, [2])[2].correct == 1
    assert retrieval_recall(torch.tensor([[1.0, 1, 0]]), right, [1])[1].correct == 1


SCORES, RIGHT = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("scores", "right", "ranks", "message"),
    [
        (SCORES, RIGHT[:1], [1], r"matrices of one shape.*\(2, 3\) and torch.bool of \(1, 3\)"),
        (SCORES[:0], RIGHT[:0], [1], "scores must be those of one query or more, got none"),
        (SCORES, RIGHT.float(), [1], "right of truth values, got .* torch.float32"),
        (SCORES / 0, RIGHT, [1], "scores must be finite"),
        (SCORES, RIGHT & torch.tensor([[True], [False]]), [1], "of every query, got 1 without"),
        (SCORES, RIGHT, [4], "rank must be at most 3, the candidates, got 4"),
        (SCORES, RIGHT, [0], "rank must be an integer >= 1, got 0"),
    ],
)
def test_odd_input_is_refused(
    scores: Tensor, right: Tensor, ranks: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        retrieval_recall(scores, right, ranks)
