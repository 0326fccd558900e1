"""Ratings of two models side by side: who was compared, by whom, and which one was better."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from samplers.checks import check_kind, check_number


class Rating(NamedTuple):
    """One answer of one rater: ``first`` and ``second`` are models, and ``better`` is the name of
    one of them, or None for "indifferent".
    """

    first: str
    second: str
    better: str | None
    rater: str = ""
    prompt: str = ""
    question: str = "preference"


def check_ratings(ratings: Sequence[Rating]) -> None:
    """Raise ``ValueError`` unless ``ratings`` are of two different models each, all of one
    question, and at least one.
    """
    if not len(ratings):
        raise ValueError("ratings must hold at least one rating, got none")
    for row, rating in enumerate(ratings):
        check_kind("ratings", Rating, **{f"row {row}": rating})
        if rating.first == rating.second:
            raise ValueError(
                f"ratings must compare two models, but row {row} compares {rating.first!r} with "
                "itself"
            )
        if rating.better not in (rating.first, rating.second, None):
            raise ValueError(
                f"better must be {rating.first!r}, {rating.second!r} or None in row {row}, got "
                f"{rating.better!r}"
            )
    if len(questions := sorted({rating.question for rating in ratings})) > 1:
        raise ValueError(f"ratings must answer one question, got {', '.join(questions)}")


def models_of(ratings: Sequence[Rating]) -> tuple[str, ...]:
    """The names of all models in ``ratings``, sorted."""
    return tuple(sorted({name for r in ratings for name in (r.first, r.second)}))


def win_matrix(ratings: Sequence[Rating]) -> tuple[tuple[str, ...], Tensor]:
    """The models, sorted, and the share (n, n) of ratings in which the row beats the column.

    "Indifferent" counts half for either side. A pair that was never compared, and the diagonal,
    are NaN. Raises ``ValueError`` for ratings of several questions, or of a model with itself.
    """
    check_ratings(ratings)
    models = models_of(ratings)
    row = {name: i for i, name in enumerate(models)}
    points = torch.zeros(len(models), len(models), dtype=torch.float64)
    for first, second, better, *_ in ratings:
        won = 0.5 if better is None else float(better == first)
        points[row[first], row[second]] += won
        points[row[second], row[first]] += 1 - won
    return models, points / (points + points.mT)


def rater_shares(ratings: Sequence[Rating], most: float = 1.0) -> dict[str, float]:
    """The share of all ratings that each rater gave, the largest first.

    A study says more about raters in general if none of them gives a large part of it.

    Args:
        ratings: Of one question or several.
        most: The largest share that a rater may have, in (0, 1].

    Raises:
        ValueError: If there are no ratings, or a rater has a share above ``most``.
    """
    check_number("rater_shares", "most", "in (0, 1]", most)
    if not len(ratings):
        raise ValueError("ratings must hold at least one rating, got none")
    counts = Counter(rating.rater for rating in ratings).most_common()
    rater, largest = counts[0]
    if largest > most * len(ratings):
        raise ValueError(
            f"a rater must give at most {most:g} of the ratings, but {rater!r} gave "
            f"{largest / len(ratings):.3g}"
        )
    return {name: num / len(ratings) for name, num in counts}
