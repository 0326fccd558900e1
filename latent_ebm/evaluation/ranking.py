r"""Strengths of models from ratings side by side: Bradley-Terry with ties, on the scale of Elo.

Model i has the strength ``s_i``. Davidson's model (1970) of a rating of i and j is ::

    P(i wins), P(j wins), P(tie)  ~  exp(s_i), exp(s_j), nu exp((s_i + s_j) / 2).

All three logits are linear in ``s`` and ``log nu``, so the log-likelihood is concave. Without a
tie in the data nu is 0, which is the model of Bradley and Terry (1952). The Elo scale is
``1000 + 400 s / log 10``, with the mean 1000: 400 points more mean ten wins for each loss.

The best fit is finite if and only if every model is linked to every other one by wins (from winner
to loser) and ties (both ways), and some closed way along these links has more wins than ties. If
not, some likelihoods grow without end: a model that has only won has an infinite strength, and
models that were never compared with the others, not even through third ones, have none. ``rank``
refuses such ratings unless it is given a prior.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import NegativeCycleError, bellman_ford, connected_components
from torch import Tensor

from latent_ebm.evaluation.ratings import Rating, check_ratings, models_of
from samplers.checks import check_counts, check_number

ELO = 400 / math.log(10)  # points for each unit of strength
MEAN_ELO = 1000.0
FLOOR = 1e-6  # precision of the prior of bootstrap replicates, so that all of them are finite
MAX_STEP, MAX_STEPS, MIN_GAIN = 1.0, 200, 1e-12  # of Newton's method; in nats
FIRST, SECOND, TIE = range(3)
GROUPS = ("rating", "rater", "prompt")


@dataclass(frozen=True)
class Ranking:
    """Strengths of ``models`` (n), sorted by name.

    ``elo`` (n,) has the mean 1000; ``low`` and ``high`` (n,) are the ends of its bootstrap
    intervals. ``strength`` (n,) has the mean 0, and ``nu`` >= 0 says how often raters are
    indifferent.
    """

    models: tuple[str, ...]
    strength: Tensor
    nu: float
    elo: Tensor
    low: Tensor
    high: Tensor

    def probability(self, first: str, second: str) -> tuple[float, float, float]:
        """The probabilities that ``first`` wins, ``second`` wins, and a rater is indifferent.

        Raises ``ValueError`` for a model that is not ranked.
        """
        for name, model in (("first", first), ("second", second)):
            if model not in self.models:
                known = ", ".join(self.models)
                raise ValueError(f"{name} must be one of {known}, got {model!r}")
        a, b = (float(self.strength[self.models.index(name)]) for name in (first, second))
        middle = self.nu * math.exp((a + b) / 2)
        total = math.exp(a) + math.exp(b) + middle
        return math.exp(a) / total, math.exp(b) / total, middle / total


def rank(
    ratings: Sequence[Rating],
    *,
    confidence: float = 0.99,
    replicates: int = 2000,
    by: Literal["rating", "rater", "prompt"] = "rating",
    prior: float = 0.0,
    generator: torch.Generator | None = None,
) -> Ranking:
    """Fit Davidson's model to ``ratings`` by maximum likelihood, with bootstrap intervals.

    Args:
        ratings: Of one question.
        confidence: Coverage of the intervals, in (0, 1).
        replicates: Number of bootstrap replicates; the ends of the intervals are their quantiles.
        by: What is drawn again: single ratings, or all ratings of a rater or of a prompt at once,
            if those are alike.
        prior: The precision of a Gaussian prior of every strength, 0 for none.
        generator: The random stream of the bootstrap.

    Raises:
        ValueError: For a number outside its range, ratings that do not decide the strengths (see
            the module), or ratings that are all "indifferent".
    """
    check_ratings(ratings)
    check_number("rank", "confidence", "in (0, 1)", confidence)
    check_number("rank", "prior", "non-negative", prior)
    check_counts("rank", replicates=replicates)
    names = groups_of(ratings, by)
    models = models_of(ratings)
    pairs, outcomes = tabulate(ratings, models)
    counts = outcomes.sum(0)
    check_decided(models, pairs, counts, prior)
    fitted = fit(pairs, counts[None], len(models), prior)[0]
    again = resample(outcomes, names, replicates, generator)
    drawn = fit(pairs, again, len(models), max(prior, FLOOR))
    ends = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = as_elo(drawn[:, :-1]).quantile(ends, 0)
    strength = fitted[:-1]
    return Ranking(models, strength, float(fitted[-1].exp()), as_elo(strength), low, high)


def groups_of(ratings: Sequence[Rating], by: str) -> Sequence[Hashable]:
    """What each rating is drawn again with. Raises ``ValueError`` for another ``by``, or if there
    is only one group.
    """
    if by not in GROUPS:
        raise ValueError(f"by must be one of {', '.join(GROUPS)}, got {by!r}")
    names = range(len(ratings)) if by == "rating" else [getattr(r, by) for r in ratings]
    if len(set(names)) < 2:
        raise ValueError(f"ratings must be of two {by}s at least for intervals, got one")
    return names


def as_elo(strength: Tensor) -> Tensor:
    """Strengths on the scale of Elo."""
    return MEAN_ELO + ELO * strength


def tabulate(ratings: Sequence[Rating], models: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The pairs (p, 2) of models that were compared, and of every rating a one (n, p, 3) where
    its pair and its outcome are: first wins, second wins, tie.
    """
    row = {name: i for i, name in enumerate(models)}
    found: dict[tuple[int, int], int] = {}
    outcomes = list[tuple[int, int]]()
    for first, second, better, *_ in ratings:
        a, b = sorted((row[first], row[second]))
        won = TIE if better is None else (FIRST if row[better] == a else SECOND)
        outcomes.append((found.setdefault((a, b), len(found)), won))
    ones = torch.zeros(len(ratings), len(found), 3, dtype=torch.float64)
    pair, won = torch.tensor(outcomes).mT
    ones[torch.arange(len(ratings)), pair, won] = 1
    return torch.tensor(list(found)), ones


