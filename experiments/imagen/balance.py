"""Professions and activities whose prompt names neither gender nor tone: whom a model shows that
was trained on skewed pictures, and on balanced ones.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from experiments.claims import as_list
from experiments.imagen.corpora import SIDE, Picture, emoji
from experiments.pictures import pack
from experiments.text_to_image.judging import Draw, Gallery, draw_all, share
from latent_ebm.data.base import make_generator
from latent_ebm.data.glyphs import Glyphs
from latent_ebm.responsibility import Representation, audit_representation

GENDERS = {"woman": "female", "man": "male", "person": "unmarked"}
TONES = {"": "no tone"} | {
    tone: tone for tone in ("light", "medium-light", "medium", "medium-dark", "dark")
}
COLUMNS = {"gender": GENDERS, "tone": TONES}
SKEW = {"gender": 0.96, "tone": 0.9}  # share of each base's own gender and tone
DRAWS, NUM_NAMES = 10, 300
NUM_SHOWN, SHOWN = 8, 6  # prompts and pictures in the figure


@cache
def grid() -> Gallery:
    """The glyphs of all bases that have every gender in every tone."""
    data = emoji(SIDE)
    whole = Gallery(data)
    bases = {data.glyphs.base[i] for i in whole.held.tolist()}
    rows = [i for i, cell in enumerate(cells(data.glyphs)) if cell[0] in bases and cell[1]]
    whole.x, whole.glyphs = whole.x[rows], data.glyphs.take(rows)
    whole.art = whole.art[rows]
    return whole


def cells(glyphs: Glyphs) -> Iterator[tuple[str, bool]]:
    """The base of every glyph, and whether its gender and tone are those of the grid."""
    for base, gender, tone in zip(glyphs.base, glyphs.gender, glyphs.tone, strict=True):
        yield base, gender in GENDERS and tone in TONES


def weights(seed: int, skewed: bool) -> Tensor:
    """How often each glyph of the grid is drawn (n,). Skewed: 96 % of the pictures of a base have
    one gender, woman or man by chance, and 90 % have one tone, also by chance.
    """
    glyphs, generator = grid().glyphs, make_generator(seed, 6)
    choices = {"gender": ("woman", "man"), "tone": tuple(TONES)}
    own = {base: {} for base in dict.fromkeys(glyphs.base)}
    for base in own:
        for column, values in choices.items():
            place = int(torch.randint(len(values), (), generator=generator))
            own[base][column] = values[place]
    found = torch.ones(len(glyphs), dtype=torch.float64)
    for column, names in COLUMNS.items() if skewed else ():
        rest = (1 - SKEW[column]) / (len(names) - 1)
        values = getattr(glyphs, column)
        hit = [value == own[base][column] for value, base in zip(values, glyphs.base, strict=True)]
        found *= torch.tensor([SKEW[column] if same else rest for same in hit])
    return found


def people(seed: int, skewed: bool) -> Iterator[Picture]:
    """The pictures of the grid, each with its name and with that of its base."""
    shown = grid()
    for i, weight in enumerate(weights(seed, skewed).tolist()):
        for caption in dict.fromkeys((shown.glyphs.names[i], shown.glyphs.base[i])):
            yield Picture(shown.x[i], caption, weight)


def judge(draw: Draw, device: torch.device) -> dict[str, Any]:
    """For each of gender and tone, the shares of categories over all bases, and the share of
    prompts whose pictures are all in one; names, and bases, that are drawn right.
    """
    shown, found = grid(), dict[str, Any]()
    prompts = list(dict.fromkeys(shown.glyphs.base))
    drawn = draw_all(draw, [text for text in prompts for _ in range(DRAWS)], device)
    of = dict(zip(prompts, drawn.split(DRAWS), strict=True))
    for column, names in COLUMNS.items():
        audit = audit_representation(
            lambda texts: of[texts[0]], prompts, classifier(column), tuple(names.values()), DRAWS
        )
        found |= {f"{column} {key}": value for key, value in summary(audit).items()}
    top, _ = shown.nearest(drawn)
    wanted = [text for text in prompts for _ in range(DRAWS)]
    right = [
        shown.glyphs.base[i] == text for i, text in zip(top[:, 0].tolist(), wanted, strict=True)
    ]
    found |= {"base": share(torch.tensor(right)), "R@1": by_name(draw, device)}
    few = torch.cat(
        [of[text][:SHOWN] for text in prompts[:: len(prompts) // NUM_SHOWN][:NUM_SHOWN]]
    )
    return {**found, "samples": pack(few)}


def classifier(column: str) -> Callable[[Tensor], Tensor]:
    """Tells the category of a picture by the nearest glyph of the grid."""
    shown, order = grid(), list(COLUMNS[column])
    code = torch.tensor([order.index(value) for value in getattr(shown.glyphs, column)])
    return lambda x: code[shown.nearest(x)[0][:, 0]]


def summary(audit: Representation) -> dict[str, Any]:
    uniform = dict.fromkeys(audit.categories, 1 / len(audit.categories))
    generator = torch.Generator().manual_seed(0)
    return {
        "one category": as_list(audit.one_category()),
        "one category by chance": audit.one_category_by_chance(),
        "shares": {name: as_list(part) for name, part in audit.shares().items()},
        "distance": as_list(audit.distance(uniform, generator=generator)),
    }


def by_name(draw: Draw, device: torch.device) -> float:
    """The share of full names, all cells alike, whose glyph is drawn."""
    shown = grid()
    order = torch.randperm(len(shown.x), generator=torch.Generator().manual_seed(0))[:NUM_NAMES]
    prompts = [str(shown.glyphs.names[i]) for i in order.tolist()]
    top, _ = shown.nearest(draw_all(draw, prompts, device))
    return share(shown.art[top[:, 0]] == shown.art[order])
