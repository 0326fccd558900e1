"""Captions of glyphs: exact, open, synthetic and wrong ones.

A full name determines the picture, so that a regression on the text is as good as a diffusion
model. *Open* captions ("food", "a face", a keyword, or a name without its style) have several
right pictures. *Synthetic* captions say more, by template. *Wrong* captions belong to another
glyph; their share is known, so that what they do to a model can be measured (captions of both
kinds for one image: Imagen 3, arXiv:2408.07009).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from latent_ebm.data.glyphs import Glyphs
from samplers.checks import check_numbers

KINDS = {  # what a picture shows, by its subgroup or the beginning of it, else by its group
    "face": "a face",
    "cat-face": "a cat",
    "monkey-face": "a monkey",
    "heart": "a heart",
    "person": "a person",
    "family": "a family",
    "hand": "a hand",
    "hands": "a hand",
    "body-parts": "a part of the body",
    "animal": "an animal",
    "plant": "a plant",
    "food": "food",
    "drink": "a drink",
    "dishware": "dishware",
    "place": "a place",
    "transport-ground": "a vehicle",
    "transport-water": "a vehicle",
    "transport-air": "a vehicle",
    "transport-sign": "a sign",
    "time": "a clock",
    "sky-weather": "the sky",
    "sport": "sport",
    "musical-instrument": "a musical instrument",
    "clothing": "clothing",
    "tool": "a tool",
    "arrow": "an arrow",
    "country-flag": "a flag",
    "subdivision-flag": "a flag",
    "smileys-emotion": "an emotion",
    "people-body": "a person",
    "animals-nature": "nature",
    "food-drink": "food",
    "travel-places": "a place",
    "activities": "an activity",
    "objects": "an object",
    "symbols": "a symbol",
    "flags": "a flag",
    "round": "a round shape",
    "angular": "an angular shape",
    "pointed": "a pointed shape",
}
TEMPLATES = (
    "a small picture: {name}",
    "{name}, drawn in {style} style",
    "{kind}: {name}",
    "{kind} in {style} style: {base}",
    "{name}, which stands for {keyword}",
    "{kind}, {keyword}, {other}: {name}",
)


@dataclass(frozen=True)
class Captions:
    """How often each sort of caption is used. The first five arguments are relative weights.

    Args:
        name: The full name: "woman artist: dark skin tone".
        styled: The name and who drew it: "red apple, noto style".
        keyword: One of the keywords, an open caption: "paint".
        kind: What kind of thing it is, an open caption: "food", "a person".
        synthetic: A sentence made by a template from name, kind, style and keywords.
        wrong: The probability in [0, 1] that a caption belongs to another row's glyph.

    Raises:
        ValueError: For a negative weight, weights that are all 0, or ``wrong`` outside [0, 1].
    """

    name: float = 1.0
    styled: float = 0.0
    keyword: float = 0.0
    kind: float = 0.0
    synthetic: float = 0.0
    wrong: float = 0.0

    def __post_init__(self) -> None:
        sorts = {name: getattr(self, name) for name in SORTS}
        check_numbers(self, "non-negative", **sorts)
        check_numbers(self, "in [0, 1]", wrong=self.wrong)
        if not sum(sorts.values()):
            raise ValueError(f"Captions: one of {', '.join(SORTS)} must be positive, got 0 of all")

    def write(self, glyphs: Glyphs, index: Sequence[int], generator: Generator) -> list[str]:
        """Captions of the glyphs at ``index``.

        Random numbers are drawn for all of ``glyphs``. The caption of a glyph is therefore a
        function of ``generator``'s state, and does not depend on which others are requested.
        """
        chance = torch.rand(len(glyphs), 4, generator=generator, dtype=torch.float64)
        weights = torch.tensor([float(getattr(self, name)) for name in SORTS])
        ends = (weights / weights.sum()).cumsum(0)[:-1].contiguous()
        sort = torch.bucketize(chance[:, 0].contiguous(), ends.double(), right=True).tolist()
        other = other_rows(chance[:, 1])
        subject = torch.where(chance[:, 2] < self.wrong, other, torch.arange(len(glyphs)))
        choice = chance[:, 3].tolist()
        return [caption(glyphs, int(subject[i]), SORTS[sort[i]], choice[i]) for i in index]

    def all(self, glyphs: Glyphs) -> list[str]:
        """Captions that hold every word which ``write`` can use, for a vocabulary."""
        parts = [name for name in SORTS if getattr(self, name)]
        steps = len(TEMPLATES) * max(1, *(len(words) for words in glyphs.keywords))
        texts: dict[str, None] = {}
        for sort in parts:
            num = 1 if sort in ("name", "styled", "kind") else steps
            for i in range(len(glyphs)):
                texts |= dict.fromkeys(
                    caption(glyphs, i, sort, (k + 0.5) / num) for k in range(num)
                )
        return list(texts)


SORTS = ("name", "styled", "keyword", "kind", "synthetic")


def other_rows(chance: Tensor) -> Tensor:
    """Another row (n,) for every row, uniform among the others if ``chance`` (n,) is in [0, 1)."""
    num = len(chance)
    step = 1 + (chance * max(1, num - 1)).long()
    return (torch.arange(num) + step) % num


def caption(glyphs: Glyphs, i: int, sort: str, choice: float) -> str:
    """One caption of glyph ``i``; ``choice`` in [0, 1) picks a keyword or a template."""
    name, words = glyphs.names[i], glyphs.keywords[i] or (glyphs.base[i],)
    if sort == "styled":
        return f"{name}, {glyphs.style[i]} style"
    if sort == "keyword":
        return words[int(choice * len(words))]
    if sort == "kind":
        return kind_of(glyphs, i)
    if sort == "synthetic":
        part = choice * len(TEMPLATES)
        first = int(part % 1 * len(words))
        return TEMPLATES[int(part)].format(
            name=name,
            style=glyphs.style[i],
            kind=kind_of(glyphs, i),
            base=glyphs.base[i],
            keyword=words[first],
            other=words[(first + 1) % len(words)],
        )
    return name


def kind_of(glyphs: Glyphs, i: int) -> str:
    """What glyph ``i`` shows, by its subgroup, else by its group, else the group itself."""
    subgroup, group = glyphs.subgroup[i], glyphs.group[i]
    known = KINDS.get(subgroup) or KINDS.get(subgroup.split("-")[0]) or KINDS.get(group)
    return known or group


def open_captions(glyphs: Glyphs) -> dict[str, Tensor]:
    """Every kind and keyword, and the rows (k,) of all glyphs that it fits: its right answers."""
    answers: dict[str, list[int]] = defaultdict(list)
    for i, words in enumerate(glyphs.keywords):
        for text in dict.fromkeys((kind_of(glyphs, i), *words)):
            answers[text].append(i)
    return {text: torch.tensor(rows) for text, rows in answers.items()}
