"""Counting from one to five, as an exact parser reads scenes, over the seven prompt types."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch.nn.functional import avg_pool2d, interpolate

from experiments.claims import as_list
from experiments.imagen.corpora import LARGE, Picture
from experiments.text_to_image.judging import Draw, draw_all
from latent_ebm.data import Scenes
from latent_ebm.data.base import make_generator
from latent_ebm.data.emoji_pack import read_pack
from latent_ebm.data.glyphs import Glyphs
from latent_ebm.data.scene import MAX_NUM, Scene, Scenery
from latent_ebm.data.scene_captions import ALL_PROMPTS, PROMPTS, describe, plural, prompts_of
from latent_ebm.data.scene_parser import SceneParser
from latent_ebm.evaluation import counting_accuracy
from latent_ebm.text import WordTokenizer

THINGS = ("tomato", "lemon", "frog", "octopus", "fox", "grapes")
FACTOR, MIN_SCORE = 2, 0.4  # scenes of 64 pixels, half as large; what the parser demands
NUM_SCENES, NUM_TESTED = 6000, 20  # training scenes; tested ones of a prompt type and a number
COUNTING = {"things": THINGS, "scenes": NUM_SCENES, "factor": FACTOR}


@cache
def glyphs() -> Glyphs:
    """Six things that differ in colour."""
    pack = read_pack(side=LARGE)
    return pack.take([list(pack.names).index(name) for name in THINGS])


@cache
def scenery() -> Scenery:
    return Scenery(glyphs(), LARGE, MAX_NUM)


def words() -> list[str]:
    """Texts that hold all words of captions of scenes."""
    data = Scenes(max_num=1)
    data.setup()
    known = data.tokenizer.words if isinstance(data.tokenizer, WordTokenizer) else ()
    return [*known, *THINGS, *map(plural, THINGS)]


def scenes(seed: int) -> Iterator[Picture]:
    """Scenes of one to five things, with captions of all prompt types."""
    generator = make_generator(seed, 4)
    for _ in range(NUM_SCENES):
        scene = scenery().draw(generator)
        fitting = prompts_of(scene)
        prompt = fitting[int(torch.randint(len(fitting), (), generator=generator))]
        caption = describe(scene, glyphs().names, prompt, generator)
        yield Picture(avg_pool2d(scenery().render(scene), FACTOR), caption)


def tested() -> list[tuple[Scene, str, str]]:
    """Scenes, prompt types and captions: as many of each number and type that fit each other."""
    generator, found = make_generator(0, 5), list[tuple[Scene, str, str]]()
    for num in range(1, MAX_NUM + 1):
        wanted = [p for kinds in PROMPTS if kinds <= num for p in PROMPTS[kinds]]
        left = Counter({prompt: NUM_TESTED for prompt in wanted})
        while +left:
            scene = scenery().draw(generator, num)
            for prompt in prompts_of(scene):
                if left[prompt] > 0:
                    left[prompt] -= 1
                    caption = describe(scene, glyphs().names, prompt, generator)
                    found.append((scene, prompt, caption))
    return found


def judge(draw: Draw, device: torch.device) -> dict[str, Any]:
    """Accuracies by number, for prompts of one kind of thing; by prompt type; and those of the
    true pictures, which the parser sees just as small.
    """
    asked, prompts, captions = (list(column) for column in zip(*tested(), strict=True))
    drawn = draw_all(draw, captions, device)
    truth = torch.stack([avg_pool2d(scenery().render(scene), FACTOR) for scene in asked])
    return {
        "counts": accuracies(asked, drawn, prompts),
        "ceiling": accuracies(asked, truth, prompts),
    }


def accuracies(asked: list[Scene], x: torch.Tensor, prompts: list[str]) -> dict[str, list[float]]:
    """Share, low and high end of its interval, by number (of one kind of thing) and by type."""
    large = interpolate(x, scale_factor=FACTOR, mode="bilinear").clamp(-1, 1)
    read, art = SceneParser(scenery(), MIN_SCORE)(large), glyphs().art
    single = [i for i, prompt in enumerate(prompts) if prompt in PROMPTS[1]]
    by_number = counting_accuracy(
        [asked[i] for i in single],
        [read[i] for i in single],
        [str(len(asked[i].objects)) for i in single],
        art,
        confidence=0.95,
    )
    by_type = counting_accuracy(asked, read, prompts, art, confidence=0.95)
    order = {**by_number, **{name: by_type[name] for name in ALL_PROMPTS}}
    return {name: as_list(found) for name, found in order.items()}
