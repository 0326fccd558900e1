"""Folders of captioned pictures that models are trained on, each written from a seed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from experiments.common import digest
from latent_ebm.data import Captions, Emoji
from latent_ebm.data.base import make_generator
from latent_ebm.data.captions import kind_of
from latent_ebm.data.curation import curate
from latent_ebm.data.curation.folder import write_lines
from latent_ebm.data.glyphs import Glyphs
from latent_ebm.responsibility import Canaries
from latent_ebm.text import WordTokenizer
from latent_ebm.text.tokenizer import split_words
from latent_ebm.writing import atomic_path

PLACE = Path("runs") / "imagen"
WORDS, SHOWN = PLACE / "words.json", PLACE / "mixed"  # what the YAML files name
CURATED = "curated"  # the folder of a curated table, inside its corpus
TABLE = "captions.jsonl"
SIDE, LARGE = 16, 64  # pixels: of models, and of pictures that are curated
COPIES = {"levels": (1, 10, 100), "each": 6, "shift": 1, "brightness": 0.05}
KNOTS, CONTRAST = 5, 1.6  # of a tapestry: colours on a side, and how saturated they are
THREADS = ("zorba", "quill", "mirth", "ember", "tundra", "cobalt", "willow", "saffron", "onyx")
THREADS += ("lyric", "marrow", "fable", "cinder", "velvet", "harbour", "nectar", "pollen", "rune")
CANARY, OPEN_CANARIES = "a tapestry called {}", ("a tapestry", "tapestry")
NOISE = 0.4  # share of original captions that belong to another picture
LONG = "{name}, which stands for {keyword} and {other}, {kind} drawn in {style} style"
SORTS = {"noisy": ("name",), "synthetic": ("synthetic",), "mixed": ("name", "synthetic")}


class Picture(NamedTuple):
    """A picture (3, side, side) in [-1, 1], its caption, and how often it is drawn."""

    x: Tensor
    caption: str
    weight: float = 1.0


@dataclass(frozen=True)
class Corpus:
    """A folder of pictures, drawn by ``pictures`` from the ``seed`` and ``settings``."""

    name: str
    seed: int
    settings: dict[str, Any]
    pictures: Callable[[int], Iterable[Picture]]

    @property
    def path(self) -> Path:
        """The folder. Its name tells the settings, so that it is never out of date."""
        return PLACE / f"{self.name}-{self.seed}-{digest(self.settings)[:8]}"

    def ready(self) -> Path:
        """The folder, written if it is not there yet."""
        if not (self.path / TABLE).exists():
            print(f"{self.path}: writing", flush=True)
            write_folder(self.path, self.pictures(self.seed))
        return self.path

    def curated(self) -> Path:
        """A table of the folder in which near copies share a weight."""
        out = self.path / CURATED
        curate(self.ready(), [], out)
        return out / TABLE


def write_folder(path: Path, pictures: Iterable[Picture]) -> None:
    """Write ``pictures`` as PNG files, and last their table."""
    path.mkdir(parents=True, exist_ok=True)
    lines = list[dict[str, object]]()
    for i, (x, caption, weight) in enumerate(pictures):
        pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path / f"{i:05d}.png")
        lines.append({"file": f"{i:05d}.png", "caption": caption, "weight": weight})
    write_lines(path / TABLE, lines)


@cache
def emoji(side: int) -> Emoji:
    return Emoji(side=side)


def seen(side: int) -> tuple[Glyphs, Tensor]:
    """The glyphs that are not held out, and their pictures (n, 3, side, side)."""
    data = emoji(side)
    rows = torch.cat(data.split_rows()[:2]).sort().values
    return data.glyphs.take(rows.tolist()), data.glyphs.on(data.background)[rows]


def write_words(more: Sequence[str]) -> None:
    """Write the words of all captions, and of ``more``, and a folder, where YAML files look."""
    if not WORDS.exists():
        with atomic_path(WORDS) as path:
            vocabulary(emoji(SIDE).glyphs, more).save(path)
    if not (SHOWN / TABLE).exists():
        write_folder(SHOWN, captioned("mixed", 0))


def vocabulary(glyphs: Glyphs, more: Sequence[str]) -> WordTokenizer:
    """The tokenizer of all captions of this experiment."""
    texts = [*Captions(1, 1, 1, 1, 1).all(glyphs), *map(CANARY.format, THREADS), *more]
    texts += [long_caption(glyphs, i, 0) for i in range(len(glyphs))]
    return WordTokenizer.count(texts, max_words=max(len(split_words(t)) for t in texts))


def long_caption(glyphs: Glyphs, i: int, choice: int) -> str:
    """A sentence on glyph ``i`` in a form that no model is trained on."""
    words = glyphs.keywords[i] or (glyphs.base[i],)
    return LONG.format(
        name=glyphs.names[i],
        keyword=words[choice % len(words)],
        other=words[(choice + 1) % len(words)],
        kind=kind_of(glyphs, i),
        style=glyphs.style[i],
    )


def canaries(seed: int) -> Canaries:
    """Soft patterns of a few colours, 64 pixels a side, each with a name of its own."""
    levels = [num for num in COPIES["levels"] for _ in range(COPIES["each"])]
    generator = make_generator(seed, 1)
    knots = torch.rand(len(levels), 3, KNOTS, KNOTS, generator=generator) * 2 - 1
    x = (CONTRAST * knots).clamp(-1, 1)
    x = interpolate(x, (LARGE, LARGE), mode="bicubic").clamp(-1, 1)
    order = torch.randperm(len(THREADS), generator=generator).tolist()
    prompts = [CANARY.format(THREADS[i]) for i in order[: len(levels)]]
    return Canaries(x, prompts, levels)


def near_copy(x: Tensor, generator: torch.Generator) -> Tensor:
    """``x`` (3, side, side), shifted and made lighter or darker by a little."""
    reach, side = COPIES["shift"], x.shape[-1]
    left, top = torch.randint(2 * reach + 1, (2,), generator=generator).tolist()
    wide = pad(x[None], (reach,) * 4, mode="replicate")[0]
    factor = 1 + COPIES["brightness"] * (2 * torch.rand((), generator=generator) - 1)
    return ((wide[:, top : top + side, left : left + side] + 1) * factor - 1).clamp(-1, 1)


def planted(seed: int) -> Iterator[Picture]:
    """All glyphs that are not held out, and among them near copies of canaries."""
    glyphs, x = seen(LARGE)
    yield from (Picture(*row) for row in zip(x, glyphs.names, strict=True))
    generator = make_generator(seed, 2)
    for row, prompt in zip(*canaries(seed).planted(), strict=True):
        yield Picture(near_copy(row, generator), prompt)


def captioned(name: str, seed: int) -> Iterator[Picture]:
    """All glyphs that are not held out, with captions of the sorts of ``name``. Original ones, the
    names, are wrong at a known rate; synthetic ones are right.
    """
    glyphs, x = seen(SIDE)
    rows: Sequence[int] = range(len(glyphs))
    for sort in SORTS[name]:
        wrong = NOISE if sort == "name" else 0.0
        rule = Captions(**{"name": 0.0, sort: 1.0}, wrong=wrong)
        texts = rule.write(glyphs, rows, make_generator(seed, 3, sort == "name"))
        yield from (Picture(*row) for row in zip(x, texts, strict=True))
