"""A thousand modes: ``python -m experiments.stacked_digits``

Three 8x8 digits are the channels of an image, so that there are 1,000 classes to lose. A diffusion
GAN of four steps, a plain GAN and a diffusion model, of generators alike, get the same CPU time; a
classifier of single digits, trained by this library, says which of the classes their samples are
in. A run that is stopped goes on when the same command is given again.
"""

import argparse
import time
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from experiments.common import HERE, cached
from experiments.pictures import pack
from experiments.training import Run, judged
from latent_ebm.data import Digits, StackedDigits
from latent_ebm.metrics import frechet_distance
from latent_ebm.networks.classifier import FeatureClassifier, frozen_classifier

FOLDER = HERE / "stacked_digits"
ROWS = {
    "diffusion_gan": "diffusion GAN, 4 steps",
    "gan": "plain GAN, 1 step",
    "diffusion": "diffusion, 50 steps",
}
COLUMNS = {
    "updates": "updates",
    "seconds": "CPU s",
    "modes": "modes of 1,000",
    "kl": "KL, nats",
    "frechet": "Fréchet",
    "seconds_per_1000": "CPU s / 1,000",
}
NUM, NUM_SHOWN = 25_600, 48


@cache
def digits() -> Digits:
    data = Digits()
    data.setup()
    return data


@cache
@torch.enable_grad()
def classifier() -> FeatureClassifier:
    """Of single digits."""
    return frozen_classifier(digits().train.x, digits().train.label, 10, epochs=30, progress=False)


@cache
def stacked() -> StackedDigits:
    """As many held-out rows as there are samples."""
    data = StackedDigits(5 * NUM)
    data.setup()
    return data


def measure(x: Tensor) -> dict[str, float]:
    """Of samples x (n, 3, 8, 8): classes that occur, KL of their histogram to the uniform one, and
    Fréchet distance.
    """
    share = torch.bincount(classes(x), minlength=1000).double() / len(x)
    return {
        "modes": int((share > 0).sum()),
        "kl": float(torch.special.xlogy(share, 1000 * share).sum()),
        "frechet": frechet_distance(features(stacked().test.x), features(x)),
    }


def classes(x: Tensor) -> Tensor:
    """The number (n,) that the digits of x (n, 3, 8, 8) spell."""
    found = classifier()(x.reshape(-1, 1, 8, 8)).argmax(1).view(-1, 3)
    return found @ torch.tensor([100, 10, 1])


def features(x: Tensor) -> Tensor:
    """Features (n, 3 d) of the three digits of x (n, 3, 8, 8)."""
    return classifier().features(x.reshape(-1, 1, 8, 8)).view(len(x), -1)


def training(name: str, seed: int, minutes: float) -> Run:
    """The training of one of ``ROWS`` for ``minutes`` of CPU time."""
    options = (f"--seed_everything={seed}",)
    return Run(f"{name}-{seed}", FOLDER / f"{name}.yaml", options, 60 * minutes)


@torch.no_grad()
def judge(rule: Any, seed: int) -> dict[str, Any]:
    """Figures of what ``rule`` generates, CPU seconds for 1,000 samples, and some samples."""
    torch.manual_seed(seed)
    start = time.process_time()
    x = rule.generate(NUM)["x"]
    seconds = (time.process_time() - start) * 1000 / NUM
    return {**measure(x), "seconds_per_1000": seconds, "samples": pack(x[:NUM_SHOWN])}


def judge_data() -> dict[str, Any]:
    """The best to expect: figures of stacked held-out digits, others than those that samples are
    compared with.
    """
    data, test = stacked(), digits().test
    accuracy = float((classifier()(test.x).argmax(1) == test.label).double().mean())
    return {**measure(data.val.x), "accuracy": accuracy, "samples": pack(data.train.x[:NUM_SHOWN])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--names", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="CPU time of every model (default: 10)"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    cached("stacked_digits/data-0", {"num": NUM}, judge_data)
    for seed in args.seeds:
        for name in args.names:
            run = training(name, seed, args.minutes)
            result = judged(run, "", {"num": NUM}, partial(judge, seed=seed))
            print("  " + "  ".join(f"{key} {result[key]:.4g}" for key in COLUMNS), flush=True)
