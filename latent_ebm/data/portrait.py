"""Portraits: one glyph, the subject, in one of four poses at some place on a background.

A portrait is drawn by chance, rendered to a picture, and described by a mask, by words and by a
picture of the subject alone. All of it is exact: ``latent_ebm.data.subject_parser`` reads a
picture back into its portrait.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.functional import max_pool2d, pad

from latent_ebm.data.captions import kind_of
from latent_ebm.data.glyphs import Glyphs, compose, premultiplied
from latent_ebm.data.scene import MIN_CONTRAST, PALETTE, TEXTURES, backdrops, chance, palette
from latent_ebm.data.scene_captions import article, ground, plural
from samplers.checks import check_counts, check_numbers

POSES = ("upright", "turned left", "upside down", "turned right")  # k quarter turns to the left
MASKS = ("alpha", "dilated", "box")
DILATION = 2  # pixels
MIN_SIDE, MIN_SIZE = 8, 4  # pixels


class Portrait(NamedTuple):
    """The row of a glyph, its pose, the upper left corner of its box, and a background."""

    glyph: int
    pose: int
    left: int
    top: int
    background: int
    texture: int = 0


class Studio:
    """Draws and renders portraits of ``glyphs``.

    A glyph stands only on backgrounds on which it can be seen: the mean squared difference to the
    background must be at least .01.

    Args:
        glyphs: What can be portrayed.
        side: Pixels of a picture's side, at least 8.
        size: Pixels of a subject's side, from 4 to ``side``.
        textured: The probability in [0, 1] of a background with stripes, checks or dots.
        spread: How many pixels a subject may be away from the centre, across and down; None:
            anywhere in the picture.
        poses: The poses that are drawn, some of ``POSES``.

    Raises:
        ValueError: If a number is out of range, or a glyph can be seen on no background.
    """

    def __init__(
        self,
        glyphs: Glyphs,
        side: int = 32,
        size: int = 20,
        textured: float = 0.0,
        spread: int | None = None,
        poses: Sequence[str] = POSES,
    ) -> None:
        check_sizes(side, size, textured, spread)
        check_some("poses", poses, POSES)
        self.poses = [k for k, pose in enumerate(POSES) if pose in poses]
        self.glyphs, self.side, self.size, self.textured = glyphs, side, size, textured
        room = side - size
        away = room if spread is None else spread
        self.places = range(max(0, room // 2 - away), min(room, room // 2 + away) + 1)
        if len(hidden := (~self.visible.any(1)).nonzero()):
            name = glyphs.names[int(hidden[0])]
            raise ValueError(f"glyphs must be seen on a background, got {name!r}, seen on none")

    @cached_property
    def pictures(self) -> Tensor:
        """The glyphs in every pose (n, 4 poses, 4, size, size), straight alpha."""
        upright = self.glyphs.resize(self.size).images
        return torch.stack([upright.rot90(k, (2, 3)) for k in range(len(POSES))], 1)

    @cached_property
    def grounds(self) -> Tensor:
        """Backgrounds (textures, colours, 3, side, side) in [0, 1]."""
        return backdrops(len(TEXTURES), self.side)

    @cached_property
    def looks(self) -> Tensor:
        """A number (n, 4) per glyph and pose; those that look the same, to 8 bits, share it."""
        pixels = (255 * premultiplied(self.pictures)).round().byte().flatten(2)
        return pixels.flatten(0, 1).unique(dim=0, return_inverse=True)[1].view(-1, len(POSES))

    @cached_property
    def visible(self) -> Tensor:
        """Whether each glyph can be seen on each background, (n, 8)."""
        colour, alpha = self.pictures[:, 0].split([3, 1], 1)
        gaps = [alpha * (colour - tone.view(3, 1, 1)) for tone in palette()]
        return torch.stack([g.square().mean((1, 2, 3)) >= MIN_CONTRAST for g in gaps], 1)

    def draw(
        self,
        generator: Generator,
        glyph: int,
        *,
        pose: int | None = None,
        background: int | None = None,
    ) -> Portrait:
        """A portrait of the glyph in row ``glyph``; what is None is drawn. A background that is
        given is plain.
        """
        seen = self.visible[glyph].nonzero()[:, 0]
        drawn = int(seen[chance(len(seen), generator)])
        textured = torch.rand((), generator=generator) < self.textured
        texture = 1 + chance(len(TEXTURES) - 1, generator) if textured else 0
        turn = self.poses[chance(len(self.poses), generator)]
        left, top = (self.places[chance(len(self.places), generator)] for _ in range(2))
        return Portrait(
            glyph,
            turn if pose is None else pose,
            left,
            top,
            *((drawn, texture) if background is None else (background, 0)),
        )

    def render(self, portrait: Portrait) -> Tensor:
        """The picture (3, side, side) in [-1, 1]."""
        x = self.grounds[portrait.texture, portrait.background].clone()
        return 2 * self._place(x, portrait) - 1

    def mask(self, portrait: Portrait, kind: str = "alpha") -> Tensor:
        """Where the subject is, (1, side, side): 1 there and 0 elsewhere.

        "alpha" holds every pixel that the subject touches, "dilated" also those up to two pixels
        away, and "box" the whole box, which does not tell the pose.
        """
        check_some("masks", [kind], MASKS)
        alpha = self.pictures[portrait.glyph, portrait.pose, 3:]
        inside = torch.ones_like(alpha) if kind == "box" else (alpha > 0).to(alpha)
        right, below = (self.side - self.size - c for c in (portrait.left, portrait.top))
        mask = pad(inside, (portrait.left, right, portrait.top, below))
        return max_pool2d(mask, 2 * DILATION + 1, 1, DILATION) if kind == "dilated" else mask

    def reference(self, portrait: Portrait) -> Tensor:
        """The subject alone (3, side, side) in [-1, 1], as it is turned in the portrait, in the
        middle of a white picture.
        """
        corner = (self.side - self.size) // 2
        centred = portrait._replace(left=corner, top=corner)
        return 2 * self._place(torch.ones(3, self.side, self.side), centred) - 1

    def _place(self, x: Tensor, portrait: Portrait) -> Tensor:
        """``x`` (3, side, side) in [0, 1] with the subject on it."""
        rows, columns = (slice(c, c + self.size) for c in (portrait.top, portrait.left))
        box = x[:, rows, columns]
        box.copy_(compose(self.pictures[portrait.glyph, portrait.pose], box.clone()))
        return x

    def kind(self, portrait: Portrait) -> str:
        """What kind of thing the subject is, such as "an animal"."""
        return kind_of(self.glyphs, portrait.glyph)

    def name(self, portrait: Portrait) -> str:
        """The name of the subject as in a sentence, such as "a fox"."""
        name = self.glyphs.names[portrait.glyph]
        return name if plural(name) == name else f"{article(name)} {name}"


def describe_portrait(subject: str, pose: int, background: int, texture: int = 0) -> str:
    """The caption of a portrait: "a fox, upside down, on a blue background"."""
    return f"{subject}, {POSES[pose]}, on {ground(background, texture)}"


def check_sizes(side: int, size: int, textured: float, spread: int | None) -> None:
    """Raise ``ValueError`` for numbers that ``Studio`` does not take."""
    check_counts("portrait", least=MIN_SIDE, side=side)
    check_counts("portrait", least=MIN_SIZE, size=size)
    if size > side:
        raise ValueError(f"size of a subject must be at most the side {side}, got {size}")
    check_numbers("portrait", "in [0, 1]", textured=textured)
    if spread is not None:
        check_counts("portrait", least=0, spread=spread)


def check_some(name: str, values: Sequence[str], known: Sequence[str]) -> None:
    """Raise ``ValueError`` unless ``values`` are some of the ``known`` ones."""
    text = ", ".join(known)
    if isinstance(values, str) or not values:
        raise ValueError(f"{name} must be a list of {text}, got {values!r}")
    if unknown := [value for value in values if value not in known]:
        raise ValueError(f"{name} must be some of {text}, got {unknown[0]!r}")


def choice(
    name: str, value: str | None, known: Sequence[str], used: Sequence[str] | None = None
) -> int | None:
    """The position of ``value`` among ``known``; None for None. Raises ``ValueError`` for one that
    is not ``used`` (None: all are).
    """
    used = known if used is None else used
    if value is not None and value not in used:
        raise ValueError(f"{name} must be one of {', '.join(used)}, got {value!r}")
    return None if value is None else known.index(value)


def choose_background(background: str | None) -> int | None:
    """The row of a background by its name, as in ``choice``."""
    return choice("background", background, list(PALETTE))
