"""One-step students of a diffusion model of MNIST, and its own few-step samples: ``python -m experiments.mnist_diffusion``

``LATENT_EBM_DATA=DIR`` names the directory of the four IDX files. A teacher in pixel space is trained first (a few minutes
of one core) and kept in ``runs``; every student then gets the same CPU time. All samples are compared with test images in the
features of a classifier that this library trains, also while a student learns, so that its curve can be read at equal
updates as well as at equal time.
"""

import argparse
import base64
import os
import time
import zlib
from functools import cache, partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from experiments.common import HERE, Clock, cached, settings, train
from latent_ebm.cli import main as latent_ebm
from latent_ebm.cli.checkpoints import load_rule
from latent_ebm.data import MNIST
from latent_ebm.learning import Denoising
from latent_ebm.metrics import frechet_distance, prdc
from latent_ebm.networks.classifier import FeatureClassifier, fit_classifier

TEACHER, CHECKPOINT = HERE / "mnist" / "teacher.yaml", "runs/mnist/teacher/last.ckpt"
STEPS = (1, 2, 4, 8, 50)  # of the teacher's DDIM sampler
NUM, NUM_TIMED, NUM_SHOWN = 2000, 500, 48
FIRST_LOOK = 25  # updates
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
    """A classifier with a seed of its own, whose features and classes judge all samples."""
    train_set = data().train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = FeatureClassifier((1, 28, 28), 10)
    generator = torch.Generator().manual_seed(0)
    fit_classifier(network, train_set.x, train_set.label, progress=False, generator=generator)
    return network.eval().requires_grad_(False)


def quality(x: Tensor) -> dict[str, Any]:
    """Figures of samples x (n, 1, 28, 28) against as many test images."""
    network, test = classifier(), data().test.x[: len(x)]
    real, fake = network.features(test), network.features(x)
    shares = class_shares(network(x))
    return {
        "frechet": frechet_distance(real, fake),
        **prdc(real, fake),
        "class_kl": float(torch.special.xlogy(shares, shares / class_shares(network(test))).sum()),
        "shares": shares.tolist(),
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


def judge_data() -> dict[str, Any]:
    """The best to expect: figures of training images."""
    x = data().train.x[:NUM]
    return {**quality(x), "samples": pack(x[:NUM_SHOWN])}


def pack(x: Tensor) -> str:
    """Images (n, 1, 28, 28) in [-1, 1] as text."""
    pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    return base64.b85encode(zlib.compress(pixels.tobytes(), 9)).decode()


def unpack(text: str) -> Tensor:
    """The images of ``pack``."""
    pixels = bytearray(zlib.decompress(base64.b85decode(text)))
    return torch.frombuffer(pixels, dtype=torch.uint8).view(-1, 1, 28, 28) / 127.5 - 1


class Budget(Clock):
    """A clock that ends training after ``budget`` CPU seconds, and judges the student after 25, 35, 50, 71, ... updates."""

    def __init__(self, budget: float) -> None:
        super().__init__(self.look)
        self.budget, self.due = budget, FIRST_LOOK

    @staticmethod
    def look(rule: Any) -> dict[str, Any]:
        """Figures of samples from the same noise every time."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            figures = quality(rule.generate(NUM)["x"])
        updates = rule.trainer.fit_loop.total_batch_idx + 1
        print(f"  {updates} updates: Fréchet {figures['frechet']:.4g}, KL {figures['class_kl']:.2g}", flush=True)
        return {"updates": updates, **figures}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        if trainer.fit_loop.total_batch_idx + 1 >= self.due:
            self.record(pl_module)
            self.due *= 2**0.5
        trainer.should_stop = self.seconds > self.budget


def train_teacher() -> None:
    """Train the teacher, or go on where an earlier sitting was stopped."""
    resume = [f"--ckpt_path={CHECKPOINT}"] if (HERE / CHECKPOINT).exists() else []
    if latent_ebm(["fit", "--config", str(TEACHER), "--trainer.enable_progress_bar=false", *resume]):
        raise RuntimeError("the teacher could not be trained")


@cache
def teacher() -> Denoising:
    """The trained teacher."""
    rule, _ = load_rule(HERE / CHECKPOINT)
    if not isinstance(rule, Denoising):
        raise ValueError(f"{CHECKPOINT} must hold a denoiser, got {type(rule).__name__}")
    return rule


def run_student(name: str, seed: int, minutes: float) -> dict[str, Any]:
    """Train a student for ``minutes`` of CPU time, and judge it."""
    file, options = STUDENTS[name]
    clock = Budget(60 * minutes)
    overrides = [f"--seed_everything={seed}", "--trainer.max_epochs=-1", *options]
    rule, _ = train(HERE / "mnist" / f"{file}.yaml", overrides, clock)
    return {**judge(rule.eval()), "curve": clock.curve, "seconds": clock.seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--students", nargs="*", default=list(STUDENTS), choices=STUDENTS)
    parser.add_argument("--minutes", type=float, default=4.0, help="CPU time of every student (default: 4)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.chdir(HERE)  # from where the YAML files name their checkpoints
    train_teacher()
    cached("mnist_diffusion/data", {"num": NUM}, judge_data)
    for steps in STEPS:
        config = settings(TEACHER, num_steps=steps)
        cached(f"mnist_diffusion/teacher-{steps}", config, lambda steps=steps: judge(teacher(), num_steps=steps))
    for seed in args.seeds:
        for name in args.students:
            file, options = STUDENTS[name]
            shared = {"teacher": settings(TEACHER), "minutes": args.minutes}
            config = settings(HERE / "mnist" / f"{file}.yaml", options=options, seed=seed, **shared)
            cached(f"mnist_diffusion/{name}-{seed}", config, partial(run_student, name, seed, args.minutes))


if __name__ == "__main__":
    main()
