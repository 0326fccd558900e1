"""Curation, evaluation and responsibility on emoji: ``LATENT_EBM_DATA=DIR python -m
experiments.imagen``

``DIR`` holds the folder ``emoji`` of the pack. Each training run has a budget of updates, is kept
with its weights in ``outputs``, and goes on where it was stopped when the same command is given
again. ``--parts`` names what to run; ``--parts words`` writes words and a folder of captioned
pictures where ``latent-ebm fit`` looks for them, and nothing else.
"""

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from experiments.common import HERE, cached
from experiments.imagen import (
    balance,
    canaries,
    captions,
    counting,
    filters,
    meta,
    ranking,
    watermark,
)
from experiments.imagen.corpora import (
    CANARY,
    COPIES,
    LONG,
    NOISE,
    OPEN_CANARIES,
    SIDE,
    SORTS,
    Corpus,
    captioned,
    planted,
    write_words,
)
from experiments.text_to_image.judging import drawing
from experiments.text_to_image.run import DEVICE, MODEL, REGRESSION, base, gallery
from experiments.text_to_image.students import GUIDANCE
from experiments.text_to_image.switches import NETWORK
from experiments.training import Run, judged

FOLDER = HERE / "imagen" / "folder.yaml"
SCORER = HERE / "imagen" / "scorer.yaml"
BEGIN, TRAIN, COUNT = 400, 800, 1600  # updates: of regressions, diffusion models, and of scenes
CONTRAST = 1500  # updates of the scorer
STEPS = 15
DATA = "--data.init_args."
SCENES = (
    f"{NETWORK}shape=[3,32,32]",
    f"{MODEL}shape=[3,32,32]",
    f"{DATA}size=32",
    f"{NETWORK}transformers=[0,1,1]",
    f"{NETWORK}self_attention=[false,true,true]",
    f"{NETWORK}text_map=false",
)
ARMS = {"canaries": ("raw", "curated"), "captions": tuple(SORTS), "balance": ("skewed", "even")}


def planted_corpus(seed: int) -> Corpus:
    """Glyphs with planted canaries."""
    return Corpus("canaries", seed, {**COPIES, "prompt": CANARY}, planted)


def captioned_corpus(name: str, seed: int) -> Corpus:
    """Glyphs with noisy, synthetic or mixed captions."""
    settings = {"sorts": SORTS[name], "noise": NOISE}
    return Corpus(name, seed, settings, partial(captioned, name))


def people_corpus(name: str, seed: int) -> Corpus:
    """People, with skewed or equal weights."""
    settings = {"skew": balance.SKEW if name == "skewed" else None}
    return Corpus(name, seed, settings, partial(balance.people, skewed=name == "skewed"))


def trained(name: str, seed: int, path: Path, *more: str) -> Run:
    """A diffusion model of the folder ``path`` that starts from a regression."""
    shared = (f"--seed_everything={seed}", f"{DATA}path={path}", *more)
    first = Run(f"first-{name}-{seed}", FOLDER, (*shared, *REGRESSION), updates=BEGIN)
    return Run(f"{name}-{seed}", FOLDER, shared, updates=TRAIN, start=first)


def arm(name: str, seed: int) -> Run:
    """The model of an arm. Its folder is written if it is not there yet."""
    if name in ARMS["captions"]:
        return trained(name, seed, captioned_corpus(name, seed).ready())
    if name in ARMS["balance"]:
        return trained(name, seed, people_corpus(name, seed).ready())
    corpus = planted_corpus(seed)
    if name == "raw":
        return trained(name, seed, corpus.ready())
    return trained(name, seed, corpus.ready(), f"{DATA}table={corpus.curated()}")


def counting_model(seed: int) -> Run:
    """The model of scenes, without a regression first: no caption tells places."""
    corpus = Corpus("scenes", seed, counting.COUNTING, counting.scenes)
    options = (f"--seed_everything={seed}", f"{DATA}path={corpus.ready()}", *SCENES)
    return Run(f"counting-{seed}", FOLDER, options, updates=COUNT)


def run_canaries(seed: int) -> None:
    options = {"num_steps": STEPS, "guidance": GUIDANCE}
    shown = gallery(side=SIDE)
    for name in ARMS["canaries"]:
        config = {**options, "copies": COPIES, "open": OPEN_CANARIES}
        judge = partial(canaries.judge, seed=seed, gallery=shown, device=DEVICE, **options)
        judged(arm(name, seed), "", config, judge)
    corpus = planted_corpus(seed)
    config = {"corpus": corpus.settings, "seed": seed}
    cached(f"imagen/found-{seed}", config, lambda: canaries.found_copies(corpus, seed))


def run_captions(seed: int) -> None:
    judge = partial(captions.judge, gallery=gallery(side=SIDE), device=DEVICE)
    judge_arms("captions", seed, judge, long=LONG)


