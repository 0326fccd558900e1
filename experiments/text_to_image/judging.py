"""What pictures show, by the nearest glyph among all glyphs; identical art counts as right."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from latent_ebm.conditions import Condition
from latent_ebm.data import Emoji
from latent_ebm.data.captions import KINDS, open_captions
from latent_ebm.data.glyphs import Glyphs
from latent_ebm.evaluation import category_histogram, histogram_kl, open_coverage

Draw = Callable[[list[str], torch.Generator], Tensor]
Item = TypeVar("Item")
ATTRIBUTES = ("base", "gender", "tone")
NUM_NAMES, CHUNK = 300, 100  # names of each sort that are drawn; pictures drawn at once
LEAST, NUM_UNSTYLED = 8, 64  # right answers of a kind, at least; names without a style


def drawing(rule: Any, **options: Any) -> Draw:
    """Pictures (n, 3, side, side) of prompts, as ``rule`` draws them with ``options``."""

    def draw(prompts: list[str], generator: torch.Generator) -> Tensor:
        told: Condition = rule.conditioner.tokens(prompts)
        return rule.generate(len(prompts), told, generator=generator, **options)["x"]

    return draw


@torch.no_grad()
def draw_all(
    draw: Callable[[list[Item], torch.Generator], Tensor],
    items: Sequence[Item],
    device: torch.device,
) -> Tensor:
    """Pictures of all ``items``, such as prompts, in [-1, 1], on the CPU; the same noise in every
    call.
    """
    chunks = [list(items[i : i + CHUNK]) for i in range(0, len(items), CHUNK)]
    parts = [
        draw(part, torch.Generator(device).manual_seed(i)).clamp(-1, 1).cpu()
        for i, part in enumerate(chunks)
    ]
    return torch.cat(parts)


class Gallery:
    """All glyphs of a data module on its background, to find the nearest to a picture."""

    def __init__(self, data: Emoji) -> None:
        self.glyphs, self.held = data.glyphs, data.split_rows()[2]
        self.x = self.glyphs.on(data.background)
        self.art = self.glyphs.art

    def nearest(self, x: Tensor, num: int = 1) -> tuple[Tensor, Tensor]:
        """Rows (n, num) of the nearest glyphs of pictures x, and root mean squared distances."""
        found = torch.cdist(x.flatten(1), self.x.flatten(1)).topk(num, largest=False)
        return found.indices, found.values / self.x[0].numel() ** 0.5

    def rows(self) -> dict[str, Tensor]:
        """Rows of glyphs that are drawn by name: 300 each of people and others, among them some
        for validation, and those that are held out.
        """
        person = torch.tensor([group == "people-body" for group in self.glyphs.group])
        seen = torch.ones(len(person), dtype=torch.bool)
        seen[self.held] = False
        found = {"other": some(seen & ~person), "people": some(seen & person)}
        return {**found, "held out": self.held}


def some(mask: Tensor) -> Tensor:
    """At most 300 positions at which ``mask`` is True, always the same."""
    rows = mask.nonzero()[:, 0]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    return rows[order[:NUM_NAMES]]


def names(draw: Draw, gallery: Gallery, device: torch.device) -> dict[str, float]:
    """Retrieval of glyphs that are drawn by name: shares at rank 1 and within 5; for compositions
    that were held out also the shares whose base, gender and tone are right.
    """
    found: dict[str, float] = {}
    for part, rows in gallery.rows().items():
        prompts = [str(gallery.glyphs.names[i]) for i in rows.tolist()]
        top, _ = gallery.nearest(draw_all(draw, prompts, device), 5)
        hit = gallery.art[top] == gallery.art[rows][:, None]
        found |= {f"{part} R@1": share(hit[:, 0]), f"{part} R@5": share(hit.any(1))}
        if part == "held out":
            found |= {
                name: share(same(gallery.glyphs, name, top[:, 0], rows)) for name in ATTRIBUTES
            }
    return found


def same(glyphs: Glyphs, column: str, a: Tensor, b: Tensor) -> Tensor:
    """Whether glyphs at ``a`` and ``b`` (n,) agree in a column."""
    values = getattr(glyphs, column)
    return torch.tensor([values[i] == values[j] for i, j in zip(a, b, strict=True)])


def share(hit: Tensor) -> float:
    """The share of True."""
    return hit.double().mean().item()


def grain(x: Tensor) -> float:
    """Mean squared difference of pictures x (n, 3, side, side) from the medians of 3x3 pixels."""
    near = pad(x, (1, 1, 1, 1), mode="replicate").unfold(2, 3, 1).unfold(3, 3, 1)
    return (x - near.flatten(-2).median(-1).values).square().mean().item()


def openness(draw: Draw, gallery: Gallery, device: torch.device) -> dict[str, float]:
    """How well open captions are drawn: kinds of things ("food"), and names without their style.
    Means over captions:

    - right: the share of pictures whose nearest glyph fits the caption;
    - coverage: different right answers, over the number that uniform draws would give;
    - kl: divergence of the nearest glyphs' subgroups, or styles, from those of the right answers,
      above 0 even for uniform draws of right answers, because there are few;
    - distance: root mean squared, to the nearest glyph; speckle makes it larger and blur does not.
    """
    sorts = {"kinds": (kinds(gallery), 48), "styles": (unstyled(gallery), 12)}
    found: dict[str, float] = {}
    for sort, (answers, num) in sorts.items():
        prompts = [text for text in answers for _ in range(num)]
        top, distance = gallery.nearest(draw_all(draw, prompts, device))
        column = getattr(gallery.glyphs, {"kinds": "subgroup", "styles": "style"}[sort])
        per = [
            judge_open(gallery, column, rows, drawn)
            for rows, drawn in zip(answers.values(), top[:, 0].split(num), strict=True)
        ]
        means = {f"{sort} {key}": sum(one[key] for one in per) / len(per) for key in per[0]}
        found |= {**means, f"{sort} distance": distance.mean().item()}
    return found


def kinds(gallery: Gallery) -> dict[str, Tensor]:
    """Kinds of things, and the rows of at least eight right answers of each."""
    found = open_captions(gallery.glyphs)
    known = [str(kind) for kind in dict.fromkeys(KINDS.values())]
    return {kind: found[kind] for kind in known if kind in found and len(found[kind]) >= LEAST}


def unstyled(gallery: Gallery) -> dict[str, Tensor]:
    """Names of glyphs that are seen in training, no people, and the rows of all their styles."""
    rows = gallery.rows()["other"][:NUM_UNSTYLED].tolist()
    name = list(map(str, gallery.glyphs.names))
    return {name[i]: torch.tensor([k for k, n in enumerate(name) if n == name[i]]) for i in rows}


def judge_open(
    gallery: Gallery, column: Sequence[str], rows: Tensor, nearest: Tensor
) -> dict[str, float]:
    """Metrics of one open caption with right answers ``rows``, from the ``nearest`` glyphs (k,) of
    its pictures.
    """
    found = open_coverage(gallery.art[nearest], gallery.art[rows])
    categories = sorted(set(column))
    shown, expected = (
        category_histogram([column[i] for i in part.tolist()], categories)
        for part in (nearest, rows)
    )
    kl = histogram_kl(shown, expected)
    return {"right": found.right.estimate, "coverage": found.coverage, "kl": kl}
