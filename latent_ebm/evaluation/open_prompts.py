r"""Open prompts, such as "food": are all right answers drawn, or always the same one?

A model that knows one apple alone answers "food" rightly every time. What shows it is how many
*different* right answers its pictures give, and how their kinds are spread.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from latent_ebm.metrics import Share, share_of
from samplers.checks import check_numbers

K = TypeVar("K", bound=Hashable)
Answers = Sequence[Hashable] | Tensor


class OpenCoverage(NamedTuple):
    """``right`` is the share of pictures with a right answer. ``coverage`` is the number of
    different right answers over the number to expect of as many uniform draws, so that it is about
    1 for the best model; a model that repeats itself less than chance exceeds it.
    """

    right: Share
    coverage: float


def open_coverage(answers: Answers, right: Answers, *, confidence: float = 0.99) -> OpenCoverage:
    """How well the pictures of one open prompt cover its right answers.

    Of K answers, n uniform draws give ``K (1 - (1 - 1/K)^n)`` different ones in expectation.

    Args:
        answers: What each picture shows, such as the number of the nearest picture of a gallery
            (n,): integers or other names.
        right: All right answers of the prompt.
        confidence: Coverage of the Wilson interval of ``right``, in (0, 1).

    Raises:
        ValueError: If there is no picture or no right answer, or a tensor holds no integers.
    """
    shown, wanted = listed("answers", answers), set(listed("right", right))
    found = [answer for answer in shown if answer in wanted]
    expected = len(wanted) * (1 - (1 - 1 / len(wanted)) ** len(shown))
    share = share_of(len(found), len(shown), confidence)
    return OpenCoverage(share, len(set(found)) / expected)


def category_histogram(values: Sequence[K], categories: Sequence[K]) -> dict[K, int]:
    """How often each of ``categories`` is among ``values``, in the order of the categories.

    Raises ``ValueError`` for a value that is not a category.
    """
    counts = Counter(values)
    if unknown := counts.keys() - set(categories):
        raise ValueError(f"values must be categories, got {next(iter(unknown))!r}")
    return {category: counts[category] for category in categories}


def histogram_kl(shown: Mapping[K, int], expected: Mapping[K, int]) -> float:
    """KL divergence in nats of the histogram ``shown`` from the histogram ``expected``.

    Half a count of every category is added to both, so that an empty category costs no infinity.
    The divergence of few draws is above 0 even if they are draws of ``expected``.

    Raises ``ValueError`` unless both have the same categories, one at least, and counts are not
    negative.
    """
    for name, part in (("shown", shown), ("expected", expected)):
        for category, count in part.items():
            check_numbers(name, "non-negative", **{str(category): count})
    if shown.keys() != expected.keys() or not shown:
        raise ValueError(
            f"shown and expected must have the same categories, got {list(shown)} and "
            f"{list(expected)}"
        )
    p, q = (torch.tensor([part[c] + 0.5 for c in shown]).double() for part in (shown, expected))
    p, q = p / p.sum(), q / q.sum()
    return float((p * (p / q).log()).sum())


def listed(name: str, values: Answers) -> list[Hashable]:
    """``values`` as a list. Raises ``ValueError`` if there are none, or not a tensor (n,) of
    integers.
    """
    if isinstance(values, Tensor):
        if values.ndim != 1 or values.is_floating_point() or values.is_complex():
            raise ValueError(
                f"{name} must be integers (n,), got {values.dtype} of shape {tuple(values.shape)}"
            )
        values = values.tolist()
    if not len(values):
        raise ValueError(f"{name} must hold one answer at least, got none")
    return list(values)
