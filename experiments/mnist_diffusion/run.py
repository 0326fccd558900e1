"""One-step students of a diffusion model of MNIST, and its own few-step samples: ``python -m
experiments.mnist_diffusion``

``LATENT_EBM_DATA=DIR`` names the directory of the four IDX files. A teacher in pixel space is
trained first (an hour of one core) and kept in ``runs``; every student then gets the same CPU
time, half an hour unless ``--minutes`` says otherwise. All samples are compared with test images
in the features of a classifier that this library trains, also while a student learns, so that its
curve can be read at equal updates as well as at equal time.
"""

import argparse
import json
import math
import os
import time
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from experiments.common import HERE, Clock, cached, settings, train, write_json
from experiments.pictures import pack
from experiments.training import Recipe, Run, judged
from latent_ebm.cli import main as latent_ebm
from latent_ebm.cli.checkpoints import load_rule
from latent_ebm.data import MNIST
from latent_ebm.learning import Denoising
from latent_ebm.metrics import frechet_distance, prdc
from latent_ebm.networks.classifier import FeatureClassifier, frozen_classifier

FOLDER = HERE / "mnist_diffusion"
TEACHER, CHECKPOINT = FOLDER / "teacher.yaml", "runs/mnist_diffusion/teacher/last.ckpt"
LATENT_EBM = HERE / "mnist" / "ratio.yaml"  # what students are compared with
STEPS = (1, 2, 4, 8, 50)  # of the teacher's DDIM sampler
NUM, NUM_TIMED, NUM_SHOWN = 2000, 500, 48
CURVE = ("frechet", "recall", "coverage", "class_kl")  # kept during training
EPOCH = "--trainer.limit_train_batches=100"  # a checkpoint is written after every second epoch
EM = "--model.init_args.sampler.init_args.num_steps="
STUDENTS = {  # the YAML file of a student, and its options
    "emd-1": ("emd", [f"{EM}1"]),
    "emd-4": ("emd", [f"{EM}4"]),
    "emd-16": ("emd", [f"{EM}16"]),
    "dmd": ("dmd", []),
    "ufogen": ("ufogen", []),
    "ddgan-4": ("ddgan", []),
}


@cache
def data() -> MNIST:
    """The data of the teacher."""
    module = MNIST(batch_size=64, num_val=1000)
    module.setup()
    return module


@cache
@torch.enable_grad()
def classifier() -> FeatureClassifier:
    """A classifier whose features and classes judge all samples."""
    return frozen_classifier(data().train.x, data().train.label, 10, progress=False)


def quality(x: Tensor) -> dict[str, Any]:
    """Figures of samples x (n, 1, 28, 28) against as many test images."""
    network, test = classifier(), data().test.x[: len(x)]
    real, fake = network.features(test), network.features(x)
    shares = class_shares(network(x))
    return {
        "frechet": frechet_distance(real, fake),
        **prdc(real, fake),
        "class_kl": float(torch.special.xlogy(shares, shares / class_shares(network(test))).sum()),
    }


def class_shares(logits: Tensor) -> Tensor:
    """Share of each class (10,) among rows (n, 10)."""
    return torch.bincount(logits.argmax(1), minlength=logits.shape[1]) / len(logits)


@torch.no_grad()
def judge(rule: Any, **options: Any) -> dict[str, Any]:
    """Figures of what ``rule`` generates, CPU seconds for 1,000 samples, and some samples."""
    torch.manual_seed(0)
    x = rule.generate(NUM, **options)["x"]
    start = time.process_time()
    rule.generate(NUM_TIMED, **options)
    seconds = (time.process_time() - start) * 1000 / NUM_TIMED
    return {**quality(x), "seconds_per_1000": seconds, "samples": pack(x[:NUM_SHOWN])}


