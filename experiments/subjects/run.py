"""Subjects of a few pictures on emoji: ``LATENT_EBM_DATA=DIR python -m experiments.subjects``

``DIR`` holds the folder ``emoji`` of the pack. Each run has a budget of CPU seconds or of updates,
is kept with its weights in ``outputs``, and goes on where it was stopped when the same command is
given again. ``--parts`` names what to run; ``--parts words`` writes the words of captions where
``latent-ebm fit`` looks for them, and nothing else.
"""

import argparse
import os
from pathlib import Path

import torch

from experiments.common import HERE
from experiments.training import Run, write_words
from latent_ebm.data import Subjects

FOLDER = HERE / "subjects"
PACK = FOLDER / "pack.yaml"
WORDS = Path("runs") / "subjects" / "words.json"
GROUPS = ("animals-nature", "food-drink", "objects", "travel-places", "activities")
BASE = 3000  # CPU seconds


def corpus() -> Subjects:
    """The subjects, as ``pack.yaml`` has them."""
    return Subjects("pack", groups=GROUPS, textured=0.3, family_power=-0.5)


def base(seed: int) -> Run:
    """The text-to-image model."""
    return Run(f"base-{seed}", PACK, (f"--seed_everything={seed}",), BASE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("words", "base")
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.parts == ["words"]:
        return write_words({WORDS: corpus})
    os.chdir(HERE)  # from where the YAML files name their files
    write_words({WORDS: corpus})
    for seed in args.seeds:
        if "base" in args.parts:
            base(seed).rule()
