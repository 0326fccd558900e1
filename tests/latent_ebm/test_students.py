"""Students as denoisers, in latents, and as text-to-image models."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from latent_ebm.applications.trained import text_to_image
from latent_ebm.autoencoders import LatentSpace, PatchPCA
from latent_ebm.conditions import Batch
from latent_ebm.denoisers import FromNoise, Preconditioned
from latent_ebm.distillation import (
    DistributionMatching,
    EMDistillation,
    OneStep,
    Progressive,
    UFOGen,
)
from latent_ebm.distillation.ufogen import DenoiserCritic
from latent_ebm.learning.base import LearningRule
from latent_ebm.networks import DenoiserMLP, MobileUNet
from latent_ebm.objectives import gradient_penalty
from latent_ebm.text import TextConditioner, TextTransformer, WordTokenizer
from samplers import VE, Langevin, Rectified, Schedule, VPCosine
from tests.latent_ebm.text_like import TextDenoiser, TokenVectors, sentences

ADAM = partial(torch.optim.Adam, lr=1e-2)
DIM = 3


@pytest.mark.parametrize("schedule", [VPCosine(-7, 9), Rectified(), VE()], ids=str)
def test_a_student_of_one_step_is_a_denoiser_from_t_1_on(schedule: Schedule) -> None:
    torch.manual_seed(0)
    denoiser = Preconditioned(DenoiserMLP(DIM, [8]), schedule).double()
    student = OneStep(denoiser, -3.0)
    late = FromNoise(student.denoiser, student.init_log_snr)
    z = torch.randn(5, DIM, dtype=torch.float64)
    for t in (torch.tensor(1.0), torch.full((5,), 0.99, dtype=torch.float64)):
        sigma = schedule(t)[1].expand(5)[:, None]
        torch.testing.assert_close(late(sigma * z, t), student(z), atol=1e-6, rtol=1e-6)
    below = schedule.time(torch.tensor([-2.9, 0.0, 1.0, 2.0, 4.0]))
    assert torch.equal(late(z, below), student.denoiser(z, below))
    assert not torch.allclose(late(z, torch.ones(())), student.denoiser(z, torch.ones(())))
    with pytest.raises(ValueError, match="log_snr must lie in"):
        FromNoise(denoiser, -1e3)


class Affine(LatentSpace):
    """``z = 2 x + 1``."""

    def encode(
        self,
        x: Tensor,
        index: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return 2 * x + 1

    def decode(self, z: Tensor) -> Tensor:
        return (z - 1) / 2


def student(kind: type[LearningRule], latents: LatentSpace | None) -> LearningRule:
    torch.manual_seed(0)
    teacher, told = TextDenoiser(DIM), TokenVectors()
    if kind is Progressive:
        return Progressive(
            teacher, None, (DIM,), ADAM, 4, conditioner=told, guidance=2.0, latents=latents
        )
    if kind is UFOGen:
        return UFOGen(teacher, None, (DIM,), ADAM, conditioner=told, latents=latents)
    scored = {"log_snr": (-5.0, 5.0), "guidance": 2.0, "latents": latents}
    if kind is EMDistillation:
        scored["sampler"] = Langevin(0.16, 2)
    return kind(teacher, OneStep(teacher, -3.0), None, DIM, ADAM, conditioner=told, **scored)


@pytest.mark.parametrize("kind", [Progressive, UFOGen, EMDistillation, DistributionMatching])
def test_a_student_in_latents_is_one_of_encoded_rows(kind: type[LearningRule]) -> None:
    """The same losses at the same draws, and the decoded samples."""
    x, told = torch.randn(12, DIM), sentences(12)
    inner, outer = student(kind, None), student(kind, Affine())
    found = []
    for rule, rows in ((inner, 2 * x + 1), (outer, x)):
        torch.manual_seed(1)
        losses = rule.losses(Batch(rows, told, torch.arange(12)))
        found.append({name: loss.item() for name, loss in losses.items()})
    assert found[0] == found[1]
    z, decoded = (
        rule.generate(12, told, generator=torch.Generator().manual_seed(2))
        for rule in (inner, outer)
    )
    torch.testing.assert_close(decoded["x"], (z["x"] - 1) / 2)


class Counted(nn.Module):
    """``z -> 2 z`` with a parameter, and the number of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.calls = nn.Parameter(torch.tensor(2.0)), 0

    def forward(self, z: Tensor, **condition: Tensor) -> Tensor:
        self.calls += 1
        return self.scale * z


@pytest.mark.parametrize(("z_step_size", "calls"), [(0.0, 1 + 2), (0.01, 4 + 2)])
def test_a_chain_with_fixed_latents_calls_the_student_once(z_step_size: float, calls: int) -> None:
    """Besides the two calls of every step: for ``fake``, and for the loss."""
    made, teacher = Counted(), TextDenoiser(DIM)
    options = {"sampler": Langevin(0.16, 4), "z_step_size": z_step_size, "log_snr": (-5.0, 5.0)}
    rule = EMDistillation(
        teacher, made, None, DIM, ADAM, conditioner=TokenVectors(), guidance=2.0, **options
    )
    losses = rule.losses(Batch(torch.randn(6, DIM), sentences(6), None))
    assert made.calls == calls
    losses["student"].backward()
    assert made.scale.grad is not None
    assert made.scale.grad.abs() > 0


