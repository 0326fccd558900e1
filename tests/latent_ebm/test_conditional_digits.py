"""A diffusion model of digits that is told their class, and its students: samples follow their
label, by the word of a classifier that has seen real digits alone.

Every student starts from weights that have forgotten the classes, so that what it knows of them it
has learnt from its teacher, or from the game.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader

from latent_ebm.conditions import ClassLabels, label_condition
from latent_ebm.data.base import TensorSet, collate
from latent_ebm.denoisers import Preconditioned
from latent_ebm.distillation import (
    EMDistillation,
    OneStep,
    Progressive,
    UFOGen,
)
from latent_ebm.learning import Denoising
from latent_ebm.learning.base import LearningRule
from latent_ebm.networks import DenoiserMLP
from samplers import DDIM, Langevin, VPCosine

pytestmark = pytest.mark.cpu
SCHEDULE = VPCosine(-8.0, 10.0)
CLASSES, DIM, EPOCH = 10, 64, 14  # updates an epoch


def adam(lr: float, beta: float = 0.9) -> Callable[..., torch.optim.Optimizer]:
    return partial(torch.optim.Adam, lr=lr, betas=(beta, 0.99))


@pytest.fixture(scope="module")
def digits() -> TensorSet:
    x, label = load_digits(return_X_y=True)
    return TensorSet(torch.tensor(x / 8 - 1), torch.tensor(label))


@pytest.fixture(scope="module")
def judge(digits: TensorSet) -> LogisticRegression:
    return LogisticRegression(max_iter=300).fit(digits.x.numpy(), digits.label.numpy())


def train(rule: LearningRule, digits: TensorSet, epochs: int) -> None:
    torch.manual_seed(0)
    loader = DataLoader(digits, 128, shuffle=True, drop_last=True, collate_fn=collate)
    quick = Trainer(max_epochs=epochs, accelerator="cpu", barebones=True, limit_val_batches=0)
    quick.fit(rule, loader, loader)


@pytest.fixture(scope="module")
def teacher(digits: TensorSet) -> Denoising:
    torch.manual_seed(0)
    denoiser = Preconditioned(DenoiserMLP(DIM, (128, 128), CLASSES), SCHEDULE, data_scale=0.7)
    rule = Denoising(
        denoiser,
        DDIM(SCHEDULE, 8),
        (DIM,),
        adam(3e-3),
        log_snr=(1.0, 3.0),
        conditioner=ClassLabels(CLASSES),
    )
    train(rule, digits, 16)
    return rule


def forgetful(denoiser: Preconditioned) -> Preconditioned:
    """A copy whose vectors of all classes are that of the unknown one."""
    copy = deepcopy(denoiser).requires_grad_()
    vectors = copy.network.condition.classes.weight.data
    vectors.copy_(vectors[:1].expand_as(vectors))
    return copy


def accuracy(judge: LogisticRegression, rule: LearningRule, told: bool = True, **options) -> float:
    """The share of 500 samples that the classifier finds to be of their label."""
    label = torch.arange(500) % CLASSES
    generator = torch.Generator().manual_seed(0)
    condition = label_condition(label if told else torch.full_like(label, -1))
    x = rule.generate(500, condition, generator=generator, **options)["x"]
    return float((judge.predict(x.numpy()) == label.numpy()).mean())


def student(name: str, denoiser: Preconditioned) -> LearningRule:
    blind, told = forgetful(denoiser), ClassLabels(CLASSES)
    if name == "ufogen":
        return UFOGen(blind, None, (DIM,), adam(2e-3, 0.0), reconstruction=1.0, conditioner=told)
    if name == "progressive":
        options = {"teacher_steps": 4, "num_steps": 1, "stage_length": 4 * EPOCH}
        return Progressive(
            denoiser, blind, (DIM,), adam(3e-3), **options, conditioner=told, guidance=2.0
        )
    return EMDistillation(
        denoiser,
        OneStep(blind, -5.0),
        deepcopy(blind),
        DIM,
        adam(2e-3, 0.0),
        sampler=Langevin(0.16, 3),
        z_step_size=1e-4,
        log_snr=(-5.0, 5.0),
        conditioner=told,
        guidance=2.0,
    )


EPOCHS = {"em": 7, "progressive": 8, "ufogen": 12}


def test_the_teacher_follows_its_labels_and_guidance_more_so(teacher, judge):
    plain, guided = accuracy(judge, teacher), accuracy(judge, teacher, guidance=3.0)
    assert plain > 0.8
    assert guided > plain
    assert accuracy(judge, teacher, told=False) < 0.25, "samples that are told nothing"


@pytest.mark.parametrize("name", EPOCHS)
def test_students_learn_to_follow_their_labels(name, teacher, digits, judge):
    rule = student(name, deepcopy(teacher.denoiser).train())
    assert accuracy(judge, rule) < 0.25, "it must have something to learn"
    train(rule, digits, EPOCHS[name])
    assert accuracy(judge, rule) > 0.5, "chance is 0.1"
