"""Metrics are models too: how often does a metric order two models as raters, or an oracle, do?

A *comparison* is a pair of models, of one prompt or of all. The truth says how much better the
first model is than the second, and so does each metric; signs alone count. Two rules for ties:

- A comparison in which the truth is indifferent, 0, is left out.
- A metric that says 0 does not order the two models, so it is wrong; its ties are counted.

Source: Imagen 3, arXiv:2408.07009, section 4.2.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import binomtest
from torch import Tensor

from latent_ebm.evaluation.ratings import Rating, check_ratings
from latent_ebm.metrics import Share, share_of
from samplers.checks import check_counts, check_kind, check_number


@dataclass(frozen=True)
class Agreement:
    """How often a metric and the truth agree.

    ``share`` counts the comparisons with a truth and holds its interval. ``ties`` of them the
    metric left undecided, which counts as wrong. ``p_value`` is that of an exact two-sided test
    of independent comparisons against guessing, 1/2.
    """

    share: Share
    ties: int
    p_value: float


@dataclass(frozen=True)
class Contest:
    """Two metrics on the same comparisons.

    ``only_first`` and ``only_second`` count those that one of the two alone gets right;
    ``p_value`` is that of McNemar's exact test, which compares these two counts. ``agreed`` is the
    share of right answers where both give the same order, None if they never do.
    """

    only_first: int
    only_second: int
    p_value: float
    agreed: Share | None


def meta_evaluate(
    metrics: Mapping[str, Tensor],
    truth: Tensor,
    *,
    confidence: float = 0.99,
    groups: Sequence[Hashable] | None = None,
    replicates: int = 2000,
    generator: torch.Generator | None = None,
) -> dict[str, Agreement]:
    """How often each metric orders the models of a comparison as ``truth`` does.

    Args:
        metrics: By name, the score of the first model less that of the second (n,).
        truth: How much better the first model is (n,), such as 1, 0 and -1 of a rater.
        confidence: Coverage of the intervals, in (0, 1).
        groups: What every comparison belongs to, such as its prompt, if comparisons of one group
            are alike. The intervals are then bootstrap percentiles over groups; without groups,
            or if a metric is always right or never, they are Wilson intervals, of as many trials
            as there are groups or comparisons.
        replicates: Number of bootstrap replicates.
        generator: The random stream of the bootstrap.

    Raises:
        ValueError: If a vector is not finite or of another length, the truth is all 0, there is
            one group only (with a truth), or a number is out of range.
    """
    check_number("meta_evaluate", "confidence", "in (0, 1)", confidence)
    check_counts("meta_evaluate", replicates=replicates)
    for name, scores in metrics.items():
        check_scores(name, scores, truth)
    index = None if groups is None else group_index(groups, len(truth))
    found = dict[str, Agreement]()
    for name, scores in metrics.items():
        right, decided = judge(scores, truth)
        share = share_of(int(right.sum()), int(decided.sum()), confidence)
        if index is not None:
            ends = bootstrap(right, decided, index, confidence, replicates, generator)
            share = Share(share.correct, share.num, *ends)
        ties = int(((scores == 0) & decided).sum())
        p_value = float(binomtest(share.correct, share.num).pvalue)
        found[name] = Agreement(share, ties, p_value)
    return found


def contest(first: Tensor, second: Tensor, truth: Tensor, *, confidence: float = 0.99) -> Contest:
    """Compare two metrics on the same comparisons.

    Args:
        first: The score of the first model less that of the second (n,), by one metric.
        second: The same by another metric.
        truth: How much better the first model is (n,).
        confidence: Coverage of the interval, in (0, 1).

    Raises:
        ValueError: As ``meta_evaluate``.
    """
    check_number("contest", "confidence", "in (0, 1)", confidence)
    check_scores("first", first, truth)
    check_scores("second", second, truth)
    (one, decided), (other, _) = judge(first, truth), judge(second, truth)
    a, b = int((one & ~other).sum()), int((other & ~one).sum())
    same = decided & (first.sign() == second.sign()) & (first != 0)
    agreed = share_of(int((one & same).sum()), int(same.sum()), confidence) if same.any() else None
    return Contest(a, b, float(binomtest(a, a + b).pvalue) if a + b else 1.0, agreed)


def differences(scores: Tensor) -> Tensor:
    """Scores (models, \\*items) as comparisons (pairs * items,): each model less every later one,
    pair by pair.

    Raises ``ValueError`` for less than two models.
    """
    check_kind("differences", Tensor, scores=scores)
    if scores.ndim == 0 or len(scores) < 2:
        raise ValueError(f"scores must be of two models at least, got {tuple(scores.shape)}")
    first, second = torch.triu_indices(len(scores), len(scores), 1)
    return (scores[first] - scores[second]).flatten()


def rater_orders(ratings: Sequence[Rating]) -> dict[tuple[str, str, str], int]:
    """What the majority of raters says of two models and a prompt: 1 if the first is better, -1 if
    the second is, 0 if neither. Keys are (first, second, prompt), with the two models sorted.

    Raises ``ValueError`` for ratings of several questions, or of a model with itself.
    """
    check_ratings(ratings)
    votes = defaultdict[tuple[str, str, str], int](int)
    for rating in ratings:
        first, second = sorted((rating.first, rating.second))
        vote = 0 if rating.better is None else (1 if rating.better == first else -1)
        votes[first, second, rating.prompt] += vote
    return {key: (vote > 0) - (vote < 0) for key, vote in votes.items()}


def judge(scores: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Which comparisons (n,) are right, and which have a truth."""
    decided = truth != 0
    return decided & (scores.sign() == truth.sign()), decided


