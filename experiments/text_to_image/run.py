"""Text to image on emoji: ``LATENT_EBM_DATA=DIR python -m experiments.text_to_image``

``DIR`` holds the folder ``emoji`` of the pack. Each run has a budget of seconds (of the CPU, or of
the wall on a GPU) or of updates, is kept with its weights in ``outputs``, and goes on where it was
stopped when the same command is given again. ``--parts`` names what to run; ``--parts words``
writes the words of captions where ``latent-ebm fit`` looks for them, and nothing else.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from experiments.common import HERE, cached
from experiments.text_to_image import shown
from experiments.text_to_image.judging import Draw, Gallery, drawing, names, openness
from experiments.text_to_image.scene_judging import scenes
from experiments.text_to_image.students import GUIDANCE, STUDENTS, Study
from experiments.text_to_image.switches import NETWORK, PLAIN, SIZE, SWITCHES, costs, stem
from experiments.training import Run, judged, write_words
from latent_ebm.data import Captions, Emoji, Scenes
from latent_ebm.text import WordTokenizer

PLACE = Path("runs") / "text_to_image"  # of the tokenizers that YAML files name
WORDS, SCENE_WORDS = PLACE / "words.json", PLACE / "scene_words.json"
STYLES, SCENE_GROUPS = ("twemoji", "noto", "fluent"), ("animals-nature",)
SOURCES = {
    WORDS: partial(Emoji, styles=STYLES, captions=Captions(1, 1, 1, 1)),
    SCENE_WORDS: partial(Scenes, "pack", groups=SCENE_GROUPS),
}
FOLDER = HERE / "text_to_image"
BASE, SCENES = FOLDER / "base.yaml", FOLDER / "scenes.yaml"
MODEL = "--model.init_args."
REGRESSION = (f"{MODEL}log_snr=[-8.99,0.01]", f"{MODEL}dropout=0")  # pure noise: no diffusion
SMALL = (  # a quarter of the work
    f"{NETWORK}shape=[3,16,16]",
    f"{MODEL}shape=[3,16,16]",
    "--data.init_args.side=16",
)
OPEN_STYLES = STYLES[:2]
OPEN = (
    *SMALL,
    f"--data.init_args.styles=[{','.join(OPEN_STYLES)}]",
    "--data.init_args.captions={name: 1, styled: 1, keyword: 1, kind: 2}",
    "--data.init_args.family_power=-1",
)
SCENES_GPU = (
    "--data.init_args.batch_size=256",
    "--data.init_args.num=100000",
    f"{NETWORK}channels=[64,128,192]",
    f"{NETWORK}depth=[2,2,2]",
    f"{NETWORK}transformers=[1,2,2]",
)
STEPS, SHOWN = (1, 2, 4, 8, 15, 50), 4
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
UPDATES = 300  # of students that are compared at equal updates
HOW = {  # options of drawing, by what is added to a student's name
    "progressive-8": {"": {"guidance": GUIDANCE}},
    "ufogen": {"-1": {"num_steps": 1}, "-4": {"num_steps": 4}},
}
Judge = Callable[[Draw], dict[str, Any]]
Options = dict[str, Any]  # of drawing


def regression(seed: int) -> Run:
    """The picture as a function of the text: a denoiser that sees nothing but noise."""
    return Run(f"regression-{seed}", BASE, (f"--seed_everything={seed}", *REGRESSION), 500)


def base(seed: int) -> Run:
    """The diffusion model, which starts from the regression."""
    return Run(f"base-{seed}", BASE, (f"--seed_everything={seed}",), 1300, start=regression(seed))


def open_regression(seed: int) -> Run:
    """The regression on captions some of which leave the picture open, in two styles."""
    options = (f"--seed_everything={seed}", *OPEN, *REGRESSION)
    return Run(f"open-regression-{seed}", BASE, options, 300)


def open_base(seed: int) -> Run:
    """The diffusion model of open captions: the teacher of all students."""
    options = (f"--seed_everything={seed}", *OPEN)
    return Run(f"open-base-{seed}", BASE, options, 1500, start=open_regression(seed))


def open_student(kind: str, seed: int, **budget: float) -> Run:
    """A student of few steps."""
    options = (f"--seed_everything={seed}", *OPEN, "--trainer.gradient_clip_val=null")
    start, amount = open_base(seed), "-".join(budget)
    return Study(f"{kind}-{amount}-{seed}", BASE, options, start=start, kind=kind, **budget)


def switched(name: str, seed: int) -> Run:
    """A plain network with a change, for the table of changes."""
    shared = small(seed, **SWITCHES[name])
    first = Run(f"first-{stem(name)}-{seed}", BASE, (*shared, *REGRESSION), updates=400)
    return Run(f"switch-{stem(name)}-{seed}", BASE, shared, updates=800, start=first)


def tuned(weights: str, seed: int) -> Run:
    """The plain network, trained on with other attention weights, or with its own."""
    options, start = small(seed, weights=weights), switched("plain", seed)
    return Run(f"tuned-{weights}-{seed}", BASE, options, updates=400, start=start)


def small(seed: int, **changes: Any) -> tuple[str, ...]:
    """Options of a plain network with ``changes``, at 16 pixels."""
    network = PLAIN | changes
    options = (f"{NETWORK}{key}={value}" for key, value in network.items())
    return (f"--seed_everything={seed}", *SMALL, *options)


def scene_regression(seed: int, seconds: float) -> Run:
    """The regression on scenes, for a sixth of the time of the diffusion model."""
    options = (*scene_options(seed), *REGRESSION)
    return Run(f"scene-regression-{DEVICE.type}-{seed}", SCENES, options, seconds / 6)


def scene_base(seed: int, seconds: float) -> Run:
    """The diffusion model of scenes, without a regression first: no caption tells places."""
    return Run(f"scenes-{DEVICE.type}-{seed}", SCENES, scene_options(seed), seconds)


def scene_options(seed: int) -> tuple[str, ...]:
    """The seed, and on a GPU a larger network."""
    return (f"--seed_everything={seed}", *(SCENES_GPU if DEVICE.type == "cuda" else ()))


@cache
def gallery(styles: Sequence[str] = ("twemoji",), side: int = 32) -> Gallery:
    """All glyphs of some styles."""
    return Gallery(Emoji(styles=styles, side=side))


def drawn(run: Run, label: str, judge: Judge, **options: Any) -> dict[str, Any]:
    """What ``judge`` finds of the pictures that the trained rule draws with ``options``."""
    return judged(run, label, options, lambda rule: judge(drawing(rule, **options)))


def judge_names(draw: Draw, side: int = 32) -> dict[str, float]:
    return names(draw, gallery(side=side), DEVICE)


def judge_open(draw: Draw) -> dict[str, float]:
    return openness(draw, gallery(OPEN_STYLES, 16), DEVICE)


def run_base(seed: int) -> None:
    drawn(regression(seed), "", judge_names, num_steps=1)
    for steps in (1, SHOWN, 15):
        drawn(base(seed), f"-{steps}", judge_names, num_steps=steps, guidance=GUIDANCE)
    drawn(base(seed), "-unguided", judge_names, num_steps=15)
    config = {**base(seed).settings, "shown": 12, "steps": SHOWN}
    cached(
        f"text_to_image/shown-{seed}",
        config,
        lambda: shown.names(base(seed).rule(), gallery(), (SHOWN, 15), DEVICE),
    )


def run_open(seed: int) -> None:
    drawn(open_regression(seed), "", judge_open, num_steps=1)
    for steps in STEPS:
        drawn(open_base(seed), f"-{steps}", judge_open, num_steps=steps, guidance=GUIDANCE)


def run_students(seed: int, kinds: Sequence[str], seconds: float) -> None:
    for budget in ({"seconds": seconds}, {"updates": UPDATES}):
        for kind in kinds:
            run = open_student(kind, seed, **budget)
            for label, options in HOW.get(kind, {"": {}}).items():
                drawn(run, label, judge_open, **options)
    if seed == 0 and set(kinds) == set(STUDENTS):
        show_students(seed, seconds)


def show_students(seed: int, seconds: float) -> None:
    """Pictures of open captions by the regression, the teacher, and students at equal time."""
    steps = {f"teacher, {k} steps": {"num_steps": k, "guidance": GUIDANCE} for k in (1, 50)}
    shows: list[tuple[str, Run, Options]] = [
        ("regression", open_regression(seed), {"num_steps": 1})
    ]
    shows += [(name, open_base(seed), options) for name, options in steps.items()]
    for kind in STUDENTS:
        run = open_student(kind, seed, seconds=seconds)
        shows += [(f"{kind}{label}", run, how) for label, how in HOW.get(kind, {"": {}}).items()]
    config = {name: {**run.settings, "draw": options} for name, run, options in shows}
    draws = ((name, drawing(run.rule(), **options)) for name, run, options in shows)
    cached("text_to_image/shown-open", config, lambda: shown.opened(draws, DEVICE))


def run_switches(seed: int, only: Sequence[str]) -> None:
    cached("text_to_image/costs", {"size": SIZE, "switches": SWITCHES}, costs)
    judge = partial(judge_names, side=16)
    drawn(switched("plain", seed).origin, "", judge, num_steps=1)
    for name in only:
        drawn(switched(name, seed), "", judge, num_steps=15, guidance=GUIDANCE)
    for weights in ("softmax", "relu"):
        drawn(tuned(weights, seed), "", judge, num_steps=15, guidance=GUIDANCE)


def run_latency() -> None:
    """Times of a picture of the base model of the first seed, in one step."""
    from experiments.text_to_image.latency import latency

    config = {**base(0).settings, "steps": 1}
    cached("text_to_image/latency-1", config, lambda: latency(base(0).rule().cpu(), 1))


def run_scenes(seed: int, seconds: float) -> None:
    run, data = scene_base(seed, seconds), Scenes("pack", groups=SCENE_GROUPS)
    data.tokenizer = WordTokenizer.load(SCENE_WORDS)
    data.setup()
    judge = partial(scenes, data=data, device=DEVICE)
    drawn(scene_regression(seed, seconds), "-1", judge, num_steps=1)
    for steps in (1, 8, 50):
        drawn(run, f"-{steps}", judge, num_steps=steps, guidance=GUIDANCE)
    if seed == 0:
        how: Options = {"num_steps": 50, "guidance": GUIDANCE}
        config = {**run.settings, "draw": how}
        cached(
            f"text_to_image/shown-scenes-{DEVICE.type}",
            config,
            lambda: shown.scenes(drawing(run.rule(), **how), data, DEVICE),
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("words", "base", "open", "students", "switches", "scenes", "latency")
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--switches", nargs="*", default=SWITCHES, choices=SWITCHES)
    parser.add_argument("--students", nargs="*", default=STUDENTS, choices=STUDENTS)
    parser.add_argument("--student", type=float, default=300, help="seconds of a student")
    parser.add_argument("--scene", type=float, default=3600, help="seconds of a model of scenes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.parts == ["words"]:
        return write_words(SOURCES)
    os.chdir(HERE)  # from where the YAML files name their files
    write_words(SOURCES)
    for seed in args.seeds:
        if "base" in args.parts:
            run_base(seed)
        if "open" in args.parts:
            run_open(seed)
        if "students" in args.parts:
            run_students(seed, args.students, args.student)
        if "switches" in args.parts:
            run_switches(seed, args.switches)
        if "scenes" in args.parts:
            run_scenes(seed, args.scene)
    if "latency" in args.parts:
        run_latency()
