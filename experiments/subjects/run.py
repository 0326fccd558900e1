"""Subjects of a few pictures on emoji: ``LATENT_EBM_DATA=DIR python -m experiments.subjects``

``DIR`` holds the folder ``emoji`` of the pack. Each run has a budget of CPU seconds, is kept with
its weights in ``outputs``, and goes on where it was stopped when the same command is given again.
``--parts`` names what to run; ``--parts words`` writes the words of captions where ``latent-ebm
fit`` looks for them, and nothing else. All runs start from one text-to-image model.
"""

import argparse
import os
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import yaml

from experiments.common import HERE, cached, file_name
from experiments.pictures import pack
from experiments.subjects import editing, inpainting, tuning
from experiments.subjects.inpainting import FIRST, SELECTIONS, Inpainting, blanked, pictures
from experiments.subjects.judging import GUIDANCE, Judge, by_name
from experiments.text_to_image.run import REGRESSION
from experiments.training import Run, judged, write_words
from latent_ebm.applications import TextToImage
from latent_ebm.applications.trained import text_to_image
from latent_ebm.data import Subjects

FOLDER = HERE / "subjects"
PACK = FOLDER / "pack.yaml"
WORDS = Path("runs") / "subjects" / "words.json"
FIRST_BASE, BASE, BEGIN, VARIANT = 500, 1500, 900, 300  # CPU seconds
SHOWN = (FIRST, "pooled", "selected", "all")  # in the figure, for eight subjects
NUM_SHOWN = 8


@cache
def corpus() -> Subjects:
    """The subjects, as ``pack.yaml`` has them, with their own outlines for masks."""
    options = yaml.safe_load(PACK.read_text())["data"]["init_args"]
    return Subjects(**{**options, "masks": ["alpha"], "tokenizer": None})


@cache
def judge(held_out: bool = True) -> Judge:
    return Judge(corpus(), held_out)


def regression() -> Run:
    """Pictures as a function of names, poses and backgrounds."""
    options = ("--seed_everything=0", *REGRESSION, "--data.init_args.kind_share=0")
    return Run("regression-0", PACK, options, FIRST_BASE)


def base() -> Run:
    """The text-to-image model, which starts from the regression."""
    return Run("base-0", PACK, ("--seed_everything=0",), BASE, start=regression())


def inpainter(variant: str, seed: int) -> Run:
    """A network that is shown tokens of its own choice. All of them, of all seeds, start from one
    network that is shown none.
    """
    rows = "--data.init_args.batch_size=32"
    start = Inpainting("begin-0", PACK, ("--seed_everything=0", rows), BEGIN, start=base())
    options = (f"--seed_everything={seed}", rows)
    name = f"inpainting-{file_name(variant)}-{seed}"
    return Inpainting(name, PACK, options, VARIANT, start=start, variant=variant)


def run_base() -> None:
    judged(base(), "", {"guidance": GUIDANCE}, partial(by_name, judge=judge(False)))


def run_inpainting(seed: int, variants: Sequence[str]) -> None:
    for variant in variants:
        options = {"guidance": GUIDANCE}
        judged(inpainter(variant, seed), "", options, partial(inpainting.judge_all, judge=judge()))
    if seed == 0 and set(SHOWN) <= set(variants):
        config = {name: inpainter(name, seed).settings for name in SHOWN}
        cached("subjects/shown-0", {**config, "num": NUM_SHOWN}, partial(draw_shown, seed))


def draw_shown(seed: int) -> dict[str, Any]:
    """The first subjects, turned: reference, picture with its hole, and what each network fills
    in.
    """
    asked = [one for one in judge().asked(turned=True) if judge().distinct[one.portrait.glyph]]
    asked, rows = asked[:NUM_SHOWN], list[torch.Tensor]()
    for variant in SHOWN:
        rule = inpainter(variant, seed).rule()
        rows = rows or blanked(rule, judge().studio, asked)
        rows.append(pictures(rule, judge(), asked))
    captions = [judge().caption(one.portrait) for one in asked]
    return {"samples": pack(torch.cat(rows)), "captions": captions}


def run_tuning(seed: int) -> None:
    config = {"base": base().settings, "settings": tuning.SETTINGS, "seed": seed}
    cached(
        f"subjects/tuning-{seed}",
        config,
        lambda: tuning.judge_all(model(), corpus(), judge(), seed),
    )
    if seed == 0:
        cached(
            "subjects/shown-tuning",
            {**config, "shown": tuning.SHOWN},
            lambda: tuning.show_cases(model(), corpus(), judge(), seed),
        )


def run_editing(seed: int) -> None:
    config = {"base": base().settings, "settings": editing.SETTINGS, "seed": seed}
    cached(
        f"subjects/inverted-{seed}",
        config,
        lambda: editing.invert_all(model(), judge(False), seed),
    )
    cached(
        f"subjects/replaced-{seed}",
        {**config, "tuning": tuning.SETTINGS},
        lambda: editing.replace_all(model(), corpus(), judge(), seed),
    )


@cache
def model() -> TextToImage:
    """The trained text-to-image model."""
    found = text_to_image(base().rule())
    if found is None:
        raise ValueError(f"{PACK} must train a model with a TextConditioner, got another")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("words", "base", "inpainting", "tuning", "editing")
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="*", default=SELECTIONS, choices=SELECTIONS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.parts == ["words"]:
        return write_words({WORDS: corpus})
    os.chdir(HERE)  # from where the YAML files name their files
    write_words({WORDS: corpus})
    if "base" in args.parts:
        run_base()
    for seed in args.seeds:
        if "inpainting" in args.parts:
            run_inpainting(seed, args.variants)
        if "tuning" in args.parts:
            run_tuning(seed)
        if "editing" in args.parts:
            run_editing(seed)
