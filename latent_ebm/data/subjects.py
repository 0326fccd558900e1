"""Subjects: pictures of one glyph each in several poses, with masks, references and captions.

For learning to draw a subject that is known from a few pictures (DreamInpainter, arXiv:2312.03771;
HiFi Tuner, arXiv:2312.00079). Some subjects are held out: training and validation rows never show
them, and test rows show nothing else.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.utils.data import DistributedSampler

from latent_ebm.conditions import Batch, Condition, label_condition
from latent_ebm.data.base import DataModule, Pair, make_generator
from latent_ebm.data.captioned import CaptionedSet, EpochOrder
from latent_ebm.data.captions import kind_of
from latent_ebm.data.emoji import SUBJECTS, draw_splits
from latent_ebm.data.emoji_pack import read_splits
from latent_ebm.data.glyph_sources import check_source, find_source, read_glyphs
from latent_ebm.data.glyphs import Glyphs
from latent_ebm.data.portrait import (
    POSES,
    Portrait,
    Studio,
    check_masks,
    check_sizes,
    choice,
    choose_background,
    describe_portrait,
)
from latent_ebm.data.scene import PALETTE, TEXTURES, chance
from latent_ebm.data.scenes import GLYPH_SIDE, HELD_SHARE
from latent_ebm.text import Tokenizer, WordTokenizer
from latent_ebm.text.tokenizer import split_words
from samplers.checks import check_counts, check_kind, check_numbers

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


class Subjects(DataModule):
    """Portraits (3, side, side) in [-1, 1] of glyphs, with masks, references and captions.

    Training portraits are new in every epoch; validation and test portraits stay. Captions of
    training rows say a name, a pose and a background: "a fox, upside down, on a blue background".
    A share of them says the kind in place of the name ("an animal"), and so do all of test rows,
    because no word is known for a subject that is held out. See ``SubjectSet`` for batches.

    Args:
        source: "shapes", "pack" or "font": see ``shapes``, ``emoji_pack`` and ``emoji_font``.
        path: Folder of the pack (null: that of the environment variable ``LATENT_EBM_DATA``, or
            its ``emoji``), or file of the font (null: Noto Color Emoji, if it is installed).
        style: The style of the pack.
        groups: Groups of glyphs that become subjects, such as [animals-nature]; null: all.
        side: Pixels of a picture's side.
        size: Pixels of a subject's side.
        textured: The probability in [0, 1] of a background with stripes, checks or dots.
        masks: Sorts of masks, one of which is drawn for every row: "alpha" (the pixels that the
            subject touches), "dilated" (two pixels more) and "box".
        kind_share: The share in [0, 1] of training captions without a name.
        family_power: Draw a glyph with the probability (size of its base family) to this power,
            such as -0.75; 0: all glyphs are equally likely.
        num: Training portraits of an epoch; a tenth of that validates, and a tenth is tested on.
        batch_size: Rows of a batch.
        tokenizer: Turns captions into tokens; null: the words of all training captions.
        seed: Decides portraits, captions and order, and which shapes or glyphs of a font are held
            out.

    Raises:
        ValueError: For an unknown source, group or mask, numbers out of range, or groups without
            a subject to train on or to hold out.
    """

    train: SubjectSet
    val: SubjectSet
    test: SubjectSet

    def __init__(
        self,
        source: str = "shapes",
        path: str | None = None,
        style: str = "twemoji",
        groups: Sequence[str] | None = None,
        side: int = 32,
        size: int = 20,
        textured: float = 0.0,
        masks: Sequence[str] = ("alpha",),
        kind_share: float = 0.3,
        family_power: float = 0.0,
        num: int = 10_000,
        batch_size: int = 64,
        tokenizer: Tokenizer | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        check_source(source, path)
        check_counts(self, num=num)
        check_sizes(side, size, textured)
        check_masks(masks)
        check_numbers(self, "in [0, 1]", kind_share=kind_share)
        check_numbers(self, "finite", family_power=family_power)
        if tokenizer is not None:
            check_kind(self, Tokenizer, tokenizer=tokenizer)
        self.source, self.path, self.style, self.groups = source, path, style, groups
        self.side, self.size, self.textured, self.masks = side, size, textured, list(masks)
        self.kind_share, self.family_power = kind_share, family_power
        self.num, self.tokenizer = num, tokenizer

    @property
    def files(self) -> list[Path]:
        return find_source(self.source, self.path)

    @cached_property
    def glyphs(self) -> Glyphs:
        """All glyphs that can be subjects, held out or not."""
        glyphs = read_glyphs(self.source, self.path, [self.style], GLYPH_SIDE)
        return glyphs if self.groups is None else glyphs.of_groups(self.groups)

    def split(self) -> tuple[Glyphs, Glyphs]:
        """The glyphs of training, and those that are held out."""
        pack = self.source == "pack"
        splits = read_splits(self.path) if pack else draw_splits(self.glyphs, self.seed)
        if SUBJECTS not in splits:
            raise ValueError(f"the splits of the pack must hold {SUBJECTS}, got {list(splits)}")
        held = [code in splits[SUBJECTS] for code in self.glyphs.hexcode]
        if all(held) or not any(held):
            raise ValueError(
                f"groups must hold subjects of {SUBJECTS} and others, got {sum(held)} held out of "
                f"{len(held)}"
            )
        seen, unseen = ([i for i, h in enumerate(held) if h == part] for part in (False, True))
        return self.glyphs.take(seen), self.glyphs.take(unseen)

    def setup(self, stage: str | None = None) -> None:
        """Read the glyphs, once; no portrait is drawn yet."""
        if hasattr(self, "test"):
            return
        seen, unseen = (
            Studio(glyphs, self.side, self.size, self.textured) for glyphs in self.split()
        )
        kinds = [kind_of(self.glyphs, i) for i in range(len(self.glyphs))]
        self.tokenizer = tokenizer = self.tokenizer or vocabulary(seen, kinds)
        few = max(1, round(HELD_SHARE * self.num))
        self.train, self.val, self.test = (
            SubjectSet(
                studio,
                num,
                studio.glyphs.weights(self.family_power),
                self.masks,
                kind_share,
                tokenizer,
                self.seed,
                part,
            )
            for part, (studio, num, kind_share) in enumerate(
                [(seen, self.num, self.kind_share), (seen, few, self.kind_share), (unseen, few, 1)]
            )
        )
        self.range = (torch.tensor(-1.0), torch.tensor(1.0))

    def load(self) -> tuple[Pair, Pair, Pair]:
        """All portraits of the first epoch, rendered, with the art of their subjects."""
        self.setup()
        train, val, test = ((part.x, part.label) for part in (self.train, self.val, self.test))
        return train, val, test

    def order(self, processes: int, rank: int, seed: int) -> DistributedSampler[int]:
        return EpochOrder(self.train, processes, rank, seed)

    def photos(
        self,
        subject: str,
        num: int = 5,
        *,
        pose: str | None = None,
        background: str | None = None,
        generator: Generator | None = None,
    ) -> Batch:
        """``num`` portraits of one held-out subject, as a batch of test rows carries them.

        Args:
            subject: Its name, one of ``test.studio.glyphs.names``.
            num: Number of portraits; the papers use 4 to 6.
            pose: The pose of all, such as "upright"; None: each has its own.
            background: The background of all, such as "blue", without a texture; None: each has
                its own.
            generator: Source of randomness.

        Raises:
            ValueError: For an unknown subject, pose or background, or a background on which the
                subject cannot be seen.
        """
        check_counts("photos", num=num)
        studio, names = self.test.studio, list(self.test.studio.glyphs.names)
        if subject not in names:
            raise ValueError(
                f"subject must be one that is held out, such as {names[0]!r}, got {subject!r}"
            )
        glyph, turn = names.index(subject), choice("pose", pose, POSES)
        ground = choose_background(background)
        if ground is not None and not studio.visible[glyph, ground]:
            raise ValueError(f"background must let {subject!r} be seen, got {background!r}")
        drawing = generator or torch.default_generator
        portraits = [studio.draw(drawing, glyph, pose=turn, background=ground) for _ in range(num)]
        return self.test.batch(portraits, [drawing] * num)


def vocabulary(studio: Studio, kinds: Sequence[str]) -> WordTokenizer:
    """The tokenizer of all captions of portraits of ``studio`` and of ``kinds`` of things, with
    room for the rows of a subject that is learned later. It does not know the names of others.
    """
    names = [studio.name(Portrait(i, 0, 0, 0, 0)) for i in range(len(studio.glyphs))]
    rest = [
        describe_portrait("", pose, background, texture)
        for pose in range(len(POSES))
        for background in range(len(PALETTE))
        for texture in range(len(TEXTURES))
    ]
    first, second = (
        max(len(split_words(text)) for text in texts) for texts in ([*names, *kinds], rest)
    )
    return WordTokenizer.count([*names, *kinds, *rest], max_words=first + second + ROOM)