def check_scores(name: str, scores: Tensor, truth: Tensor) -> None:
    """Raise ``ValueError`` unless both are finite vectors of one length, with a truth."""
    check_kind("meta_evaluation", Tensor, **{name: scores, "truth": truth})
    if truth.ndim != 1 or scores.shape != truth.shape:
        raise ValueError(
            f"{name} and truth must be vectors of one length, got shapes {tuple(scores.shape)} "
            f"and {tuple(truth.shape)}"
        )
    if not bool(scores.isfinite().all() & truth.isfinite().all()):
        raise ValueError(f"{name} and truth must be finite, got NaN or infinite entries")
    if not bool((truth != 0).any()):
        raise ValueError("truth must prefer a model at least once, got 0 everywhere")


def group_index(groups: Sequence[Hashable], num: int) -> Tensor:
    """The number (n,) of the group of every comparison."""
    if len(groups) != num:
        raise ValueError(f"groups must have one entry per comparison, {num}, got {len(groups)}")
    number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    if len(number) < 2:
        raise ValueError(f"groups must be two at least for intervals, got {len(number)}")
    return torch.tensor([number[group] for group in groups])


def bootstrap(
    right: Tensor,
    decided: Tensor,
    index: Tensor,
    confidence: float,
    replicates: int,
    generator: torch.Generator | None,
) -> tuple[float, float]:
    """The percentile interval of the share of ``right`` among ``decided``, over groups; that of
    Wilson if all are right or none. Groups without a truth are left out; ``ValueError`` if this
    leaves one.
    """
    num = int(index.max()) + 1
    counts = torch.zeros(2, num, dtype=torch.float64)
    counts.index_add_(1, index, torch.stack([right, decided]).double())
    counts = counts[:, counts[1] > 0]
    if counts.shape[1] < 2:
        raise ValueError("groups must be two at least with a truth that is not 0, got one")
    if len(right[decided].unique()) == 1:
        found = share_of(counts.shape[1] * int(right.any()), counts.shape[1], confidence)
        return found.low, found.high
    chosen = torch.randint(counts.shape[1], (replicates, counts.shape[1]), generator=generator)
    correct, total = counts[:, chosen].sum(2)
    ends = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = (correct / total).quantile(ends).tolist()
    return low, high
