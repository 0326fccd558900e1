r"""Filters of prompts and of images, whose decisions say why.

Texts are folded first (``latent_ebm.text.fold``), so that capitals, accents, invisible characters
and letters of other alphabets hide nothing. A filter that refuses everything violates no policy
and serves nobody: judge one by its violation rate *and* its over-refusal rate (``assurance``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latent_ebm.text.terms import TermSearch
from samplers.checks import check_numbers


@dataclass(frozen=True)
class Decision:
    """Whether a prompt or an image may pass, and why not.

    Args:
        allowed: Whether it may pass.
        reason: Why not; "" if it may.
        span: Where in the prompt, as ``prompt[span[0]:span[1]]``; None if no part is to blame.
    """

    allowed: bool
    reason: str = ""
    span: tuple[int, int] | None = None

    def __bool__(self) -> bool:
        return self.allowed


ALLOWED = Decision(True)
PromptFilter = Callable[[str], Decision]
ImageFilter = Callable[[Tensor], list[Decision]]  # images (n, C, H, W) -> n decisions


class Terms:
    """Refuses prompts that hold one of your terms or match one of your patterns, after folding.

    "bomb" refuses "BOMB!", "b0mb", "b.o.m.b" and a "bomb" with a Cyrillic o, but not "bombastic".

    Args:
        terms: Words or phrases, found as whole words, also in disguise. Give plurals and other
            forms too.
        patterns: Regular expressions: write them in small letters without accents.

    Raises:
        ValueError: If there is neither, a term has no letter or digit, or a pattern is not valid
            or matches the empty text.
    """

    def __init__(self, terms: Sequence[str] = (), patterns: Sequence[str] = ()) -> None:
        self.search = TermSearch(terms, patterns)

    def __call__(self, prompt: str) -> Decision:
        found = self.search(check_text(prompt))
        if found is None:
            return ALLOWED
        return Decision(False, f"{found.name} in {prompt[slice(*found.span)]!r}", found.span)


class Classified:
    """Refuses prompts, or images, for which a classifier of yours is too sure of a violation.

    Args:
        classify: Maps a list of prompts, or images (n, C, H, W), to scores (n,), high for a
            violation.
        threshold: The least score that is refused. ``threshold_for`` chooses one.
        reason: What the classifier looks for.

    Raises:
        ValueError: If the threshold is not finite.
    """

    def __init__(
        self, classify: Callable[..., Tensor], threshold: float, reason: str = "classifier"
    ) -> None:
        check_numbers(self, "finite", threshold=threshold)
        self.classify, self.threshold, self.reason = classify, threshold, reason

    def __call__(self, prompt: str) -> Decision:
        """The decision on one prompt."""
        return self._decide([check_text(prompt)])[0]

    def images(self, x: Tensor) -> list[Decision]:
        """The decisions on images (n, C, H, W)."""
        return self._decide(x)

    def _decide(self, inputs: list[str] | Tensor) -> list[Decision]:
        scores = check_scores(self.classify(inputs), len(inputs))
        return [
            Decision(False, f"{self.reason}: {score:.3g} >= {self.threshold:g}")
            if score >= self.threshold
            else ALLOWED
            for score in scores.tolist()
        ]


class AllOf:
    """Lets a prompt pass if all ``filters`` do; the decision is the first refusal.

    Args:
        filters: Filters of prompts, the cheapest first.
    """

    def __init__(self, filters: Sequence[PromptFilter]) -> None:
        self.filters = tuple(filters)

    def __call__(self, prompt: str) -> Decision:
        return next((d for f in self.filters if not (d := f(prompt)).allowed), ALLOWED)


def threshold_for(scores: Tensor, max_refused: float) -> float:
    """The least threshold of ``Classified`` that refuses at most the share ``max_refused`` of
    harmless inputs with these ``scores`` (n,).

    Raises ``ValueError`` for scores that are not finite, or a share outside [0, 1].
    """
    check_numbers("threshold_for", "in [0, 1]", max_refused=max_refused)
    values = check_scores(scores, len(scores)).sort(descending=True).values
    if not len(values) or not bool(values.isfinite().all()):
        got = "an infinite one" if len(values) else "none"
        raise ValueError(f"scores must be finite numbers, one or more, got {got}")
    refused = int(max_refused * len(values) + 1e-9)
    if refused == len(values):
        return float(values[-1])
    return float(torch.nextafter(values[refused], values.new_tensor(torch.inf)))


def check_text(text: object) -> str:
    """``text``. Raises ``ValueError`` unless it is a string."""
    if not isinstance(text, str):
        raise ValueError(f"a prompt must be a string, got {text!r:.100}")
    return text


def check_decision(decision: object) -> Decision:
    """``decision``. Raises ``ValueError`` unless it is a ``Decision``."""
    if not isinstance(decision, Decision):
        raise ValueError(f"a filter must return a Decision, got {decision!r:.100}")
    return decision


def check_scores(scores: object, num: int) -> Tensor:
    """``scores`` (num,) in float64. Raises ``ValueError`` for another shape and for NaN."""
    if not isinstance(scores, Tensor) or scores.shape != (num,) or bool(scores.isnan().any()):
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        got = "NaN" if shape == (num,) else shape
        raise ValueError(f"scores must be numbers of shape ({num},), got {got}")
    return scores.detach().double()
