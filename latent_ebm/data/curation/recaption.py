"""Synthetic captions, and their mixture with the original ones.

A *captioner* is any callable that takes rows and returns one caption per row: ``Templates``, or a
vision-language model, as in ``lambda rows: model([row.image for row in rows])``. Captions of both
kinds for the images of one set: Imagen 3, arXiv:2408.07009.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from latent_ebm.data.curation.base import Filter, Row
from latent_ebm.text.tokenizer import check_list, check_prompt
from samplers.checks import check_counts, check_numbers

Captioner = Callable[[Sequence[Row]], Sequence[str]]


def chance(seed: int, use: str, name: str) -> float:
    """A number in [0, 1) that is a function of its arguments alone, so that it depends neither on
    the order of the rows nor on where a run was cut.
    """
    digest = blake2b(f"{seed} {use} {name}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 2**56


@dataclass(frozen=True)
class Templates:
    """A captioner that puts the caption into a template.

    Args:
        templates: Texts that hold ``{caption}``, such as "a drawing of {caption}".
        seed: Decides, together with the name of a row, which template it gets.

    Raises:
        ValueError: If there is no template, or one does not hold ``{caption}`` alone.
    """

    templates: Sequence[str]
    seed: int = 0

    def __post_init__(self) -> None:
        check_list("Templates: templates", self.templates)
        check_counts(self, least=0, seed=self.seed)
        if not self.templates:
            raise ValueError("Templates: templates must hold an entry, got none")
        for text in self.templates:
            check_template(text)

    def __call__(self, rows: Sequence[Row]) -> list[str]:
        places = [chance(self.seed, "template", row.name) * len(self.templates) for row in rows]
        return [
            self.templates[int(place)].format(caption=row.caption)
            for place, row in zip(places, rows, strict=True)
        ]


def check_template(text: object) -> None:
    """Raise ``ValueError`` unless ``text`` holds ``{caption}`` and no other field."""
    try:
        filled = text.format(caption="\0") if isinstance(text, str) else ""
    except (KeyError, IndexError, ValueError, AttributeError):
        filled = ""
    if "\0" not in filled:
        raise ValueError(
            f"Templates: templates must hold {{caption}} and no other field, got {text!r}"
        )


@dataclass(frozen=True)
class Mixture(Filter):
    """Replaces a share of the captions by synthetic ones. It drops no row.

    Filters that come after it see the new captions; those before it see the original ones. Put it
    before the filters of captions, so that these also judge what a model has written.

    Args:
        captioners: Callables that take rows and return one caption per row.
        shares: The probability of each of these; the rest of the rows keep their caption.
        seed: Decides, together with the name of a row, which caption it gets.

    Raises:
        ValueError: If shares are not in [0, 1], add up to more than 1, or are not one per
            captioner; when called, if a captioner does not return one caption per row.
    """

    captioners: Sequence[Captioner]
    shares: Sequence[float]
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, least=0, seed=self.seed)
        for share in self.shares:
            check_numbers(self, "in [0, 1]", shares=share)
        if len(self.shares) != len(self.captioners) or sum(self.shares) > 1 + 1e-9:
            raise ValueError(
                "Mixture: shares must be one per captioner and add up to at most 1, got "
                f"{len(self.captioners)} captioners and {list(self.shares)}"
            )

    def __call__(self, rows: Sequence[Row]) -> list[Row | str]:
        chosen = [self.choose(row.name) for row in rows]
        mixed: list[Row | str] = list(rows)
        for k, captioner in enumerate(self.captioners):
            places = [i for i, choice in enumerate(chosen) if choice == k]
            captions = self.ask(captioner, [rows[i] for i in places])
            for i, caption in zip(places, captions, strict=True):
                mixed[i] = rows[i].with_caption(caption)
        return mixed

    def choose(self, name: str) -> int:
        """The number of the captioner of row ``name``; -1 for its own caption."""
        value, end = chance(self.seed, "mixture", name), 0.0
        for k, share in enumerate(self.shares):
            end += share
            if value < end:
                return k
        return -1

    def ask(self, captioner: Captioner, rows: Sequence[Row]) -> Sequence[str]:
        """Captions of ``rows``, checked."""
        captions = captioner(rows) if rows else []
        check_list("Mixture: captions of a captioner", captions)
        if len(captions) != len(rows):
            raise ValueError(
                f"Mixture: a captioner must return one caption per row, got {len(captions)} for "
                f"{len(rows)} rows"
            )
        for row, caption in zip(rows, captions, strict=True):
            check_prompt(f"Mixture: the new caption of {row.name!r}", caption)
            if not caption.strip():
                raise ValueError(f"Mixture: the new caption of {row.name!r} must not be empty")
        return captions
