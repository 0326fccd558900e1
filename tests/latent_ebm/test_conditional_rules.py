"""Every rule that has a condition in its paper takes any: a text-like one runs through all of
them by the same code.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from latent_ebm.conditions import Batch, Condition
from latent_ebm.denoisers import Preconditioned
from latent_ebm.distillation import (
    DistributionMatching,
    EMDistillation,
    OneStep,
    Progressive,
    UFOGen,
)
from latent_ebm.learning import Denoising, DiffusionGAN
from latent_ebm.learning.base import LearningRule
from samplers import DDIM, Langevin
from tests.latent_ebm.text_like import (
    SCHEDULE,
    CrossAttention,
    TextDenoiser,
    TokenVectors,
    sentences,
)

ADAM = partial(torch.optim.Adam, lr=1e-2)
DIM = 3


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = CrossAttention(DIM + 1, DIM)

    def forward(self, x: Tensor, t: Tensor, z: Tensor, **condition: Tensor) -> Tensor:
        return self.network(torch.cat([x, z], 1), t, **condition)


class TextCritic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = CrossAttention(2 * DIM, 1)

    def forward(self, x: Tensor, t: Tensor, x_k: Tensor, **condition: Tensor) -> Tensor:
        return self.network(torch.cat([x, x_k], 1), t, **condition).squeeze(1)


def denoising() -> Denoising:
    denoiser = Preconditioned(CrossAttention(DIM), SCHEDULE)
    return Denoising(
        denoiser, DDIM(SCHEDULE, 3), (DIM,), ADAM, conditioner=TokenVectors(), dropout=0.5
    )


def scored(kind: Callable[..., LearningRule], **kwargs) -> LearningRule:
    teacher = TextDenoiser(DIM)
    options = {"log_snr": (-5.0, 5.0), "conditioner": TokenVectors(), "guidance": 2.0}
    return kind(teacher, OneStep(teacher, -3.0), None, DIM, ADAM, **{**options, **kwargs})


RULES: dict[str, Callable[[], LearningRule]] = {
    "denoising": denoising,
    "em": partial(scored, EMDistillation, sampler=Langevin(0.16, 2), z_step_size=0.01),
    "dmd": partial(scored, DistributionMatching),
    "progressive": lambda: Progressive(
        TextDenoiser(DIM), None, (DIM,), ADAM, 4, conditioner=TokenVectors(), guidance=2.0
    ),
    "ufogen": lambda: UFOGen(TextDenoiser(DIM), None, (DIM,), ADAM, conditioner=TokenVectors()),
    "diffusion gan": lambda: DiffusionGAN(
        Generator(), TextCritic(), SCHEDULE, (DIM,), (1,), ADAM, conditioner=TokenVectors()
    ),
}
ALL = pytest.mark.parametrize("make", RULES.values(), ids=RULES)
LEARNS_VECTORS = {"Denoising", "DiffusionGAN"}  # distillers hold those of their teacher fixed


def batch(num: int) -> Batch:
    return Batch(torch.randn(num, DIM), sentences(num), torch.arange(num))


def built(make: Callable[[], LearningRule]) -> LearningRule:
    torch.manual_seed(0)
    return make()


@pytest.mark.cpu
@ALL
def test_rules_train_on_any_condition(make, tmp_path):
    rule = built(make)
    before = deepcopy(rule.state_dict())
    rows = [batch(12), batch(12)]
    loader = DataLoader(rows, batch_size=None)  # pyright: ignore[reportArgumentType]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    where = {"enable_checkpointing": False, "default_root_dir": tmp_path, "accelerator": "cpu"}
    Trainer(max_epochs=1, **quiet, **where).fit(rule, loader, loader)
    moved = {n for n, value in rule.state_dict().items() if not torch.equal(value, before[n])}
    assert moved
    assert not any(name.startswith("teacher") for name in moved)
    learns = any(name.startswith("conditioner") for name in moved)
    assert learns == (type(rule).__name__ in LEARNS_VECTORS)


@ALL
def test_what_is_told_decides_what_is_made(make):
    """The same noise: other sentences give other samples, and only in their rows."""
    rule, told = built(make).eval(), sentences(8)
    other = Condition({"ids": torch.cat([told["ids"][:4], told["ids"][4:].flip(0)])})

    def draw(condition: Condition | None) -> Tensor:
        return rule.generate(8, condition, generator=torch.Generator().manual_seed(3))["x"]

    x = draw(told)
    assert torch.equal(x, draw(told)), "the same generator"
    assert torch.equal(rule.generate(8, told)["ids"], told["ids"]), "is told with the samples"
    assert torch.allclose(x[:4], draw(other)[:4])
    assert (x[4:] - draw(other)[4:]).abs().amax(1).min() > 1e-4
    assert (x - draw(None)).abs().amax(1).min() > 1e-5, "nothing known"
    torch.testing.assert_close(draw(None), draw(Condition({"ids": torch.zeros_like(told["ids"])})))


def test_all_noise_of_few_steps_is_of_the_generator():
    rule, told = built(RULES["ufogen"]).eval(), sentences(8)
    assert isinstance(rule, UFOGen)
    first, again = (
        rule.generate(8, told, num_steps=2, generator=torch.Generator().manual_seed(1))["x"]
        for _ in range(2)
    )
    assert torch.equal(first, again)


@ALL
def test_other_noise_gives_other_samples(make):
    rule, told = built(make).eval(), sentences(8)
    first, second = (
        rule.generate(8, told, generator=torch.Generator().manual_seed(k))["x"] for k in (1, 2)
    )
    assert not torch.allclose(first, second)


@ALL
def test_the_loss_hears_the_condition(make):
    """At the same draws, other sentences cost something else: in the whole of a batch, none is
    left out.
    """
    rule, (x, told, index) = built(make), batch(16)
    changed = told.rows(torch.arange(16).flip(0))
    costs = []
    for condition in (told, changed, told):
        torch.manual_seed(1)
        losses = rule.losses(Batch(x, condition, index))
        costs.append({name: loss.item() for name, loss in losses.items()})
    assert costs[0] == costs[2]
    blind = {"critic", "generator"} if isinstance(rule, UFOGen) else set()  # it starts at zero
    assert all(costs[0][name] != costs[1][name] for name in costs[0].keys() - blind - {"penalty"})


@ALL
def test_a_step_runs_on_meta_tensors(make):
    rule = make().to("meta")
    with torch.device("meta"):
        losses = rule.losses(batch(10))
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert total.is_meta
    assert rule.generate(4, sentences(4).to("meta"))["x"].is_meta
    assert rule.generate(4)["x"].is_meta


@ALL
def test_a_condition_of_other_rows_is_refused(make):
    with pytest.raises(ValueError, match="condition ids must have 5 rows, got 4"):
        make().generate(5, sentences(4))