class Watched(Recipe):
    """A recipe that judges the averaged rule after 25, 36, 51, 71, ... updates and at the end, off
    the clock. Learning rates stay, so that students can be compared at equal updates.
    """

    def __init__(self, seconds: float = math.inf, updates: float = math.inf) -> None:
        super().__init__(seconds, updates)
        self.curve, self.due = list[dict[str, Any]](), 25.0

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Leave the rates alone."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, *args, **kwargs)
        if self.updates >= self.due or trainer.should_stop:
            begin, spent = self.now(), {"updates": self.updates, "seconds": self.seconds}
            self.curve.append(spent | look(self.average))
            self.due *= 2**0.5
            self.start += self.now() - begin

    def record(self) -> dict[str, Any]:
        return {**super().record(), "curve": self.curve}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "curve": self.curve, "due": self.due}


@dataclass(frozen=True)
class Student(Run):
    """The training of a student of the teacher, with its curve."""

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "teacher": settings(TEACHER)}

    def recipe(self) -> Recipe:
        return Watched(self.seconds, self.updates)


def student(name: str, seed: int, minutes: float) -> Student:
    """The training of the student ``name`` for ``minutes`` of CPU time."""
    file, options = STUDENTS[name]
    told = (f"--seed_everything={seed}", EPOCH, *options)
    return Student(f"{name}-{seed}", FOLDER / f"{file}.yaml", told, 60 * minutes)


def judge_data() -> dict[str, Any]:
    """The best to expect: figures of training images."""
    x = data().train.x[:NUM]
    return {**quality(x), "samples": pack(x[:NUM_SHOWN])}


def look(rule: Any) -> dict[str, Any]:
    """Figures of a rule in training for its curve, of samples from the same noise every time."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        figures = quality(rule.generate(NUM)["x"])
    print(f"  Fréchet {figures['frechet']:.4g}, KL {figures['class_kl']:.2g}", flush=True)
    return {key: figures[key] for key in CURVE}


def train_teacher() -> None:
    """Train the teacher, or go on where an earlier sitting was stopped. Raises ``ValueError`` if
    the checkpoint that is there was trained by another ``teacher.yaml``.
    """
    checkpoint, told = HERE / CHECKPOINT, HERE / "runs/mnist_diffusion/teacher.json"
    known = json.loads(told.read_text()) if told.exists() else None
    if checkpoint.exists() and known != settings(TEACHER):
        raise ValueError(
            f"{CHECKPOINT} must be trained by the present teacher.yaml, got one of another: move "
            f"{checkpoint.parent} away"
        )
    write_json(told, settings(TEACHER))
    resume = [f"--ckpt_path={CHECKPOINT}"] if checkpoint.exists() else []
    if latent_ebm(
        ["fit", "--config", str(TEACHER), "--trainer.enable_progress_bar=false", *resume]
    ):
        raise RuntimeError("the teacher could not be trained")


@cache
def teacher() -> Denoising:
    """The trained teacher."""
    rule, _ = load_rule(HERE / CHECKPOINT)
    if not isinstance(rule, Denoising):
        raise ValueError(f"{CHECKPOINT} must hold a denoiser, got {type(rule).__name__}")
    return rule


def run_latent_ebm(seed: int) -> dict[str, Any]:
    """Train the library's latent energy-based model as ``experiments.mnist`` does, and judge
    it.
    """
    clock = Clock()
    overrides = [f"--seed_everything={seed}", f"--data.init_args.seed={seed}"]
    rule, _ = train(LATENT_EBM, overrides, clock)
    return {**judge(rule.eval()), "seconds": clock.curve[-1]["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--students", nargs="*", default=list(STUDENTS), choices=STUDENTS)
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="CPU time of every student (default: 30)"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.chdir(HERE)  # from where the YAML files name their checkpoints
    train_teacher()
    cached("mnist_diffusion/data", {"num": NUM}, judge_data)
    for steps in STEPS:
        config = settings(TEACHER, num_steps=steps)
        cached(
            f"mnist_diffusion/teacher-{steps}",
            config,
            lambda steps=steps: judge(teacher(), num_steps=steps),
        )
    for seed in args.seeds:
        cached(
            f"mnist_diffusion/latent-ebm-{seed}",
            settings(LATENT_EBM, seed=seed),
            partial(run_latent_ebm, seed),
        )
        for name in args.students:
            judged(student(name, seed, args.minutes), "", {}, judge)
