"""Students of the model of open captions, from the same weights, on the same captions."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from experiments.training import Run
from latent_ebm.distillation import (
    DistributionMatching,
    EMDistillation,
    OneStep,
    Progressive,
    UFOGen,
)
from latent_ebm.learning import Denoising
from latent_ebm.learning.base import LearningRule
from samplers import Langevin

GUIDANCE, WEIGHTS = 1.5, (1.0, 3.0)  # of the teacher; those that a student of 8 steps can take
STUDENT_LOG_SNR, LOG_SNR = -7.0, (-6.0, 6.0)
EMD = {"emd-1": 1, "emd-4": 4}  # steps of the chain
STUDENTS = ("progressive-8", "ufogen", *EMD, "dmd")
SETTINGS = {  # what the outcome depends on, beside the teacher and the budget
    "adam": {"lr": 2e-4, "betas": [0.0, 0.99]},
    "progressive": {"teacher_steps": 32, "num_steps": 8, "stage_length": 300, "lr": 5e-4},
    "ufogen": {"num_steps": 4, "independent": True, "penalty": 0.1, "penalty_every": 4},
    "emd": {"step_size": 0.16, "fake_lr": 5e-4},
}


def adam(lr: float, betas: Any = (0.9, 0.99)) -> Callable[..., Optimizer]:
    return partial(torch.optim.Adam, lr=lr, betas=tuple(betas))


def student(kind: str, teacher: Denoising) -> LearningRule:
    """A student that starts from the ``teacher`` and is told what it is told."""
    denoiser, told = teacher.denoiser, teacher.conditioner
    if kind == "progressive-8":
        return progressive(teacher)
    if kind == "ufogen":
        options = SETTINGS["ufogen"]
        optimizer = adam(**SETTINGS["adam"])
        return UFOGen(denoiser, None, teacher.shape, optimizer, conditioner=told, **options)
    shared: dict[str, Any] = {
        "log_snr": LOG_SNR,
        "fake_lr": SETTINGS["emd"]["fake_lr"],
        "conditioner": told,
        "guidance": GUIDANCE,
    }
    parts = (denoiser, OneStep(denoiser, STUDENT_LOG_SNR), None, teacher.shape)
    optimizer = adam(**SETTINGS["adam"])
    if kind == "dmd":
        return DistributionMatching(*parts, optimizer, **shared)
    sampler = Langevin(SETTINGS["emd"]["step_size"], EMD[kind])
    return EMDistillation(*parts, optimizer, sampler, **shared)


def progressive(teacher: Denoising) -> Progressive:
    """A student of eight steps that takes the weight of guidance as an input."""
    options = dict(SETTINGS["progressive"])
    return Progressive(
        teacher.denoiser,
        None,
        teacher.shape,
        adam(options.pop("lr")),
        conditioner=teacher.conditioner,
        guidance=WEIGHTS,
        **options,
    )


@dataclass(frozen=True)
class Study(Run):
    """The training of a student of ``kind`` from the teacher ``start``."""

    kind: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "student": self.kind, **SETTINGS}

    def make(self) -> Any:
        cli = super().make()
        cli.model = student(self.kind, self.origin.rule())
        return cli

    def begin(self, rule: Any) -> None:
        """A student has the weights of its teacher already."""
