r"""Reads a picture back into its scene: which glyphs, where, how large, on which background.

The background is the one that most pixels agree with. With the background b taken away, a
picture is ``d = x - b`` and a glyph with opacity a and colour c is ``t = a (c - b)``, which is 0
outside its mask. How much better than the background a glyph explains a patch is ::

    gain = |d|^2 - |d - t|^2 = 2 <d, t> - |t|^2,

for all places and glyphs one matrix product. At the true place of a clean picture the gain is
``|d|^2``, and no other glyph does as well there. The best one is taken, boxes that overlap it are
ruled out, and so on until no glyph explains ``min_score`` of its own energy ``|t|^2``.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad, unfold

from latent_ebm.data.glyphs import premultiplied
from latent_ebm.data.scene import (
    PALETTE,
    SIZES,
    TEXTURES,
    Placed,
    Scene,
    Scenery,
    backdrops,
    in_order,
    palette,
)
from samplers.checks import check_counts, check_kind, check_numbers
from samplers.run_checks import check_finite

LARGEST, SMALLEST = SIZES[-1], SIZES[0]
TOLERANCE = 0.05  # of a background: the distance of colours in [0, 1]


class SceneParser:
    """Reads pictures of ``scenery``; textures only if it has some. Under a glyph a textured
    background counts as plain, so that such pictures are read almost, not always, right.

    Args:
        scenery: Knows the glyphs and the side of pictures.
        min_score: The share of its energy that a glyph must explain to be read, in (0, 1].
        max_num: The greatest number of objects that is read; None: that of ``scenery``, and one
            more, so that a scene with too many objects is not read as right.
    """

    def __init__(
        self, scenery: Scenery, min_score: float = 0.5, max_num: int | None = None
    ) -> None:
        check_kind(self, Scenery, scenery=scenery)
        check_numbers(self, "in (0, 1]", min_score=min_score)
        check_counts(self, max_num=1 if max_num is None else max_num)
        self.scenery, self.min_score = scenery, min_score
        self.max_num = scenery.max_num + 1 if max_num is None else max_num
        padded = [
            pad(premultiplied(images), (0, LARGEST - size) * 2)
            for size, images in scenery.pictures.items()
        ]
        self.templates = torch.cat(padded)  # (sizes x glyphs, 4, 16, 16), premultiplied

    def __call__(self, x: Tensor) -> list[Scene]:
        """The scenes of pictures (n, 3, side, side) in [-1, 1].

        Raises ``ValueError`` for pictures of another shape or of integers, and
        ``FloatingPointError`` for pictures that are not finite.
        """
        side = self.scenery.side
        check_kind(self, Tensor, x=x)
        if x.ndim != 4 or x.shape[1:] != (3, side, side):
            raise ValueError(f"x must have shape (n, 3, {side}, {side}), got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise ValueError(f"x must be floating-point pictures in [-1, 1], got {x.dtype}")
        check_finite("x", x)
        x = (x + 1) / 2
        drops = backdrops(len(TEXTURES) if self.scenery.textured else 1, side).to(x)
        found = [divmod(k, len(PALETTE)) for k in nearest(x, drops.flatten(0, 1)).tolist()]
        templates = {b: self._templates(b, x) for b in {b for _, b in found}}
        return [
            Scene(self._objects(self._gain(image - drops[t, b], templates[b])), b, t)
            for image, (t, b) in zip(x, found, strict=True)
        ]

    def _templates(self, background: int, x: Tensor) -> Tensor:
        """All glyphs less a background (sizes x glyphs, 768)."""
        pictures, alpha = self.templates.to(x).split([3, 1], 1)
        return (pictures - alpha * palette().to(x)[background].view(3, 1, 1)).flatten(1)

    def _gain(self, difference: Tensor, templates: Tensor) -> Tensor:
        """The gain (tops, lefts, sizes, glyphs) of every glyph in every place, 0 if too low."""
        margin = LARGEST - SMALLEST
        patches = unfold(pad(difference, (0, margin) * 2)[None], LARGEST)[0].T
        energy = templates.square().sum(1)
        gain = torch.addmm(-energy, patches, templates.T, alpha=2)
        gain[gain < self.min_score * energy] = 0
        num = self.scenery.side - SMALLEST + 1
        gain = gain.view(num, num, len(SIZES), -1)
        for k, size in enumerate(SIZES):  # boxes that leave the picture
            inside = self.scenery.side - size + 1
            gain[inside:, :, k] = gain[:, inside:, k] = 0
        return gain

    def _objects(self, gain: Tensor) -> tuple[Placed, ...]:
        """Objects of the highest gain that do not overlap; ``gain`` is written over."""
        objects: list[Placed] = []
        while len(objects) < self.max_num:
            best = gain.argmax()
            top, left, k, glyph = (int(i) for i in torch.unravel_index(best, gain.shape))
            if gain[top, left, k, glyph] <= 0:
                break
            objects.append(Placed(glyph, SIZES[k], left, top))
            for other, size in enumerate(SIZES):
                rows, columns = (
                    slice(max(0, corner - size + 1), corner + SIZES[k]) for corner in (top, left)
                )
                gain[rows, columns, other] = 0
        return in_order(objects)


def nearest(x: Tensor, drops: Tensor) -> Tensor:
    """The one (n,) of ``drops`` (k, 3, H, W) that most pixels of ``x`` (n, 3, H, W) agree with; a
    pixel at the distance r counts ``exp(-r^2 / 2 TOLERANCE^2)``.
    """
    distance = torch.stack([(x - drop).square().sum(1) for drop in drops], 1)
    return (-distance / (2 * TOLERANCE**2)).exp().sum((2, 3)).argmax(1)