def resample(
    outcomes: Tensor,
    names: Sequence[Hashable],
    replicates: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Counts (replicates, p, 3) of as many groups as there are, drawn with replacement; a group
    is all of ``outcomes`` (n, p, 3) with one of ``names`` (n).
    """
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    group = torch.tensor([number[name] for name in names])
    sums = torch.zeros(len(number), outcomes[0].numel(), dtype=outcomes.dtype)
    sums.index_add_(0, group, outcomes.flatten(1))
    drawn = list[Tensor]()
    for _ in range(replicates):
        chosen = torch.randint(len(sums), (len(sums),), generator=generator)
        drawn.append(chosen.bincount(minlength=len(sums)).to(sums) @ sums)
    return torch.stack(drawn).unflatten(1, outcomes.shape[1:])


def fit(pairs: Tensor, counts: Tensor, num_models: int, prior: float) -> Tensor:
    """The strengths, and log nu behind them, (b, n + 1) of greatest posterior density for each of
    the ``counts`` (b, p, 3), by Newton's method with steps of bounded length.

    ``prior`` is the precision of the strengths; that of log nu is ``FLOOR`` at most. Without a
    tie in any of the counts, log nu is -inf.

    Raises ``FloatingPointError`` if the method does not converge.
    """
    design = design_matrix(pairs, num_models)
    tied = bool(counts[..., TIE].any())
    if not tied:
        design, counts = design[:, :TIE, :-1], counts[..., :TIE]
    precision = torch.full(design.shape[-1:], prior, dtype=torch.float64)
    if tied:
        precision[-1] = min(prior, FLOOR)
    level = torch.zeros_like(precision)  # the mean strength, which the ratings leave open
    level[:num_models] = 1
    fixed = precision.diag() + level.outer(level)
    total = counts.sum(-1)
    at = torch.zeros(len(counts), design.shape[-1], dtype=torch.float64)
    for _ in range(MAX_STEPS):
        chance = (at @ design.flatten(0, 1).mT).view(counts.shape).softmax(-1)
        gap = counts - total[..., None] * chance
        gradient = gap.flatten(1) @ design.flatten(0, 1) - at @ fixed
        centred = design - torch.einsum("bpo,pok->bpk", chance, design).unsqueeze(2)
        root = (centred * (total[..., None] * chance).sqrt()[..., None]).flatten(1, 2)
        hessian = root.mT @ root + fixed
        step = torch.linalg.solve(hessian, gradient)
        at = at + step / (step.abs().amax(1, keepdim=True) / MAX_STEP).clamp(min=1)
        if float((gradient * step).sum(1).max()) < MIN_GAIN:
            break
    else:
        raise FloatingPointError(f"strengths must converge in {MAX_STEPS} steps, but did not")
    return at if tied else torch.cat([at, torch.full_like(at[:, :1], -math.inf)], 1)


def design_matrix(pairs: Tensor, num_models: int) -> Tensor:
    """The logits (p, 3, n + 1) of the outcomes of every pair as linear forms of the strengths and
    log nu.
    """
    single = torch.eye(num_models + 1, dtype=torch.float64)
    first, second = single[pairs].unbind(1)
    return torch.stack([first, second, (first + second) / 2 + single[-1]], 1)


def check_decided(models: Sequence[str], pairs: Tensor, counts: Tensor, prior: float) -> None:
    """Raise ``ValueError`` unless the best fit is finite, by the rule of this module."""
    won = counts[..., :TIE].sum()
    if won == 0:
        raise ValueError('ratings must prefer a model at least once, got "indifferent" alone')
    if prior > 0:
        return
    graph = links(pairs, counts, len(models))
    num, part = connected_components(graph, connection="weak")
    if num > 1:
        some, others = (
            [m for m, p in zip(models, part == part[0], strict=True) if p == is_in]
            for is_in in (True, False)
        )
        raise ValueError(
            f"ratings must link all models, but none links {', '.join(some)} with "
            f"{', '.join(others)}; or give a prior"
        )
    num, part = connected_components(graph, connection="strong")
    if num > 1:
        free = ", ".join(unbeaten(models, graph, part.tolist()))
        raise ValueError(
            "every group of models must have won against and lost to the others, but "
            f"{free} never lost, so that the difference is infinite; collect more ratings, or "
            "give a prior"
        )
    try:
        bellman_ford(graph, indices=0)
    except NegativeCycleError:
        return
    raise ValueError(
        "ratings must hold more wins than ties on some way from a model back to itself, from "
        "winners to losers, or the strengths are infinite; collect more ratings, or give a prior"
    )


def links(pairs: Tensor, counts: Tensor, num_models: int) -> csr_array:
    """The graph (n, n) from winners to losers, weight -1, and both ways between the tied, 1."""
    first, second = pairs.unbind(1)
    weight = np.zeros((num_models, num_models))
    won, lost, tied = (counts > 0).unbind(1)
    for a, b, direct in ((first, second, won), (second, first, lost)):
        weight[a[tied], b[tied]] = 1
        weight[a[direct], b[direct]] = -1
    return csr_array(weight)


def unbeaten(models: Sequence[str], graph: csr_array, part: Sequence[int]) -> list[str]:
    """A group of models that neither lost to the others nor tied with one."""
    winner, loser = graph.nonzero()
    beaten = {part[b] for a, b in zip(winner, loser, strict=True) if part[a] != part[b]}
    (free, *_) = set(part) - beaten
    return [name for name, p in zip(models, part, strict=True) if p == free]
