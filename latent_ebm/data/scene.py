"""Scenes: one to five glyphs on a background, a pixel apart at least, and where each is.

A scene is drawn by chance, rendered to a picture, and described by a mask per object. All of it is
exact: ``latent_ebm.data.scene_parser`` reads a picture back into its scene.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from latent_ebm.data.glyphs import Glyphs, compose, premultiplied
from samplers.checks import check_counts, check_numbers

SIZES = (12, 13, 14, 15, 16)  # pixels of an object's side
SIDES = (32, 64)  # pixels of a picture's side
MAX_NUM, MAX_KINDS = 5, 3  # objects of a scene; different glyphs among them
MIN_CONTRAST = 0.01  # least mean squared difference between a visible glyph and its background
GAP = 1  # pixels between two objects, at least
MAX_TRIES = 10_000
PALETTE = {
    "white": (1.0, 1.0, 1.0),
    "black": (0.08, 0.08, 0.1),
    "grey": (0.6, 0.6, 0.6),
    "blue": (0.55, 0.78, 0.98),
    "green": (0.6, 0.88, 0.55),
    "yellow": (1.0, 0.93, 0.55),
    "pink": (1.0, 0.72, 0.82),
    "purple": (0.35, 0.2, 0.5),
}
TEXTURES = ("plain", "striped", "checked", "dotted")
TONE, PERIOD = 0.08, 4  # of textures: difference of the second colour; pixels


class Placed(NamedTuple):
    """An object: the row of its glyph, the side of its box and the box's upper left corner."""

    glyph: int
    size: int
    left: int
    top: int


class Scene(NamedTuple):
    """Objects, sorted by top and left, on a background of ``PALETTE`` and ``TEXTURES``."""

    objects: tuple[Placed, ...]
    background: int
    texture: int = 0

    def multiset(self, art: Tensor) -> list[int]:
        """The ``art`` (n,) of the objects' glyphs, sorted: what is seen, wherever it is."""
        return sorted(int(art[placed.glyph]) for placed in self.objects)


class Scenery:
    """Draws and renders scenes of ``glyphs``.

    A glyph stands only on backgrounds on which it can be seen: the mean squared difference to the
    background must be at least .01.

    Args:
        glyphs: What objects can be; at least three.
        side: Pixels of a picture's side, 32 or 64.
        max_num: The greatest number of objects, 1 to 5, of which 4 fit at side 32.
        textured: The probability in [0, 1] of a background with stripes, checks or dots.

    Raises:
        ValueError: If a number is out of range, the objects do not fit, or fewer than three glyphs
            can be seen on a background.
    """

    def __init__(
        self, glyphs: Glyphs, side: int = 32, max_num: int = 3, textured: float = 0.0
    ) -> None:
        check_scene(side, max_num, textured)
        self.glyphs, self.side, self.max_num, self.textured = glyphs, side, max_num, textured
        few = [n for n, rows in zip(PALETTE, self.visible, strict=True) if len(rows) < MAX_KINDS]
        if few:
            raise ValueError(
                f"Scenery: at least {MAX_KINDS} glyphs must be seen on every background, got "
                f"fewer on {few[0]}"
            )

    @cached_property
    def pictures(self) -> dict[int, Tensor]:
        """The glyphs (n, 4, size, size) by size, straight alpha."""
        return {size: self.glyphs.resize(size).images for size in SIZES}

    @cached_property
    def grounds(self) -> Tensor:
        """Backgrounds (textures, colours, 3, side, side) in [0, 1]."""
        return backdrops(len(TEXTURES), self.side)

    @cached_property
    def visible(self) -> list[Tensor]:
        """Rows (k,) of the glyphs that can be seen on each background."""
        stacked = premultiplied(self.pictures[SIZES[-1]])
        colour, alpha = stacked.split([3, 1], 1)
        gaps = [colour - alpha * tone.view(3, 1, 1) for tone in palette()]
        return [(g.square().mean((1, 2, 3)) >= MIN_CONTRAST).nonzero()[:, 0] for g in gaps]

    def draw(self, generator: Generator, num: int | None = None) -> Scene:
        """A scene of ``num`` objects, by default 1 to ``max_num``, of up to three glyphs."""
        num = 1 + chance(self.max_num, generator) if num is None else num
        background = chance(len(PALETTE), generator)
        textured = torch.rand((), generator=generator) < self.textured
        texture = 1 + chance(len(TEXTURES) - 1, generator) if textured else 0
        kinds = 1 + chance(min(num, MAX_KINDS), generator)
        seen = self.visible[background]
        chosen = seen[torch.randperm(len(seen), generator=generator)[:kinds]].tolist()
        glyphs = chosen + [chosen[chance(kinds, generator)] for _ in range(num - kinds)]
        objects = [
            Placed(glyph, *box)
            for glyph, box in zip(glyphs, self._boxes(num, generator), strict=True)
        ]
        return Scene(in_order(objects), background, texture)

    def _boxes(self, num: int, generator: Generator) -> list[tuple[int, int, int]]:
        """Sizes and corners of ``num`` boxes that do not overlap. Each is uniform where it fits;
        if one does not fit, all are drawn again.
        """
        for _ in range(MAX_TRIES):
            boxes: list[tuple[int, int, int]] = []
            while len(boxes) < num:
                size = SIZES[chance(len(SIZES), generator)]
                places = self._free(size, boxes).flatten().nonzero()[:, 0]
                if not len(places):
                    break
                top, left = divmod(
                    int(places[chance(len(places), generator)]), self.side - size + 1
                )
                boxes.append((size, left, top))
            else:
                return boxes
        raise RuntimeError(f"{num} objects did not fit into a scene in {MAX_TRIES} tries")

    def _free(self, size: int, boxes: Sequence[tuple[int, int, int]]) -> Tensor:
        """Whether a box of ``size`` fits at (top, left), a pixel away from the others."""
        num = self.side - size + 1
        free = torch.ones(num, num, dtype=torch.bool)
        for other, left, top in boxes:
            rows, columns = (
                slice(max(0, c - size - GAP + 1), c + other + GAP) for c in (top, left)
            )
            free[rows, columns] = False
        return free

    def render(self, scene: Scene) -> Tensor:
        """The picture (3, side, side) in [-1, 1] of a scene."""
        x = self.grounds[scene.texture, scene.background].clone()
        for glyph, size, left, top in scene.objects:
            box = x[:, top : top + size, left : left + size]
            box.copy_(compose(self.pictures[size][glyph], box.clone()))
        return 2 * x - 1

    def masks(self, scene: Scene) -> Tensor:
        """The opacity (objects, side, side) in [0, 1] of every object."""
        masks = torch.zeros(len(scene.objects), self.side, self.side)
        for mask, (glyph, size, left, top) in zip(masks, scene.objects, strict=True):
            mask[top : top + size, left : left + size] = self.pictures[size][glyph, 3]
        return masks


