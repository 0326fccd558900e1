"""Rows of portraits: pictures of one subject each, with captions, masks and references."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from latent_ebm.conditions import Batch, Condition, label_condition
from latent_ebm.data.base import make_generator
from latent_ebm.data.captioned import CaptionedSet
from latent_ebm.data.portrait import Portrait, Studio, describe_portrait
from latent_ebm.data.scene import PALETTE, TEXTURES, chance
from latent_ebm.text import Tokenizer, WordTokenizer
from latent_ebm.text.tokenizer import split_words

ROOM = 5  # tokens of padding after the longest caption


class SubjectSet(CaptionedSet):
    """``num`` portraits that are drawn when they are asked for; the label is that of the art.

    A portrait is a function of the seed, the part, the epoch and the row. Batches carry ``tokens``
    (n, L) of the caption, ``class_tokens`` (n, L) of the kind of thing alone ("an animal"), the
    ``mask`` (n, 1, side, side) of the subject, 1 where it is, the ``reference`` (n, 3, side,
    side), which is the subject alone on white, and the ``label`` (n,).

    Args:
        studio: Draws and renders portraits.
        num: Number of rows.
        weights: Probabilities (glyphs,) by which glyphs are drawn.
        masks: Sorts of masks, one of which is drawn for every row: see ``Studio.mask``.
        kind_share: The share in [0, 1] of captions that say the kind in place of the name.
        tokenizer: Turns captions into tokens.
        seed: Decides portraits and captions, together with the epoch.
        part: 0 for training, 1 for validation, 2 for test rows.
    """

    def __init__(
        self,
        studio: Studio,
        num: int,
        weights: Tensor,
        masks: Sequence[str],
        kind_share: float,
        tokenizer: Tokenizer,
        seed: int,
        part: int,
    ) -> None:
        self.studio, self.num, self.weights, self.masks = studio, num, weights, masks
        self.kind_share, self.tokenizer, self.seed, self.part = kind_share, tokenizer, seed, part

    def __len__(self) -> int:
        return self.num

    def __getitems__(self, indices: list[int]) -> Batch:
        drawn = [self._draw(row) for row in indices]
        batch = self.batch([portrait for portrait, _ in drawn], [own for _, own in drawn])
        return batch._replace(index=torch.as_tensor(indices))

    def batch(self, portraits: Sequence[Portrait], generators: Sequence[Generator]) -> Batch:
        """The batch of ``portraits``, each with the generator that chooses its words and mask."""
        pairs = list(zip(portraits, generators, strict=True))
        stage, empty = self.studio, self.tokenizer([""])[0]
        told = {
            "tokens": self.tokenizer([self._caption(p, own) for p, own in pairs]),
            "class_tokens": self.tokenizer([stage.kind(p) for p in portraits]),
            "mask": torch.stack(
                [stage.mask(p, self.masks[chance(len(self.masks), own)]) for p, own in pairs]
            ),
            "reference": torch.stack([stage.reference(p) for p in portraits]),
            "label": stage.glyphs.art[[p.glyph for p in portraits]],
        }
        x = torch.stack([stage.render(portrait) for portrait in portraits])
        return Batch(x, Condition(told, {"tokens": empty, "class_tokens": empty}), None)

    def rows(self, index: Sequence[int]) -> tuple[Tensor, list[str]]:
        drawn = [self._draw(row) for row in index]
        x = torch.stack([self.studio.render(portrait) for portrait, _ in drawn])
        return x, [self._caption(*pair) for pair in drawn]

    def portrait(self, row: int) -> Portrait:
        """The portrait of a row in this epoch."""
        return self._draw(row)[0]

    def _draw(self, row: int) -> tuple[Portrait, Generator]:
        """The portrait of a row, and the generator that goes on to choose its caption."""
        generator = make_generator(self.seed, self.part, self.epoch, range(self.num)[row])
        glyph = int(torch.multinomial(self.weights, 1, generator=generator))
        return self.studio.draw(generator, glyph), generator

    def _caption(self, portrait: Portrait, generator: Generator) -> str:
        by_kind = bool(torch.rand((), generator=generator) < self.kind_share)
        subject = self.studio.kind(portrait) if by_kind else self.studio.name(portrait)
        return describe_portrait(subject, portrait.pose, portrait.background, portrait.texture)

    @property
    def x(self) -> Tensor:
        """All pictures (num, 3, side, side) of this epoch."""
        return torch.stack([self.studio.render(self.portrait(row)) for row in range(self.num)])

    @property
    def condition(self) -> Condition:
        """The art of the subjects of all rows of this epoch, as labels."""
        rows = [self.portrait(row).glyph for row in range(self.num)]
        return label_condition(self.studio.glyphs.art[rows])


def vocabulary(studio: Studio, kinds: Sequence[str]) -> WordTokenizer:
    """The tokenizer of all captions of portraits of ``studio`` and of ``kinds`` of things, with
    room for the rows of a subject that is learned later. It does not know the names of others.
    """
    names = [studio.name(Portrait(i, 0, 0, 0, 0)) for i in range(len(studio.glyphs))]
    rest = [
        describe_portrait("", pose, background, texture)
        for pose in studio.poses
        for background in range(len(PALETTE))
        for texture in range(len(TEXTURES))
    ]
    first, second = (
        max(len(split_words(text)) for text in texts) for texts in ([*names, *kinds], rest)
    )
    return WordTokenizer.count([*names, *kinds, *rest], max_words=first + second + ROOM)
