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
from experiments.subjects.inpainting import (
    NETWORKS,
    SELECTIONS,
    START,
    VARIANTS,
    Inpainting,
    blanked,
    choose,
    pictures,
)
from experiments.subjects.judging import GUIDANCE, Judge, by_name
from experiments.text_to_image.run import REGRESSION
from experiments.training import Run, judged, write_words
from latent_ebm.applications import TextToImage
from latent_ebm.applications.trained import text_to_image
from latent_ebm.data import Subjects

FOLDER = HERE / "subjects"
PACK = FOLDER / "pack.yaml"
WORDS = Path("runs") / "subjects" / "words.json"
FIRST_BASE, BASE = 500, 1500  # CPU seconds
UPDATES = 4000  # of a network that fills holes
LONGER = 3000  # more updates of the text-to-image model whose pictures get another subject
SHOWN = ("text alone", "pooled", "selected", "all")  # in the figure, for eight subjects
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


def longer() -> Run:
    """The text-to-image model, trained on, so that it knows more subjects by their names."""
    return Run("longer-0", PACK, ("--seed_everything=1",), updates=LONGER, start=base())


def inpainter(network: str, seed: int) -> Inpainting:
    """A network that is shown tokens by any selection, of every batch by another one."""
    options = (f"--seed_everything={seed}", "--data.init_args.batch_size=32")
    weight, name = NETWORKS[network], f"{network}-{seed}"
    return Inpainting(name, PACK, options, updates=UPDATES, start=base(), regularisation=weight)


def run_base(run: Run, label: str = "") -> None:
    """Judge a text-to-image model. The budget of the first one is in seconds, so that it is
    another one on another machine; a ``label`` names for what it was trained there.
    """
    judged(run, label, {"guidance": GUIDANCE}, partial(by_name, judge=judge(False)))


def run_inpainting(seed: int, networks: Sequence[str]) -> None:
    run_base(base(), START)
    for network, tokens in VARIANTS.values():
        if network in networks:
            options = {"guidance": GUIDANCE, "tokens": repr(SELECTIONS[tokens])}
            judge_it = partial(judge_tokens, tokens)
            judged(inpainter(network, seed), f"-{file_name(tokens)}", options, judge_it)
    if seed == 0 and "decoupled" in networks:
        config = {**inpainter("decoupled", seed).settings, "shown": SHOWN, "num": NUM_SHOWN}
        cached("subjects/shown-0", config, partial(draw_shown, seed))


def judge_tokens(tokens: str, rule: Any) -> dict[str, Any]:
    return inpainting.judge_all(choose(rule, tokens), judge())


def draw_shown(seed: int) -> dict[str, Any]:
    """The first subjects, turned: reference, picture with its hole, and what the network fills in
    with each selection.
    """
    asked = [one for one in judge().asked(turned=True) if judge().distinct[one.portrait.glyph]]
    asked, rule = asked[:NUM_SHOWN], inpainter("decoupled", seed).rule()
    drawn = [pictures(choose(rule, tokens), judge(), asked) for tokens in SHOWN]
    captions = [judge().caption(one.portrait) for one in asked]
    x = torch.cat([*blanked(rule, judge().studio, asked), *drawn])
    return {"samples": pack(x), "captions": captions}


def run_tuning(seed: int) -> None:
    config = {"base": base().settings, "settings": tuning.SETTINGS, "seed": seed}
    cached(
        f"subjects/tuning-{seed}",
        config,
        lambda: tuning.judge_all(model(base()), corpus(), judge(), seed),
    )
    if seed == 0:
        cached(
            "subjects/shown-tuning",
            {**config, "shown": tuning.SHOWN},
            lambda: tuning.show_cases(model(base()), corpus(), judge(), seed),
        )


def run_editing(seed: int) -> None:
    told = {"settings": editing.SETTINGS, "seed": seed}
    cached(
        f"subjects/inverted-{seed}",
        {"base": base().settings, **told},
        lambda: editing.invert_all(model(base()), judge(False), seed),
    )
    run_base(longer())
    cached(
        f"subjects/replaced-{seed}",
        {"base": longer().settings, **told, "tuning": tuning.SETTINGS},
        lambda: editing.replace_all(model(longer()), corpus(), judge(), seed),
    )


@cache
def model(run: Run) -> TextToImage:
    """The text-to-image model that was trained by ``run``."""
    found = text_to_image(run.rule())
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
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.parts == ["words"]:
        return write_words({WORDS: corpus})
    os.chdir(HERE)  # from where the YAML files name their files
    write_words({WORDS: corpus})
    if "base" in args.parts:
        run_base(base())
    for seed in args.seeds:
        if "inpainting" in args.parts:
            run_inpainting(seed, args.networks)
        if "tuning" in args.parts:
            run_tuning(seed)
        if "editing" in args.parts:
            run_editing(seed)