def check_scene(side: int, max_num: int, textured: float) -> None:
    """Raise ``ValueError`` for numbers that ``Scenery`` does not take."""
    if side not in SIDES:
        raise ValueError(f"side of a scene must be 32 or 64, got {side!r}")
    check_counts("scene", max_num=max_num)
    most = min(MAX_NUM, ((side + GAP) // (SIZES[0] + GAP)) ** 2)
    if max_num > most:
        raise ValueError(
            f"max_num of a scene must be at most {most} at side {side}, got {max_num}"
        )
    check_numbers("scene", "in [0, 1]", textured=textured)


def in_order(objects: Sequence[Placed]) -> tuple[Placed, ...]:
    """``objects`` sorted by top and left."""
    return tuple(sorted(objects, key=lambda placed: (placed.top, placed.left)))


def palette() -> Tensor:
    """The colours (8, 3) of backgrounds in [0, 1]."""
    return torch.tensor(list(PALETTE.values()))


def backdrop(background: int, texture: int, side: int) -> Tensor:
    """A background (3, side, side) in [0, 1]; textures mix its colour with a lighter or a darker
    one, in pieces of two pixels.
    """
    colour = palette()[background].view(3, 1, 1)
    at = torch.arange(side) % PERIOD < PERIOD // 2
    patterns = {
        "plain": torch.zeros(side, side, dtype=torch.bool),
        "striped": at.expand(side, side),
        "checked": at[:, None] ^ at,
        "dotted": at[:, None] & at,
    }
    tone = colour - TONE if colour.mean() > 0.5 else colour + TONE
    return torch.where(patterns[TEXTURES[texture]], tone, colour)


def chance(num: int, generator: Generator) -> int:
    """A number from 0 to ``num`` - 1, all equally likely."""
    return int(torch.randint(num, (), generator=generator))


def backdrops(num_textures: int, side: int) -> Tensor:
    """Backgrounds (textures, colours, 3, side, side) in [0, 1], the first textures of all."""
    textures = [[backdrop(b, t, side) for b in range(len(PALETTE))] for t in range(num_textures)]
    return torch.stack([torch.stack(colours) for colours in textures])
