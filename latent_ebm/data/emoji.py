"""Emoji and their names: a small corpus for text-to-image models, with held-out compositions.

A person's emoji is a profession or activity x gender x skin tone, and a model that has seen every
profession, gender and tone can be asked for combinations that it has not seen. Two splits measure
that: ``composition_held_out`` (for the pack two of the 18 cells of each of 67 bases) and
``subject_held_out`` (whole subjects, such as "fox"). Some glyphs look exactly the same; they have
the same ``label``, and a picture of either is a right answer.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from latent_ebm.data.base import DataModule, Pair, make_generator
from latent_ebm.data.captioned import CaptionedSet, EpochOrder, vocabulary
from latent_ebm.data.captions import Captions
from latent_ebm.data.emoji_pack import read_splits
from latent_ebm.data.glyph_sources import check_source, find_source, read_glyphs
from latent_ebm.data.glyphs import Glyphs, check_side
from latent_ebm.text import Tokenizer
from samplers.checks import check_counts, check_kind, check_numbers

COMPOSITIONS, SUBJECTS = "composition_held_out", "subject_held_out"
PER_BASE, MIN_FAMILY = 2, 4  # compositions held out of a base; glyphs of a base that can lose them
SUBJECT_SHARE = 0.1  # of the bases


def draw_splits(glyphs: Glyphs, seed: int) -> dict[str, frozenset[str]]:
    """Hexcodes by split, drawn by ``seed``: two glyphs of every base that has at least four with
    different tones, and all glyphs of a tenth of the bases.
    """
    generator = make_generator(seed)
    families: dict[str, list[str]] = defaultdict(list)
    for base, code in dict.fromkeys(zip(glyphs.base, glyphs.hexcode, strict=True)):
        families[base].append(code)
    cells = set[str]()
    for codes in families.values():
        order = torch.randperm(len(codes), generator=generator).tolist()
        cells |= {codes[i] for i in order[:PER_BASE]} if len(codes) >= MIN_FAMILY else set()
    order = torch.randperm(len(families), generator=generator).tolist()
    bases = [list(families)[i] for i in order[: max(1, round(SUBJECT_SHARE * len(families)))]]
    subjects = {code for base in bases for code in families[base]}
    return {COMPOSITIONS: frozenset(cells), SUBJECTS: frozenset(subjects)}


class EmojiSet(CaptionedSet):
    """Glyphs on a background, in the order of ``glyphs``, which knows their names.

    Args:
        glyphs: The glyphs of this part of the data.
        x: The pictures (n, 3, side, side).
        art: The label (n,): one number per picture, the same for equal pictures.
        rule: How captions are written.
        tokenizer: Turns them into tokens.
        seed: Decides the captions, together with the epoch.
        part: 0 for training, 1 for validation, 2 for test rows.
    """

    def __init__(
        self,
        glyphs: Glyphs,
        x: Tensor,
        art: Tensor,
        rule: Captions,
        tokenizer: Tokenizer,
        seed: int,
        part: int,
    ) -> None:
        super().__init__(x, art)
        self.glyphs, self.rule, self.tokenizer = glyphs, rule, tokenizer
        self.seed, self.part = seed, part

    def rows(self, index: Sequence[int]) -> tuple[Tensor, list[str]]:
        generator = make_generator(self.seed, self.part, self.epoch)
        captions = self.rule.write(self.glyphs, index, generator)
        return self.x[torch.as_tensor(index)], captions


class Emoji(DataModule):
    """Emoji (3, side, side) in [-1, 1] on a background; batches carry the ``tokens`` of a caption.

    ``train.glyphs``, ``val.glyphs`` and ``test.glyphs`` know the names of the rows; ``tokenizer``
    is there after ``setup``.

    Args:
        source: "pack", "font" or "shapes": see ``emoji_pack``, ``emoji_font`` and ``shapes``.
        path: Folder of the pack (null: that of the environment variable ``LATENT_EBM_DATA``, or
            its ``emoji``), or file of the font (null: Noto Color Emoji, if it is installed).
        styles: Styles of the pack, such as [twemoji, noto, fluent].
        side: Pixels of a side, 4 to 256.
        batch_size: Rows of a batch.
        captions: How often each sort of caption is used; null: always the full name.
        tokenizer: Turns captions into tokens; null: the words of all captions.
        held_out: Splits that are tested on and not seen in training.
        num_val: Number of training glyphs that are used for validation, never all of a base.
        family_power: Draw a training glyph with the probability (size of its base family) to this
            power, such as -0.75; null: every glyph once an epoch.
        background: Red, green and blue, each in [0, 1].
        seed: Decides order, captions, validation glyphs, and the splits of fonts and shapes.

    Raises:
        ValueError: For an unknown source or split, or numbers out of range.
    """

    train: EmojiSet
    val: EmojiSet
    test: EmojiSet

    def __init__(
        self,
        source: str = "pack",
        path: str | None = None,
        styles: Sequence[str] = ("twemoji",),
        side: int = 32,
        batch_size: int = 64,
        captions: Captions | None = None,
        tokenizer: Tokenizer | None = None,
        held_out: Sequence[str] = (COMPOSITIONS,),
        num_val: int = 64,
        family_power: float | None = None,
        background: Sequence[float] = (1.0, 1.0, 1.0),
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        check_source(source, path)
        if isinstance(held_out, str) or not isinstance(held_out, Sequence) or not held_out:
            raise ValueError(f"held_out must be a list of splits, got {held_out!r}")
        if len(background) != 3:
            raise ValueError(f"background must be three numbers, got {background!r}")
        for value in background:
            check_numbers(self, "in [0, 1]", background=value)
        check_side(self, side)
        check_counts(self, num_val=num_val)
        if family_power is not None:
            check_numbers(self, "finite", family_power=family_power)
        self.source, self.path, self.styles, self.side = source, path, styles, side
        self.rule = Captions() if captions is None else captions
        check_kind(self, Captions, captions=self.rule)
        if tokenizer is not None:
            check_kind(self, Tokenizer, tokenizer=tokenizer)
        self.tokenizer, self.held_out, self.num_val = tokenizer, held_out, num_val
        self.family_power = family_power
        self.background = torch.tensor(list(background), dtype=torch.float32)

    @property
    def files(self) -> list[Path]:
        return find_source(self.source, self.path)

    @cached_property
    def glyphs(self) -> Glyphs:
        """All glyphs of the source."""
        return read_glyphs(self.source, self.path, self.styles, self.side)

    @cached_property
    def splits(self) -> dict[str, frozenset[str]]:
        """Hexcodes by split."""
        if self.source == "pack":
            return read_splits(self.path)
        return draw_splits(self.glyphs, self.seed)

    def load(self) -> tuple[Pair, Pair, Pair]:
        x, art = self.glyphs.on(self.background), self.glyphs.art
        train, val, test = ((x[rows], art[rows]) for rows in self.split_rows())
        return train, val, test

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "test"):
            return
        self.tokenizer = tokenizer = self.tokenizer or vocabulary(self.rule.all(self.glyphs))
        x, art = self.glyphs.on(self.background), self.glyphs.art
        self.train, self.val, self.test = (
            EmojiSet(
                self.glyphs.take(rows.tolist()),
                x[rows],
                art[rows],
                self.rule,
                tokenizer,
                self.seed,
                part,
            )
            for part, rows in enumerate(self.split_rows())
        )
        super().setup(stage)

    def split_rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Positions among ``glyphs`` of training, validation and test glyphs.

        Raises ``ValueError`` for an unknown split, or if too few glyphs are left for validation.
        """
        if unknown := [name for name in self.held_out if name not in self.splits]:
            raise ValueError(
                f"held_out must be some of {', '.join(self.splits)}, got {unknown[0]!r}"
            )
        held = {code for name in self.held_out for code in self.splits[name]}
        pairs = dict.fromkeys(zip(self.glyphs.hexcode, self.glyphs.base, strict=True))
        seen = {code: base for code, base in pairs if code not in held}
        validating = self._choose(seen)
        codes = self.glyphs.hexcode
        part = [2 if c in held else 1 if c in validating else 0 for c in codes]
        train, val, test = (torch.tensor([p == k for p in part]).nonzero()[:, 0] for k in range(3))
        if not len(test):
            raise ValueError(f"held_out must name splits with glyphs, got {list(self.held_out)}")
        return train, val, test

    def _choose(self, base: dict[str, str]) -> set[str]:
        """Hexcodes for validation, from those with this ``base``; one of every base is left."""
        codes, left = list(base), Counter(base.values())
        chosen = set[str]()
        for i in torch.randperm(len(codes), generator=make_generator(self.seed, 3)).tolist():
            if len(chosen) < self.num_val and left[base[codes[i]]] > 1:
                chosen.add(codes[i])
                left[base[codes[i]]] -= 1
        if len(chosen) < self.num_val:
            raise ValueError(
                f"num_val must be at most {len(chosen)}, so that every base is seen in training, "
                f"got {self.num_val}"
            )
        return chosen

    def order(self, processes: int, rank: int, seed: int) -> DistributedSampler[int]:
        power = self.family_power
        weights = None if power is None else self.train.glyphs.weights(power)
        return EpochOrder(self.train, processes, rank, seed, weights)
