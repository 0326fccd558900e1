r"""Reads a picture back into its portrait: which subject, in which pose, where, and on which
background; and says how much a picture looks like each subject.

The background is the one that most pixels agree with. A glyph with opacity a and colour c changes
a background b by ``t = a (c - b)``, and the picture differs from the background by ``d = x - b``.
How much better than the background alone a glyph in some place and pose explains the picture is ::

    gain = |d|^2 - |d - t|^2 = 2 <d, t> - |t|^2.

The place, glyph and pose of the largest gain are read, or none if that gain is below ``min_score``
of ``|t|^2``. A graded score is the correlation of d and t inside the box of the glyph, after the
mean of each colour is taken away (normalised cross-correlation). It is 1 for a clean picture. With
``<d, a (c - b)> = <d, a c> - <d b, a>`` both are matrix products with one matrix of templates,
whatever the background, and exact for textures too.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import unfold

from latent_ebm.data.glyphs import premultiplied
from latent_ebm.data.portrait import POSES, Portrait, Studio
from latent_ebm.data.scene import PALETTE, PERIOD, TEXTURES, backdrops
from latent_ebm.data.scene_parser import nearest
from samplers.checks import check_kind, check_numbers
from samplers.run_checks import check_finite

CHUNK = 16  # pictures that are compared at once
FLAT = 1e-3  # mean square of a box, below which it is taken to be empty


class SubjectParser:
    """Reads pictures of ``studio``; textures only if it has some.

    Args:
        studio: Knows the subjects, and the sides of subjects and pictures.
        min_score: The share of its energy that a subject must explain to be read, in (0, 1].
    """

    def __init__(self, studio: Studio, min_score: float = 0.5) -> None:
        check_kind(self, Studio, studio=studio)
        check_numbers(self, "in (0, 1]", min_score=min_score)
        self.studio, self.min_score = studio, min_score
        self.num_places = studio.side - studio.size + 1  # along a side
        # (glyphs x poses, 4, size, size)
        self.templates = premultiplied(studio.pictures).flatten(0, 1)

    def __call__(self, x: Tensor) -> list[Portrait | None]:
        """The portraits in pictures (n, 3, side, side) in [-1, 1]; None for a picture without a
        subject.

        Raises ``ValueError`` for pictures of another shape or of integers, and
        ``FloatingPointError`` for pictures that are not finite.
        """
        check_pictures(x, self.studio.side)
        found: list[Portrait | None] = [None] * len(x)
        for rows, (texture, background), match in self._matches(x):
            gain = 2 * match.inner - match.energy
            gain[gain < self.min_score * match.energy] = 0
            for row, value, best in zip(rows, *gain.flatten(1).max(1), strict=True):
                place, look = divmod(int(best), len(self.templates))
                top, left = divmod(place, self.num_places)
                glyph, pose = divmod(look, len(POSES))
                if value > 0:
                    found[row] = Portrait(glyph, pose, left, top, background, texture)
        return found

    def correlations(self, x: Tensor) -> Tensor:
        """The normalised cross-correlation (n, glyphs, 4 poses) in [-1, 1] of pictures (n, 3,
        side, side) with every subject in every pose, where it is largest.

        For a subject that was asked for, the largest entry of its row says how well it is
        recognised, whatever its pose, and the entry of the asked pose whether it is turned as
        asked. Errors are those of reading a picture.
        """
        check_pictures(x, self.studio.side)
        scores = x.new_zeros(len(x), len(self.templates))
        for rows, _, match in self._matches(x):
            scores[rows] = match.correlation().amax(1)
        return scores.unflatten(1, (-1, len(POSES)))

    def _matches(self, x: Tensor) -> Iterator[tuple[list[int], tuple[int, int], "Match"]]:
        """Rows of pictures that share a background, its texture and colour, and their match."""
        x, num_textures = (x + 1) / 2, len(TEXTURES) if self.studio.textured else 1
        drops = backdrops(num_textures, self.studio.side).to(x)
        nearby = nearest(x, drops.flatten(0, 1))
        for k in nearby.unique().tolist():
            texture, background = divmod(k, len(PALETTE))
            ground = Ground(drops[texture, background], self.templates.to(x))
            for rows in (nearby == k).nonzero()[:, 0].split(CHUNK):
                yield rows.tolist(), (texture, background), ground.match(x[rows])


class Ground:
    """How templates (k, 4, size, size), premultiplied, change the background ``drop`` (3, side,
    side) in every place. A background repeats itself after four pixels, and so do these numbers.
    """

    def __init__(self, drop: Tensor, templates: Tensor) -> None:
        self.drop, self.templates, self.size = drop, templates.flatten(1), templates.shape[-1]
        colour, alpha = templates.split([3, 1], 1)
        places = torch.arange(drop.shape[-1] - self.size + 1, device=drop.device) % PERIOD
        phase = (PERIOD * places[:, None] + places).flatten()
        phases, self.phase = phase.unique(return_inverse=True)
        first = torch.stack([(phase == p).nonzero()[0, 0] for p in phases])
        behind = self.patches(drop[None])[0, first]  # (phases, 3 size^2)
        squares = torch.cat([-2 * drop, drop.square().sum(0, keepdim=True)])
        energy = self.patches(squares[None])[0, first] @ (templates * alpha).flatten(1).T
        self.energy = energy + colour.square().sum((1, 2, 3))
        hidden = behind.unflatten(1, (3, -1)) @ alpha.flatten(1).T
        self.sums = colour.sum((2, 3)).T - hidden  # (phases, 3, k)

    def patches(self, x: Tensor) -> Tensor:
        """All boxes (n, places, C size^2) of ``x`` (n, C, side, side)."""
        return unfold(x, self.size).mT

    def match(self, x: Tensor) -> "Match":
        """The comparison of pictures ``x`` (n, 3, side, side) with all templates in all places."""
        difference = x - self.drop
        behind = (difference * self.drop).sum(1, keepdim=True)
        inner = self.patches(torch.cat([difference, -behind], 1)) @ self.templates.T
        return Match(self, inner, self.patches(difference).unflatten(2, (3, -1)))


class Match:
    """Pictures and templates in all places: ``inner`` = <d, t> (n, places, k) and ``energy`` =
    |t|^2 (places, k).
    """

    def __init__(self, ground: Ground, inner: Tensor, boxes: Tensor) -> None:
        self.ground, self.inner, self.boxes = ground, inner, boxes

    @property
    def energy(self) -> Tensor:
        return self.ground.energy[self.ground.phase]

    def correlation(self) -> Tensor:
        """The normalised cross-correlation (n, places, k), 0 where a box is flat."""
        ground, pixels = self.ground, self.ground.size**2
        own, sums = self.boxes.sum(3), ground.sums[ground.phase]  # (n, places, 3), (places, 3, k)
        spread = self.boxes.square().sum((2, 3)) - own.square().sum(2) / pixels
        energy = self.energy - sums.square().sum(1) / pixels
        covariance = self.inner - torch.einsum("npc,pck->npk", own, sums) / pixels
        product = spread.unsqueeze(2) * energy
        flat = (spread.unsqueeze(2) < FLAT * pixels) | (energy < FLAT * pixels)
        return torch.where(flat, 0, covariance / product.clamp_min(FLAT**2).sqrt()).clamp(-1, 1)


def check_pictures(x: Tensor, side: int) -> None:
    """Raise an error unless ``x`` holds finite pictures (n, 3, side, side)."""
    check_kind("SubjectParser", Tensor, x=x)
    if x.ndim != 4 or x.shape[1:] != (3, side, side):
        raise ValueError(f"x must have shape (n, 3, {side}, {side}), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"x must be floating-point pictures in [-1, 1], got {x.dtype}")
    check_finite("x", x)
