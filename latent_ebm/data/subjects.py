"""Subjects: pictures of one glyph each in several poses, with masks, references and captions.

For learning to draw a subject that is known from a few pictures (DreamInpainter, arXiv:2312.03771;
HiFi Tuner, arXiv:2312.00079). Some subjects are held out: training and validation rows never show
them, and test rows show nothing else.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Generator
from torch.utils.data import DistributedSampler

from latent_ebm.conditions import Batch
from latent_ebm.data.base import DataModule, Pair
from latent_ebm.data.captioned import EpochOrder
from latent_ebm.data.captions import kind_of
from latent_ebm.data.emoji import SUBJECTS, draw_splits
from latent_ebm.data.emoji_pack import read_splits
from latent_ebm.data.glyph_sources import check_source, find_source, read_glyphs
from latent_ebm.data.glyphs import Glyphs
from latent_ebm.data.portrait import (
    MASKS,
    POSES,
    Studio,
    check_sizes,
    check_some,
    choice,
    choose_background,
)
from latent_ebm.data.scenes import GLYPH_SIDE, HELD_SHARE
from latent_ebm.data.subject_set import SubjectSet, vocabulary
from latent_ebm.text import Tokenizer
from samplers.checks import check_counts, check_kind, check_numbers


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
        spread: How many pixels a subject may be away from the centre, across and down; null:
            anywhere in the picture.
        poses: The poses that are drawn: some of upright, turned left, upside down, turned right.
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
        spread: int | None = None,
        poses: Sequence[str] = POSES,
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
        check_sizes(side, size, textured, spread)
        check_some("poses", poses, POSES)
        check_some("masks", masks, MASKS)
        check_numbers(self, "in [0, 1]", kind_share=kind_share)
        check_numbers(self, "finite", family_power=family_power)
        if tokenizer is not None:
            check_kind(self, Tokenizer, tokenizer=tokenizer)
        self.source, self.path, self.style, self.groups = source, path, style, groups
        self.side, self.size, self.textured, self.masks = side, size, textured, list(masks)
        self.spread, self.poses = spread, poses
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
            Studio(glyphs, self.side, self.size, self.textured, self.spread, self.poses)
            for glyphs in self.split()
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
            pose: The pose of all, one of ``poses``; None: each has its own.
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
        glyph, turn = names.index(subject), choice("pose", pose, POSES, self.poses)
        ground = choose_background(background)
        if ground is not None and not studio.visible[glyph, ground]:
            raise ValueError(f"background must let {subject!r} be seen, got {background!r}")
        drawing = generator or torch.default_generator
        portraits = [studio.draw(drawing, glyph, pose=turn, background=ground) for _ in range(num)]
        return self.test.batch(portraits, [drawing] * num)
