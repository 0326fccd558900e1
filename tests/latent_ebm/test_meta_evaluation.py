"""Agreement of metrics with raters: counts by hand, exact tests, honest intervals."""

import math

import pytest
import torch
from torch import Tensor

from latent_ebm.evaluation import (
    Rating,
    contest,
    differences,
    meta_evaluate,
    rater_orders,
)
from latent_ebm.metrics.intervals import share_of

TRUTH = torch.tensor([1.0, -1, 1, 1, -1, 0, 0, 2])
METRIC = torch.tensor([0.3, -9, -1, 0, 0.1, 5, 0, 1e-9])  # right: 0, 1, 7; wrong: 2, 3, 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_counts_by_hand() -> None:
    found = meta_evaluate({"m": METRIC, "truth": TRUTH, "worst": -TRUTH}, TRUTH)
    assert (found["m"].share.correct, found["m"].share.num, found["m"].ties) == (3, 6, 1)
    assert found["m"].p_value == 1
    assert found["truth"].share.estimate == 1
    assert found["truth"].p_value == found["worst"].p_value == pytest.approx(2 / 2**6)
    assert found["worst"].share.estimate == 0


def test_mcnemar_looks_at_what_one_metric_alone_gets_right() -> None:
    truth = torch.ones(20)
    first = torch.tensor([1.0] * 17 + [-1.0] * 3)
    second = torch.tensor([1.0] * 9 + [-1.0] * 9 + [1.0] * 2)
    found = contest(first, second, truth)
    assert (found.only_first, found.only_second) == (8, 2)
    tail = sum(math.comb(10, k) for k in range(3)) / 2**10
    assert found.p_value == pytest.approx(2 * tail)
    assert found.agreed is not None
    assert (found.agreed.correct, found.agreed.num) == (9, 10)
    same = contest(first, first, truth)
    assert (same.only_first, same.only_second, same.p_value) == (0, 0, 1)


def test_metrics_that_never_agree_and_ties_of_both() -> None:
    truth = torch.tensor([1.0, 1, -1])
    assert contest(truth, -truth, truth).agreed is None
    both = contest(torch.tensor([0.0, 1, 1]), torch.tensor([0.0, 1, 1]), truth).agreed
    assert both is not None
    assert (both.correct, both.num) == (1, 2)


def grouped(size: int, groups: int = 300) -> tuple[Tensor, list[int]]:
    """``size`` equal answers of a metric in every group, right with probability .7."""
    right = torch.rand(groups, generator=seeded(1)) < 0.7
    names = [g for g in range(groups) for _ in range(size)]
    return torch.where(right, 1.0, -1.0).repeat_interleave(size), names


def test_intervals_over_groups_know_that_equal_answers_are_one() -> None:
    widths = []
    for size in (1, 4):
        scores, names = grouped(size)
        truth = torch.ones(len(scores))
        alone = meta_evaluate({"m": scores}, truth)["m"].share
        share = meta_evaluate({"m": scores}, truth, groups=names, generator=seeded())["m"].share
        assert (share.correct, share.num) == (alone.correct, alone.num)
        assert share.low < share.estimate < share.high
        widths.append((share.high - share.low) / (alone.high - alone.low))
    assert widths == pytest.approx([1, 2], rel=0.1)


def test_intervals_over_groups_cover_as_often_as_they_say() -> None:
    """At 90 %, of which a fault is seen with fewer studies than at 99 %."""
    studies, groups, size = 400, 60, 3
    generator, covered = seeded(5), 0
    names = [g for g in range(groups) for _ in range(size)]
    for _ in range(studies):
        chance = torch.where(torch.rand(groups, generator=generator) < 0.5, 0.9, 0.5)
        right = torch.rand(groups, size, generator=generator) < chance[:, None]
        scores, truth = torch.where(right, 1.0, -1.0).flatten(), torch.ones(groups * size)
        options = {"confidence": 0.9, "replicates": 300, "generator": generator}
        share = meta_evaluate({"m": scores}, truth, groups=names, **options)["m"].share
        covered += share.low <= 0.7 <= share.high
    assert abs(covered / studies - 0.9) < 3 * (0.9 * 0.1 / studies) ** 0.5


@pytest.mark.parametrize("right", [True, False])
def test_a_metric_that_is_always_right_is_not_certain(right: bool) -> None:
    truth = torch.ones(40)
    scores = truth if right else -truth
    names = [i // 2 for i in range(40)]
    share = meta_evaluate({"m": scores}, truth, groups=names, generator=seeded())["m"].share
    alone = share_of(20 * right, 20)
    assert (share.low, share.high) == (alone.low, alone.high)
    assert (share.correct, share.num) == (40 * right, 40)


def test_comparisons_of_all_pairs() -> None:
    scores = torch.tensor([[1.0, 5], [2, 2], [4, 4]])
    assert differences(scores).tolist() == [-1, 3, -3, 1, -2, -2]
    assert differences(scores[:, 0]).tolist() == [-1, -3, -2]


def test_the_majority_of_raters_decides() -> None:
    ratings = [
        Rating("b", "a", "a", "x", "cat"),
        Rating("a", "b", "a", "y", "cat"),
        Rating("a", "b", "b", "z", "cat"),
        Rating("a", "b", None, "x", "dog"),
        Rating("b", "c", "c", "x", "dog"),
        Rating("c", "b", None, "y", "dog"),
        Rating("a", "b", "a", "x", "owl"),
        Rating("a", "b", "b", "y", "owl"),
    ]
    expected = {("a", "b", "cat"): 1, ("a", "b", "dog"): 0, ("b", "c", "dog"): -1}
    assert rater_orders(ratings) == {**expected, ("a", "b", "owl"): 0}


ODD = [
    ({"m": torch.ones(2)}, torch.ones(3), {}, r"m and truth must be vectors of one length, got"),
    ({"m": torch.tensor([math.nan])}, torch.ones(1), {}, "m and truth must be finite"),
    ({"m": torch.ones(2)}, torch.zeros(2), {}, "truth must prefer a model at least once, got 0"),
    ({"m": [1.0]}, torch.ones(1), {}, "m must be a Tensor, got"),
    ({"m": METRIC}, TRUTH, {"confidence": 0}, r"confidence must be in \(0, 1\), got 0"),
    ({"m": METRIC}, TRUTH, {"groups": "ab"}, "one entry per comparison, 8, got 2"),
    ({"m": METRIC}, TRUTH, {"groups": "a" * 8}, "groups must be two at least"),
    (
        {"m": torch.ones(4)},
        torch.tensor([1.0, -1, 0, 0]),
        {"groups": "aabb"},
        "groups must be two at least with a truth that is not 0, got one",
    ),
]


@pytest.mark.parametrize(("metrics", "truth", "options", "message"), ODD)
def test_odd_input_is_refused(
    metrics: dict[str, Tensor], truth: Tensor, options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        meta_evaluate(metrics, truth, **options)


def test_scores_of_one_model_are_refused() -> None:
    with pytest.raises(ValueError, match="scores must be of two models at least"):
        differences(torch.ones(1, 4))
