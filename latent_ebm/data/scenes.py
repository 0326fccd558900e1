"""Scenes with captions, drawn anew in every epoch: counts and places for text-to-image models."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.utils.data import DistributedSampler

from latent_ebm.conditions import Condition, label_condition
from latent_ebm.data.base import DataModule, Pair, make_generator
from latent_ebm.data.captioned import CaptionedSet, EpochOrder
from latent_ebm.data.glyph_sources import check_source, find_source, read_glyphs
from latent_ebm.data.scene import PALETTE, TEXTURES, Scene, Scenery, chance, check_scene
from latent_ebm.data.scene_captions import (
    ALL_PROMPTS,
    PROMPTS,
    WORDS,
    describe,
    plural,
    prompts_of,
)
from latent_ebm.text import Tokenizer, WordTokenizer
from latent_ebm.text.tokenizer import split_words
from samplers.checks import check_counts, check_kind

GLYPH_SIDE = 64  # pixels of the glyphs that objects are made of
HELD_SHARE = 0.1  # of the number of training scenes, for validation and for test
FRAME = "There is are a an A picture of and left right above below on background"
FRAME_WORDS = 9  # of a caption, besides three names and their numbers


class SceneSet(CaptionedSet):
    """``num`` scenes that are drawn when they are asked for; the label is the number of objects.

    A scene is a function of the seed, the part, the epoch and the row.

    Args:
        scenery: Draws and renders scenes.
        num: Number of rows.
        prompts: Prompt types in use; scenes that none of them fits are drawn again.
        tokenizer: Turns captions into tokens.
        seed: Decides scenes and captions, together with the epoch.
        part: 0 for training, 1 for validation, 2 for test rows.
    """

    def __init__(
        self,
        scenery: Scenery,
        num: int,
        prompts: Sequence[str],
        tokenizer: Tokenizer,
        seed: int,
        part: int,
    ) -> None:
        self.scenery, self.num, self.prompts, self.tokenizer = scenery, num, prompts, tokenizer
        self.seed, self.part = seed, part

    def __len__(self) -> int:
        return self.num

    def rows(self, index: Sequence[int]) -> tuple[Tensor, list[str]]:
        drawn = [self._draw(row) for row in index]
        return torch.stack([self.scenery.render(scene) for scene, _ in drawn]), [
            self._caption(scene, generator) for scene, generator in drawn
        ]

    def scene(self, row: int) -> Scene:
        """The scene of a row in this epoch."""
        return self._draw(row)[0]

    def _draw(self, row: int) -> tuple[Scene, Generator]:
        """The scene of a row, and the generator that goes on to choose its caption."""
        generator = make_generator(self.seed, self.part, self.epoch, range(self.num)[row])
        scene = self.scenery.draw(generator)
        while not self._fitting(scene):
            scene = self.scenery.draw(generator)
        return scene, generator

    def _fitting(self, scene: Scene) -> list[str]:
        return [prompt for prompt in prompts_of(scene) if prompt in self.prompts]

    def _caption(self, scene: Scene, generator: Generator) -> str:
        fitting = self._fitting(scene)
        prompt = fitting[chance(len(fitting), generator)]
        return describe(scene, self.scenery.glyphs.names, prompt, generator)

    @property
    def x(self) -> Tensor:
        """All pictures (num, 3, side, side) of this epoch."""
        return torch.stack([self.scenery.render(self.scene(row)) for row in range(self.num)])

    @property
    def condition(self) -> Condition:
        """The number of objects of all scenes of this epoch, as labels."""
        return label_condition(
            torch.tensor([len(self.scene(row).objects) for row in range(self.num)])
        )


class Scenes(DataModule):
    """Scenes (3, side, side) in [-1, 1] of glyphs on backgrounds, with captions that count them.

    Training scenes are new in every epoch; validation and test scenes stay. Batches carry the
    ``tokens`` of a caption. After ``setup`` there are ``scenery``, which draws scenes, and
    ``tokenizer``; ``train.scene(row)`` and ``test.scene(row)`` know what a row shows.

    Args:
        source: "shapes", "pack" or "font": see ``shapes``, ``emoji_pack`` and ``emoji_font``.
        path: Folder of the pack (null: that of the environment variable ``LATENT_EBM_DATA``, or
            its ``emoji``), or file of the font (null: Noto Color Emoji, if it is installed).
        style: The style of the pack.
        groups: Groups of glyphs that become objects, such as [animals-nature]; null: all.
        side: Pixels of a side, 32 or 64.
        max_num: The greatest number of objects, 1 to 5; 4 at side 32.
        textured: The probability in [0, 1] of a background with stripes, checks or dots.
        prompts: Types of captions, see ``scene_captions``; null: all seven.
        num: Training scenes of an epoch; a tenth of that validates, and a tenth is tested on.
        batch_size: Rows of a batch.
        tokenizer: Turns captions into tokens; null: the words of all captions.
        seed: Decides scenes, captions and order.

    Raises:
        ValueError: For an unknown source, group or prompt, or numbers out of range.
    """

    train: SceneSet
    val: SceneSet
    test: SceneSet
    scenery: Scenery

    def __init__(
        self,
        source: str = "shapes",
        path: str | None = None,
        style: str = "twemoji",
        groups: Sequence[str] | None = None,
        side: int = 32,
        max_num: int = 3,
        textured: float = 0.0,
        prompts: Sequence[str] | None = None,
        num: int = 10_000,
        batch_size: int = 64,
        tokenizer: Tokenizer | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        check_source(source, path)
        check_counts(self, num=num)
        check_scene(side, max_num, textured)
        if tokenizer is not None:
            check_kind(self, Tokenizer, tokenizer=tokenizer)
        self.prompts = list(ALL_PROMPTS if prompts is None else prompts)
        check_prompts(self.prompts, max_num)
        self.source, self.path, self.style, self.groups = source, path, style, groups
        self.side, self.max_num, self.textured = side, max_num, textured
        self.num, self.tokenizer = num, tokenizer

    @property
    def files(self) -> list[Path]:
        return find_source(self.source, self.path)

    def setup(self, stage: str | None = None) -> None:
        """Read the glyphs, once; no scene is drawn yet."""
        if hasattr(self, "test"):
            return
        glyphs = read_glyphs(self.source, self.path, [self.style], GLYPH_SIDE)
        chosen = glyphs if self.groups is None else glyphs.of_groups(self.groups)
        self.scenery = Scenery(chosen, self.side, self.max_num, self.textured)
        self.tokenizer = self.tokenizer or vocabulary(chosen.names)
        sizes = [self.num, *[max(1, round(HELD_SHARE * self.num))] * 2]
        self.train, self.val, self.test = (
            SceneSet(self.scenery, num, self.prompts, self.tokenizer, self.seed, part)
            for part, num in enumerate(sizes)
        )
        self.range = (torch.tensor(-1.0), torch.tensor(1.0))

    def load(self) -> tuple[Pair, Pair, Pair]:
        """All scenes of the first epoch, rendered, with the number of their objects."""
        self.setup()
        train, val, test = ((part.x, part.label) for part in (self.train, self.val, self.test))
        return train, val, test

    def order(self, processes: int, rank: int, seed: int) -> DistributedSampler[int]:
        return EpochOrder(self.train, processes, rank, seed)


def check_prompts(prompts: Sequence[str], max_num: int) -> None:
    """Raise ``ValueError`` unless ``prompts`` are known and one fits ``max_num`` objects."""
    known = ", ".join(ALL_PROMPTS)
    if unknown := [prompt for prompt in prompts if prompt not in ALL_PROMPTS]:
        raise ValueError(f"prompts must be some of {known}, got {unknown[0]!r}")
    if not any(prompt in PROMPTS[k] for k in PROMPTS if k <= max_num for prompt in prompts):
        raise ValueError(
            f"prompts must fit a scene of at most max_num = {max_num} objects, got "
            f"{', '.join(prompts) or 'none'}"
        )


def vocabulary(names: Sequence[str]) -> WordTokenizer:
    """The tokenizer of all captions of scenes whose glyphs have these ``names``."""
    parts = [*names, *map(plural, names), FRAME, *PALETTE, *TEXTURES, *WORDS, "0 1 2 3 4 5"]
    longest = max(len(split_words(name)) for name in names)
    return WordTokenizer.count(parts, max_words=3 * (longest + 1) + FRAME_WORDS)
