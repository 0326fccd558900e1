"""Glyphs: small named pictures with transparency, such as emoji.

Three sources give the same type: ``read_pack`` (files of emoji in several styles), ``draw_font``
(an installed colour font) and ``draw_shapes`` (coloured shapes, which need no file at all).

A picture is kept with *straight* alpha: three colours and the opacity a, all in [0, 1]. On a
background b it is ``a * colour + (1 - a) * b``. Colours mean nothing where a is 0, so pictures are
resized and compared premultiplied, as ``a * colour``.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from samplers.checks import check_kind, check_numbers

MAX_SIDE = 256  # pixels of a glyph


@dataclass(frozen=True)
class Glyphs:
    """n pictures, and what is known of each.

    Args:
        images: Colours and opacity (n, 4, side, side) in [0, 1], straight alpha.
        names: Full name, such as "woman artist: dark skin tone" or "red circle".
        keywords: Other words for it, such as ("paint", "palette").
        group: A broad kind, such as "food-drink".
        subgroup: A narrow kind, such as "food-fruit".
        tone: Skin tone of people or colour of drawn shapes; "" if it has none.
        gender: "woman", "man", "person", or "" if it has none.
        base: Name without tone and gender: the subject. Glyphs of one base are a family.
        hexcode: Code points in hexadecimal, the same in all styles.
        style: Who drew it, such as "twemoji".

    Raises:
        ValueError: If a column does not have one entry per picture, or a pixel is no number in
            [0, 1].
    """

    images: Tensor
    names: Sequence[str]
    keywords: Sequence[tuple[str, ...]]
    group: Sequence[str]
    subgroup: Sequence[str]
    tone: Sequence[str]
    gender: Sequence[str]
    base: Sequence[str]
    hexcode: Sequence[str]
    style: Sequence[str]

    def __post_init__(self) -> None:
        images = check_image(self.images)
        if not bool(((images >= 0) & (images <= 1)).all()):
            low, high = float(images.min()), float(images.max())
            raise ValueError(f"images must lie in [0, 1], got {low:g} to {high:g}")
        for name in COLUMNS:
            if (num := len(getattr(self, name))) != len(self):
                raise ValueError(f"{name} must have one entry per image, {len(self)}, got {num}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def side(self) -> int:
        """Pixels of a side."""
        return self.images.shape[-1]

    @cached_property
    def art(self) -> Tensor:
        """A number (n,) int64 per picture; glyphs with the same pixels, to 8 bits, share it."""
        pixels = (255 * premultiplied(self.images)).round().byte().flatten(1).numpy()
        known: dict[bytes, int] = {}
        return torch.tensor([known.setdefault(row.tobytes(), len(known)) for row in pixels])

    def take(self, index: Sequence[int]) -> "Glyphs":
        """The glyphs at ``index``, in that order. Raises ``ValueError`` if there is none."""
        columns = {name: [getattr(self, name)[i] for i in index] for name in COLUMNS}
        return Glyphs(self.images[torch.as_tensor(index, dtype=torch.int64)], **columns)

    def of_groups(self, groups: Sequence[str]) -> "Glyphs":
        """The glyphs of ``groups``. Raises ``ValueError`` for a group without glyphs."""
        known = sorted(set(self.group))
        if isinstance(groups, str) or not groups or (unknown := set(groups) - set(known)):
            wrong = repr(groups if isinstance(groups, str) or not groups else min(unknown))
            raise ValueError(f"groups must be some of {', '.join(known)}, got {wrong}")
        return self.take([i for i, group in enumerate(self.group) if group in groups])

    def resize(self, side: int) -> "Glyphs":
        """The same at ``side`` x ``side`` pixels, each the average of the pixels it covers."""
        check_side("resize", side)
        if side == self.side:
            return self
        pixels = (255 * self.images).round().byte().permute(0, 2, 3, 1).numpy()
        small = [to_side(Image.fromarray(row), side) for row in pixels]
        return replace(self, images=as_images(small))

    def on(self, background: Tensor) -> Tensor:
        """Pictures (n, 3, side, side) in [-1, 1] on a ``background`` colour (3,) in [0, 1]."""
        return 2 * compose(self.images, background.view(3, 1, 1)) - 1

    def weights(self, power: float = -0.75) -> Tensor:
        """Sampling weights (n,) that sum to one: (size of the base family) to the ``power``.

        With 0 all glyphs are equally likely, with -1 all families.
        """
        check_numbers("weights", "finite", power=power)
        size = Counter(self.base)
        log_size = torch.tensor([float(size[base]) for base in self.base]).log()
        return (power * log_size).softmax(0)


def check_image(images: Tensor) -> Tensor:
    """``images``. Raises ``ValueError`` unless they are floating, (n >= 1, 4, side, side)."""
    check_kind("Glyphs", Tensor, images=images)
    square = images.ndim == 4 and images.shape[1] == 4 and images.shape[2] == images.shape[3]
    if not square or not len(images) or not images.is_floating_point():
        raise ValueError(
            f"images must be a floating tensor of shape (n >= 1, 4, side, side), got "
            f"{images.dtype} of shape {tuple(images.shape)}"
        )
    return images


COLUMNS = [field.name for field in fields(Glyphs)][1:]


def join(parts: Sequence[Glyphs]) -> Glyphs:
    """All glyphs of ``parts``, which have one side, in order."""
    columns = {
        name: [entry for part in parts for entry in getattr(part, name)] for name in COLUMNS
    }
    return Glyphs(torch.cat([part.images for part in parts]), **columns)


def compose(images: Tensor, background: Tensor) -> Tensor:
    """Colours (..., 3, H, W) of ``images`` (..., 4, H, W) on a ``background`` that broadcasts."""
    colour, alpha = images.split([3, 1], -3)
    return alpha * colour + (1 - alpha) * background


def premultiplied(images: Tensor) -> Tensor:
    """``images`` (..., 4, H, W) with colours times opacity."""
    colour, alpha = images.split([3, 1], -3)
    return torch.cat([alpha * colour, alpha], -3)


def as_images(pictures: Sequence[Image.Image]) -> Tensor:
    """RGBA pictures of one size as a tensor (n, 4, side, side) in [0, 1]."""
    pixels = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255).contiguous()


def to_side(picture: Image.Image, side: int) -> Image.Image:
    """An RGBA picture at ``side`` x ``side`` pixels; Pillow averages it premultiplied."""
    same = picture.size == (side, side)
    return picture if same else picture.resize((side, side), Image.Resampling.BOX)


def check_side(owner: object, side: int) -> None:
    """Raise ``ValueError`` unless ``side`` is an integer from 4 to ``MAX_SIDE``."""
    if isinstance(side, bool) or not isinstance(side, int) or not 4 <= side <= MAX_SIDE:
        title = owner if isinstance(owner, str) else type(owner).__name__
        raise ValueError(f"{title}: side must be an integer from 4 to {MAX_SIDE}, got {side!r}")
