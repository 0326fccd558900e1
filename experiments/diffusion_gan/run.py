"""Few steps, and every mode? ``python -m experiments.diffusion_gan``

25 Gaussians, for which covered modes can be counted: a diffusion GAN of four steps, a plain GAN
and a diffusion model, of networks alike, are compared at equal numbers of updates and at equal CPU
time. The diffusion model is then the teacher of one-step and few-step students, by progressive
distillation and by UFOGen.
"""

import argparse
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from experiments.common import HERE, Clock, cached, settings, train
from latent_ebm.data import DataModule
from latent_ebm.denoisers import Preconditioned
from latent_ebm.distillation import Progressive, UFOGen
from latent_ebm.learning import Denoising
from latent_ebm.learning.base import LearningRule
from samplers import DDIM, Ancestral, ReverseSampler

NAMES = ("diffusion_gan", "gan", "diffusion")
FOLDER = HERE / "diffusion_gan"
CENTRES, SCALE, NUM = (
    1.2 * (torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0)) - 2),
    0.12,
    10_000,
)
STUDENT: dict[str, Any] = {
    "lr": 1e-3,
    "teacher_steps": 16,
    "stage_length": 600,
    "ufogen_epochs": 15,
    "reconstruction": 0.1,
    "betas": (0.5, 0.9),
}


def measure(x: Tensor) -> dict[str, float]:
    """Of samples x (n, 2): shares within 4 and 3 deviations of a centre, modes, and KL of their
    histogram to the uniform one.

    The last two count samples within 3 deviations; a mode is covered by a tenth of its due share
    or more.
    """
    distance, mode = torch.cdist(x, CENTRES).min(1)
    near = distance < 3 * SCALE
    share = torch.bincount(mode[near], minlength=25).double() / len(x)
    p = share / share.sum().clamp(min=1e-12)
    return {
        "within_4": float((distance < 4 * SCALE).float().mean()),
        "within_3": float(near.float().mean()),
        "modes": int((share >= 0.1 / 25).sum()),
        "kl": float(torch.special.xlogy(p, 25 * p).sum()),
    }


def draw(generate: Callable[[], Tensor], seed: int = 0) -> Tensor:
    """Samples of ``generate()`` with the global random state set to ``seed``, and then as it
    was.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        return generate()


def progress(rule: LearningRule) -> dict[str, float]:
    """Figures of ``rule`` now, by the number of batches it has seen."""
    updates = getattr(rule, "batches_seen", rule.global_step)
    return {"updates": updates, **measure(draw(lambda: rule.generate(NUM // 4)["x"]))}


def options(seed: int) -> list[str]:
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    return [f"--seed_everything={seed}", f"--data.init_args.seed={seed}", *quiet]


def run(name: str, seed: int) -> dict[str, Any]:
    """Train and measure one of ``NAMES``; of the diffusion model, its students too."""
    clock = Clock(progress)
    rule, data = train(FOLDER / f"{name}.yaml", options(seed), clock)
    x = draw(lambda: rule.generate(NUM)["x"])
    result = {
        "seconds": clock.seconds,
        "curve": clock.curve,
        **measure(x),
        "width": width(x),
        "points": points(x),
    }
    return result | (few_steps(rule, data) if isinstance(rule, Denoising) else {})


def width(x: Tensor) -> float:
    """Root mean square distance of samples x (n, 2) to their centres, of those within 3
    deviations, in that of the data.
    """
    distance = torch.cdist(x, CENTRES).min(1).values / SCALE
    cut = math.exp(-4.5)
    expected = 2 * (
        1 - 4.5 * cut / (1 - cut)
    )  # of two standard normal numbers whose norm is below 3
    return math.sqrt(float(distance[distance < 3].square().mean()) / expected)


def points(x: Tensor) -> list[list[float]]:
    """Some samples, for the picture."""
    return [[round(v, 3) for v in row] for row in x[:1500].tolist()]


def few_steps(rule: Denoising, data: DataModule) -> dict[str, Any]:
    """Figures of the teacher and its students at few steps, ``few[method][steps]``, and the CPU
    seconds of each.
    """
    teacher: Preconditioned = rule.denoiser
    samplers: dict[str, Callable[[int], ReverseSampler]] = {
        "ancestral": lambda n: Ancestral(teacher.schedule, n),
        "DDIM": lambda n: DDIM(teacher.schedule, n),
    }
    few: dict[str, dict[int, Any]] = {
        name: {
            n: measure(draw(lambda make=make, n=n: sample(teacher, make(n))))
            for n in (1, 2, 4, 8, 16)
        }
        for name, make in samplers.items()
    }
    few["progressive"], progressive_seconds = progressive(teacher, data)
    few["UFOGen"], ufogen_seconds = ufogen(teacher, data)
    return {
        "few": few,
        "student_seconds": {"progressive": progressive_seconds, "UFOGen": ufogen_seconds},
    }


def sample(denoiser: Preconditioned, sampler: ReverseSampler) -> Tensor:
    """``NUM`` samples from noise of unit variance, as the schedule has it."""
    return sampler.sample(denoiser, torch.randn(NUM, 2))


def adam(parameters: Any, **kwargs: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=STUDENT["lr"], fused=True, **kwargs)


def fit(rule: LearningRule, data: DataModule, **length: int) -> float:
    """Train ``rule`` on the training rows of ``data`` and return the CPU seconds it took."""
    clock = Clock()
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = Trainer(accelerator="cpu", callbacks=[clock], limit_val_batches=0, **quiet, **length)  # pyright: ignore
    trainer.fit(rule, data.train_dataloader())
    return clock.seconds


def progressive(teacher: Preconditioned, data: DataModule) -> tuple[dict[int, Any], float]:
    """Students of 8, 4, 2 and 1 steps, each the teacher of the next."""
    found, seconds, steps = {}, 0.0, STUDENT["teacher_steps"]
    while steps > 1:
        rule = Progressive(teacher, None, (2,), adam, steps, steps // 2, STUDENT["stage_length"])
        seconds += fit(rule, data, max_steps=STUDENT["stage_length"])
        teacher, steps = rule.student, steps // 2  # pyright: ignore[reportAssignmentType]
        found[steps] = measure(draw(lambda rule=rule: rule.generate(NUM)["x"]))
    return found, seconds


def ufogen(teacher: Preconditioned, data: DataModule) -> tuple[dict[int, Any], float]:
    """Students of 1, 2 and 4 steps, each trained on its own steps from the teacher on."""
    found, seconds, made = {}, 0.0, partial(adam, betas=STUDENT["betas"])
    for n in (1, 2, 4):
        weight = STUDENT["reconstruction"]
        rule = UFOGen(
            teacher,
            None,
            (2,),
            made,
            num_steps=n,
            reconstruction=weight,
            penalty=1e-4,
            penalty_every=4,
        )
        seconds += fit(rule, data, max_epochs=STUDENT["ufogen_epochs"])
        found[n] = measure(draw(lambda rule=rule, n=n: rule.generate(NUM, num_steps=n)["x"]))
    return found, seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--names", nargs="+", default=NAMES, choices=NAMES)
    args = parser.parse_args()
    for seed in range(args.seeds):
        for name in args.names:
            more = {"student": STUDENT} if name == "diffusion" else {}
            config = settings(FOLDER / f"{name}.yaml", seed=seed, num=NUM, **more)
            result = cached(f"diffusion_gan/{name}-{seed}", config, partial(run, name, seed))
            figures = {
                key: round(result[key], 3)
                for key in ("seconds", "modes", "within_4", "within_3", "kl")
            }
            print(f"  {figures}  {result.get('few', '')}", flush=True)