def test_a_student_may_start_at_the_end_of_the_schedule() -> None:
    """Whose log-SNR is known up to rounding."""
    denoiser = Preconditioned(DenoiserMLP(DIM, [8]), VPCosine(-9, 9))
    assert OneStep(denoiser, -9.0).t.item() == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(ValueError, match=r"init_log_snr must lie in \[-9, 9\]"):
        OneStep(denoiser, -9.01)


class Attentive(nn.Module):
    """Logits (batch,) of rows (batch, tokens, dim) by attention, fused or written out."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused, self.scale = fused, nn.Parameter(torch.tensor(1.3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        q = self.scale * x
        if self.fused:
            q, x = q[:, None], x[:, None]  # a head: only then is the kernel fused
            return scaled_dot_product_attention(q, x, x).sin().sum((1, 2, 3))
        share = (q @ x.mT / x.shape[-1] ** 0.5).softmax(-1)
        return (share @ x).sin().sum((1, 2))


def test_the_penalty_of_a_critic_with_attention() -> None:
    x = torch.randn(4, 5, 8, dtype=torch.float64)
    slopes = []
    for fused in (True, False):
        critic = Attentive(fused)
        penalty = gradient_penalty(critic, x)
        penalty.backward()
        assert critic.scale.grad is not None
        slopes.append((penalty.item(), critic.scale.grad.item()))
    assert slopes[0] == pytest.approx(slopes[1])


def test_networks_of_students_keep_the_names_of_the_base() -> None:
    """So that an adapter of the base finds its layers in any of them."""
    tell = TextConditioner(TextTransformer(WordTokenizer(["red"], max_words=2), dim=8))
    network = MobileUNet((3, 8, 8), 8, (8,), (1,), (1,), (True,), (True,))
    base, shape = Preconditioned(network, VPCosine()), (3, 8, 8)
    rules = [
        Progressive(base, None, shape, ADAM, conditioner=tell, guidance=(1.0, 3.0)),
        UFOGen(base, None, shape, ADAM, conditioner=tell),
        EMDistillation(base, OneStep(base), None, shape, ADAM, conditioner=tell),
    ]
    names = {name for name, _ in base.network.named_modules()}
    for rule in rules:
        model = text_to_image(rule)
        assert model is not None
        denoiser = model.denoiser
        denoiser = denoiser.denoiser if isinstance(denoiser, FromNoise) else denoiser
        assert isinstance(denoiser, Preconditioned)
        assert names <= {name for name, _ in denoiser.network.named_modules()}


def test_students_in_latents_draw_images() -> None:
    """Those of the rule, decoded by the autoencoder that the teacher has been trained with."""
    torch.manual_seed(0)
    autoencoder = PatchPCA(channels=4, patch=2).fit(torch.rand(20, 3, 8, 8) * 2 - 1)
    tell = TextConditioner(TextTransformer(WordTokenizer(["red"], max_words=2), dim=8))
    network = MobileUNet((4, 4, 4), 8, (8,), (1,), (1,), (True,), (True,))
    base, shape = Preconditioned(network, VPCosine(-7, 9)), (4, 4, 4)
    more = {"conditioner": tell, "latents": autoencoder}
    rules = [
        Progressive(base, None, shape, ADAM, 4, 2, guidance=(1.0, 3.0), **more),
        UFOGen(base, None, shape, ADAM, **more),
        DistributionMatching(base, OneStep(base), None, shape, ADAM, guidance=1.5, **more),
    ]
    for rule in rules:
        losses = rule.losses(Batch(torch.rand(4, 3, 8, 8), tell.tokens(["red"] * 4), None))
        assert all(loss.isfinite() for loss in losses.values())
        model = text_to_image(rule)
        assert model is not None
        x = model.generate(["red", ""], generator=torch.Generator().manual_seed(0))
        told = tell.tokens(["red", ""])
        expected = rule.generate(2, told, generator=torch.Generator().manual_seed(0))["x"]
        assert x.shape == (2, 3, 8, 8)
        torch.testing.assert_close(x, expected.clamp(-1, 1), atol=1e-5, rtol=1e-4)


def test_what_is_no_text_to_image_model() -> None:
    teacher = TextDenoiser(DIM)
    assert text_to_image(UFOGen(teacher, None, (DIM,), ADAM, conditioner=TokenVectors())) is None
    assert text_to_image(UFOGen(teacher, DenoiserCritic(teacher, (DIM,)), (DIM,), ADAM)) is None


TEACHER = Preconditioned(DenoiserMLP(DIM, [8]), VPCosine())
matched = partial(DistributionMatching, TEACHER, OneStep(TEACHER, -3.0), None, DIM, ADAM)
REFUSED = {
    "teacher of progressive": (lambda: Progressive(TEACHER.network, None, [DIM], ADAM), "teacher"),
    "teacher of UFOGen": (lambda: UFOGen("x", None, [DIM], ADAM), "teacher must be a Denoiser"),
    "fake": (lambda: DistributionMatching(TEACHER, TEACHER, "x", DIM, ADAM), "fake must be a"),
    "student": (lambda: DistributionMatching(TEACHER, "x", None, DIM, ADAM), "student must be a"),
    "one level": (lambda: matched(log_snr=(1.0,)), "log_snr must be a least and a greatest"),
    "level": (lambda: OneStep(TEACHER, "x"), "init_log_snr must be finite, got 'x'"),
    "truth": (lambda: FromNoise(TEACHER, True), "log_snr must be finite, got True"),
    "network": (lambda: FromNoise(TEACHER.network, 0.0), "denoiser must be a Denoiser"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_parts_of_other_kinds_are_named(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        make()
