"""Filters by a classifier of yours: of generated images, unsafe images, unsafe captions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latent_ebm.data.curation.base import Filter, Row, drop_where
from samplers.checks import check_fields


def as_scores(owner: object, scores: object, num: int) -> list[float]:
    """``scores`` as numbers. Raises ``ValueError`` unless they are ``num`` finite ones."""
    values = torch.as_tensor(scores).detach().double().cpu()
    if values.shape != (num,) or not bool(values.isfinite().all()):
        got = f"shape {tuple(values.shape)}" if values.shape != (num,) else "others"
        raise ValueError(
            f"{type(owner).__name__}: score must return {num} finite numbers, one per row, got "
            f"{got}"
        )
    return values.tolist()


def judge(
    owner: "ImageScore | CaptionScore", rows: Sequence[Row], scores: object
) -> list[Row | str]:
    """Drop rows whose score is above the limit of ``owner``."""
    reasons = [
        f"{owner.what} {score:.3g}, above {owner.most:g}" if score > owner.most else ""
        for score in as_scores(owner, scores, len(rows))
    ]
    return drop_where(rows, reasons)


@dataclass(frozen=True)
class ImageScore(Filter):
    """Drops images to which your classifier gives a score above ``most``.

    The classifier decides what is found: images of known generators, unsafe images, or anything
    else. Measure it first on images whose answer you know.

    Args:
        score: Takes a list of images (3, H, W) in [-1, 1], of any sizes, and returns one number
            per image.
        most: The limit.
        what: What the score tells, for the reason: "generated", "unsafe".

    Raises:
        ValueError: If ``score`` does not return one finite number per image.
    """

    score: Callable[[list[Tensor]], object]
    most: float = 0.5
    what: str = "score"

    def __post_init__(self) -> None:
        check_fields(self, most="finite")

    def __call__(self, rows: Sequence[Row]) -> list[Row | str]:
        return judge(self, rows, self.score([row.image for row in rows]))


@dataclass(frozen=True)
class CaptionScore(Filter):
    """Drops rows to whose caption your classifier gives a score above ``most``.

    Args:
        score: Takes a list of captions and returns one number per caption.
        most: The limit.
        what: What the score tells, for the reason: "unsafe".

    Raises:
        ValueError: If ``score`` does not return one finite number per caption.
    """

    score: Callable[[list[str]], object]
    most: float = 0.5
    what: str = "score"

    def __post_init__(self) -> None:
        check_fields(self, most="finite")

    def __call__(self, rows: Sequence[Row]) -> list[Row | str]:
        return judge(self, rows, self.score([row.caption for row in rows]))