def run_balance(seed: int) -> None:
    judge = partial(balance.judge, device=DEVICE)
    judge_arms("balance", seed, judge, draws=balance.DRAWS, names=balance.NUM_NAMES)


def run_counting(seed: int) -> None:
    judge = partial(counting.judge, device=DEVICE)
    more = {"tested": counting.NUM_TESTED, "least": counting.MIN_SCORE}
    judge_run(counting_model(seed), judge, **more)


def run_meta(seed: int) -> None:
    """Metrics of the models of ``pool``, beside the oracle."""
    scoring, models = scorer(seed), pool(seed)
    config: dict[str, Any] = {"scorer": scoring.settings, "num": [meta.NUM, meta.COARSE]}
    config["pool"] = {name: [run.settings, options] for name, (run, options) in models.items()}

    def compute() -> dict[str, Any]:
        draws = {name: drawing(run.rule(), **how) for name, (run, how) in models.items()}
        return meta.judge(draws, scoring.rule().scorer, gallery(side=SIDE), DEVICE)

    cached(f"imagen/meta-{seed}", config, compute)


def scorer(seed: int) -> Run:
    """The contrastive scorer, trained on right sentences."""
    path = captioned_corpus("synthetic", seed).ready()
    options = (f"--seed_everything={seed}", f"{DATA}path={path}")
    return Run(f"scorer-{seed}", SCORER, options, updates=CONTRAST)


def pool(seed: int) -> dict[str, tuple[Run, dict[str, Any]]]:
    """Good and weak models: those of captions, one of them also with fewer steps and other weights
    of guidance, and the regressions that they start from.
    """
    whole = {"num_steps": STEPS, "guidance": GUIDANCE}
    best, found = arm("synthetic", seed), dict[str, tuple[Run, dict[str, Any]]]()
    for num in (1, 4):
        found[f"synthetic, steps {num}"] = best, {**whole, "num_steps": num}
    for weight in (1.0, 4.0):
        found[f"synthetic, weight {weight:g}"] = best, {**whole, "guidance": weight}
    for name in ARMS["captions"]:
        run = arm(name, seed)
        found[name] = run, whole
        found[f"{name}, regression"] = run.origin, {"num_steps": 1}
    return found


def run_filters(seed: int) -> None:
    numbers = {"num": [filters.NUM, filters.PLANTED], "limit": filters.LIMIT}
    config = {**numbers, "seed": seed, "examples": "shuffled"}
    parts = {"curation": filters.curation, "assurance": filters.assurance}
    cached(f"imagen/filters-{seed}", config, lambda: {k: f(seed) for k, f in parts.items()})


def run_ranking(seed: int) -> None:
    config = {"settings": ranking.RANKING, "seed": seed}
    cached(f"imagen/ranking-{seed}", config, partial(ranking.simulate, seed))


def run_watermark(seed: int) -> None:
    """The watermark in pixels, and that in the noise of the base model if it has been trained."""
    num = [
        watermark.NUM,
        watermark.KEYS,
        watermark.ALARM,
        *watermark.PSNR,
        *watermark.SIDES,
        "by key",
    ]
    config = {"num": num, "seed": seed}
    cached(f"imagen/pixels-{seed}", config, partial(watermark.in_pixels, seed))
    if base(seed).weights.exists():
        config = {**base(seed).settings, "num": watermark.NUM_DRAWN, "by key": watermark.KEYS}
        cached(f"imagen/noise-{seed}", config, partial(noise_watermark, seed))


def noise_watermark(seed: int) -> dict[str, Any]:
    shown = gallery()
    rows = shown.rows()["other"][: watermark.NUM_DRAWN].tolist()
    prompts = [str(shown.glyphs.names[i]) for i in rows]
    return watermark.in_noise(base(seed).rule().cpu(), prompts, seed)


def judge_arms(part: str, seed: int, judge: Any, **settings: Any) -> None:
    for name in ARMS[part]:
        judge_run(arm(name, seed), judge, **settings)


def judge_run(run: Run, judge: Any, **settings: Any) -> None:
    """What ``judge``, which has these ``settings``, finds of the pictures that ``run`` has learnt
    to draw.
    """
    options = {"num_steps": STEPS, "guidance": GUIDANCE}
    judged(run, "", {**options, **settings}, lambda rule: judge(drawing(rule, **options)))


PARTS = {
    "canaries": run_canaries,
    "captions": run_captions,
    "counting": run_counting,
    "balance": run_balance,
    "meta": run_meta,
    "filters": run_filters,
    "ranking": run_ranking,
    "watermark": run_watermark,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("words", *PARTS)
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if args.parts != ["words"]:
        os.chdir(HERE)  # from where the YAML file names its files
    write_words(counting.words())
    for seed in args.seeds:
        for name, run in PARTS.items():
            if name in args.parts:
                run(seed)
