"""Diffusion GANs: the distributions of the pairs that the critic sees, its losses in closed form,
and the plain GAN within.
"""

import math
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.utils.data import DataLoader

import samplers.bridges
from latent_ebm.conditions import Batch, Condition, Conditioner
from latent_ebm.learning import DiffusionGAN
from latent_ebm.networks import (
    MLP,
    ConvEncoder,
    Critic,
    DenoiserMLP,
    Fourier,
    UNet,
    WithLatent,
    WithTime,
)
from latent_ebm.objectives import gradient_penalty, noise_contrastive, non_saturating
from samplers import VE, Rectified, Schedule, VPLinear

ADAM = partial(torch.optim.Adam, lr=1e-2)
T, NUM = 4, 200_000


class Record(nn.Module):
    """What ``function`` says, and the arguments that it was last asked with."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.zeros(()))

    def forward(self, *inputs: Tensor) -> Tensor:
        self.inputs = inputs
        return self.function(*inputs) + self.weight


def rule(
    generator: nn.Module | None = None,
    critic: nn.Module | None = None,
    schedule: Schedule | None = None,
    **kwargs,
) -> DiffusionGAN:
    generator = WithLatent(DenoiserMLP(2, (16,))) if generator is None else generator
    critic = Critic(MLP(3, 1, (16,))) if critic is None else critic
    return DiffusionGAN(generator, critic, schedule or VPLinear(), (1,), (1,), ADAM, **kwargs)


def steps(k: int, num: int) -> Tensor:
    return torch.full((num,), k)


@pytest.mark.parametrize(
    "schedule", [VPLinear(), Rectified(), VE(0.01, 5.0)], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_step_back_is_bayes_rule(
    schedule: Schedule, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``q(x_{k-1} | x_k, x_0)`` is prior times likelihood on a grid; its noise is read off by
    setting it to 0 and 1.
    """
    made = rule(schedule=schedule)
    x_0, x_k = (torch.tensor([[value]], dtype=torch.float64) for value in (0.7, -0.4))
    drawn = []
    for noise in (0.0, 1.0):
        monkeypatch.setattr(
            samplers.bridges,
            "normal_like",
            lambda x, generator, noise=noise: torch.full_like(x, noise),
        )
        drawn.append(made.back(x_0, x_k, steps(k, 1)).item())
    if k == 1:
        assert drawn == [0.7, 0.7]
        return
    (alpha, sigma), (alpha_s, sigma_s) = (
        schedule(torch.tensor(i / T, dtype=torch.float64)) for i in (k, k - 1)
    )
    ratio = alpha / alpha_s
    variance = sigma**2 - ratio**2 * sigma_s**2
    x = torch.linspace(-60, 60, 1_200_001, dtype=torch.float64)
    log_joint = (
        -0.5 * ((x - alpha_s * x_0) / sigma_s) ** 2 - 0.5 * (x_k - ratio * x) ** 2 / variance
    )
    p = log_joint.flatten().softmax(0)
    mean = (p * x).sum()
    assert drawn[0] == pytest.approx(mean.item(), abs=1e-8)
    assert drawn[1] - drawn[0] == pytest.approx(
        (p * (x - mean) ** 2).sum().sqrt().item(), abs=1e-8
    )


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_real_pairs_have_the_law_of_the_forward_diffusion(k: int) -> None:
    """Given x_0: means alpha x_0, variances sigma^2, covariance ``(alpha_k / alpha_{k-1})
    sigma_{k-1}^2``.
    """
    made, schedule, x = rule(schedule=Rectified()), Rectified(), torch.full((NUM, 1), 1.5)
    torch.manual_seed(k)
    x_k = made.diffuse(x, steps(k, NUM))
    pair = torch.cat([made.back(x, x_k, steps(k, NUM)), x_k], 1).double()
    (alpha, sigma), (alpha_s, sigma_s) = (schedule(torch.tensor(i / T)) for i in (k, k - 1))
    if k == 1:
        alpha_s, sigma_s = torch.ones(()), torch.zeros(())
    covariance = torch.tensor(
        [[sigma_s**2, alpha / alpha_s * sigma_s**2], [alpha / alpha_s * sigma_s**2, sigma**2]]
    )
    torch.testing.assert_close(
        pair.mean(0), 1.5 * torch.tensor([alpha_s, alpha]).double(), atol=0.012, rtol=0
    )
    torch.testing.assert_close(pair.T.cov(), covariance.double(), atol=0.016, rtol=0)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_a_generator_that_draws_from_the_posterior_makes_real_pairs(k: int) -> None:
    """For data N(0, s^2), x_0 = shrink x_k + deviation z. Without its z the pairs of any k < T
    have another distribution.
    """
    scale, schedule = 0.8, Rectified()

    def posterior(x_k: Tensor, t: Tensor, z: Tensor, noise: float = 1.0) -> Tensor:
        alpha, sigma = (a.float()[:, None] for a in schedule(t))
        variance = alpha**2 * scale**2 + sigma**2
        return alpha * scale**2 / variance * x_k + noise * scale * sigma / variance.sqrt() * z

    torch.manual_seed(k)
    x = scale * torch.randn(NUM, 1)
    distances = []
    for noise in (1.0, 0.0):
        made = rule(Record(partial(posterior, noise=noise)), schedule=schedule)
        x_k = made.diffuse(x, steps(k, NUM))
        real, fake = (
            made.back(x_0, x_k, steps(k, NUM))
            for x_0 in (x, made.denoise(x_k, steps(k, NUM), Condition()))
        )
        moments = [torch.cat([y, x_k], 1).T.cov() for y in (real, fake)]
        distances.append((moments[0] - moments[1]).abs().max().item())
    assert distances[0] < 0.015
    assert distances[1] > 0.03


def test_one_step_is_a_plain_gan() -> None:
    """Real data, a generator of noise alone, the losses of Goodfellow et al., and R1."""
    generator, network = Record(lambda x_1, t, z: x_1 + 2 * z), MLP(2, 1, (16,))
    made = rule(generator, Critic(network, paired=False), num_steps=1, penalty=0.3)
    seen = []

    def logit(y: Tensor) -> Tensor:
        return network(torch.cat([y, torch.ones_like(y)], 1)).squeeze(1)

    for x in (torch.linspace(-3, 3, 50)[:, None], torch.zeros(50, 1)):
        torch.manual_seed(0)
        losses = made.critic_losses(x, Condition())
        noise, t, z = generator.inputs
        seen.append((noise, z))
        fake = noise + 2 * z
        assert t.tolist() == [1.0] * 50
        expected = -(logit(x).sigmoid().log().mean() + (1 - logit(fake).sigmoid()).log().mean())
        torch.testing.assert_close(losses["critic"], expected)
        y = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(logit(y).sum(), y)
        torch.testing.assert_close(losses["penalty"].detach(), 0.15 * slope.square().sum(1).mean())
        moved = made.generator_losses(x, Condition())["generator"]
        noise, _, z = generator.inputs
        torch.testing.assert_close(moved, -logit(noise + 2 * z).sigmoid().log().mean())
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True)), (
        "the noise must not depend on the data"
    )
    torch.manual_seed(0)
    x = made.generate(20)["x"]
    noise, _, z = generator.inputs
    assert torch.equal(x, noise + 2 * z)


def test_noise_at_the_end_is_what_generation_starts_from() -> None:
    made = rule(schedule=VE(0.01, 5.0))
    torch.manual_seed(0)
    noise = made.diffuse(torch.full((NUM, 1), 100.0), steps(T, NUM))
    assert noise.mean().item() == pytest.approx(0, abs=5 * 5 / math.sqrt(NUM))
    assert noise.std().item() == pytest.approx(5.0, rel=0.01)


def test_every_loss_moves_its_own_network() -> None:
    made = rule(penalty=0.1)
    losses = made.losses(torch.randn(50, 1))
    critic, generator = list(made.critic.parameters()), list(made.generator.parameters())
    for name, own, other in (
        ("critic", critic, generator),
        ("penalty", critic, generator),
        ("generator", generator, critic),
    ):
        grads = torch.autograd.grad(
            losses[name], own + other, allow_unused=True, retain_graph=True
        )
        assert any(g is not None and bool(g.abs().sum() > 0) for g in grads[: len(own)]), name
        assert all(g is None for g in grads[len(own) :]), name


class Told(nn.Module):
    """A generator that ignores what it is told, or a critic that does not."""

    def __init__(self, is_critic: bool) -> None:
        super().__init__()
        self.is_critic, self.weight = is_critic, nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, *_: Tensor, word: Tensor) -> Tensor:
        return self.weight * (word[:, 0] + x[:, 0] if self.is_critic else x)


class Embedding(Conditioner):
    """The same trainable word for every row."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, condition: Condition) -> Condition:
        return self.unknown(len(condition["label"]))

    def unknown(self, num: int) -> Condition:
        return Condition({"word": self.weight.expand(num, 1)})


def test_the_condition_does_not_learn_to_please_the_critic() -> None:
    made = rule(Told(False), Told(True), conditioner=Embedding(), penalty=0)
    losses = made.losses(Batch(torch.randn(8, 1), Condition({"label": torch.zeros(8)}), None))
    found = torch.autograd.grad(
        losses["generator"], list(made.conditioner.parameters()), allow_unused=True
    )
    assert found == (None,)


@pytest.mark.cpu
@pytest.mark.parametrize(("every", "fits"), [(1, True), (3, True), (2, False), (10, False)])
def test_weights_are_averaged_or_this_is_refused(tmp_path, every: int, fits: bool) -> None:
    made = rule()
    start = [p.clone() for p in made.generator.parameters()]
    trainer = Trainer(
        max_epochs=4,
        callbacks=[EMAWeightAveraging(use_buffers=False, update_every_n_steps=every)],
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(torch.randn(40, 1), batch_size=10)  # pyright: ignore[reportArgumentType]
    if not fits:
        with pytest.raises(ValueError, match=f"must be odd, .* got {every}"):
            trainer.fit(made, loader, loader)
        return
    trainer.fit(made, loader, loader)
    assert not any(map(torch.equal, start, made.generator.parameters()))


def test_best_critic_is_the_log_ratio_and_the_generator_follows_it() -> None:
    """Data N(m, 1) against N(0, 1): the critic rests at ``m x - m^2 / 2``, where it moves the
    generator towards m.
    """
    m = 0.8
    line = nn.Linear(1, 1)
    with torch.no_grad():
        line.weight.fill_(m), line.bias.fill_(-(m**2) / 2)

    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = line

        def forward(self, x: Tensor, t: Tensor, x_k: Tensor) -> Tensor:
            return self.line(x).squeeze(1)

    generator = Record(lambda x_1, t, z: z)
    made = rule(generator, Line(), num_steps=1, penalty=0.0)
    torch.manual_seed(0)
    losses = made.losses(m + torch.randn(NUM, 1))
    at_rest = torch.autograd.grad(losses["critic"], list(line.parameters()), retain_graph=True)
    assert all(abs(g.item()) < 6 / math.sqrt(NUM) for g in at_rest)
    (push,) = torch.autograd.grad(losses["generator"], generator.weight)
    x = torch.linspace(-10, 10, 20_001)
    p = torch.distributions.Normal(0.0, 1.0).log_prob(x).softmax(0)
    exact = -(p * m * (m**2 / 2 - m * x).sigmoid()).sum().item()
    assert push.item() == pytest.approx(exact, abs=5 / math.sqrt(NUM))
    line.bias.data.add_(0.3)
    off = torch.autograd.grad(
        made.losses(m + torch.randn(NUM, 1))["critic"], list(line.parameters())
    )
    assert max(abs(g.item()) for g in off) > 0.04


def test_objectives_in_closed_form() -> None:
    matrix = torch.tensor([[2.0, 1.0], [1.0, -1.0]], requires_grad=True)
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    penalty = gradient_penalty(lambda y: 0.5 * (y @ matrix * y).sum(1), x)
    torch.testing.assert_close(penalty, (x @ matrix).square().sum(1).mean())
    (grad,) = torch.autograd.grad(penalty, matrix)
    assert grad.abs().sum() > 0
    logit = torch.linspace(-60, 60, 7)
    torch.testing.assert_close(
        non_saturating(logit), torch.tensor([60.0, 40.0, 20.0, math.log(2), 0, 0, 0]).mean()
    )
    assert noise_contrastive(logit * 0, logit * 0).item() == pytest.approx(2 * math.log(2))


def test_lazy_penalty_is_taken_seldom_and_then_is_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    every, lazy = rule(penalty=0.2), rule(penalty=0.2, penalty_every=2)
    lazy.load_state_dict(every.state_dict())
    found = []
    for made, step in ((every, 0), (lazy, 0), (lazy, 2), (lazy, 4)):  # two steps a batch
        monkeypatch.setattr(DiffusionGAN, "global_step", step)
        torch.manual_seed(0)
        found.append(made.losses(torch.ones(10, 1)).get("penalty"))
    torch.testing.assert_close(found[1], 2 * found[0])
    assert found[2] is None
    torch.testing.assert_close(found[3], found[1])
    assert "penalty" not in lazy.eval().losses(torch.ones(10, 1))


def test_it_trains_logs_and_generates(tmp_path) -> None:
    """Two steps towards data N(2, 0.3^2), from a generator that starts near 0."""
    torch.manual_seed(0)
    x = 2 + 0.3 * torch.randn(1000, 1)
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    made = rule(num_steps=2, penalty=0.1)
    made.optimizer = partial(torch.optim.Adam, lr=4e-3, betas=(0.5, 0.9))
    start = made.generate(1100)["x"].mean().item()
    loader = DataLoader(x, batch_size=100, shuffle=True)  # pyright: ignore[reportArgumentType]
    trainer = Trainer(
        max_epochs=15,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        default_root_dir=tmp_path,
        **quiet,
    )
    trainer.fit(made, loader, DataLoader(x, batch_size=500))  # pyright: ignore[reportArgumentType]
    y = made.generate(1100)["x"]
    assert y.shape == (1100, 1)
    assert trainer.global_step == 2 * 150
    assert y.mean().item() > start + 0.5
    logged = {"val/critic", "val/generator", "loss/critic", "loss/penalty", "loss/generator"}
    assert logged <= set(trainer.callback_metrics)


def test_networks_of_images() -> None:
    """z matters, the critic's x_k matters if it is paired, and shapes are those of the data."""
    torch.manual_seed(0)
    network = UNet((4, 8, 8), 8, patch=1, depth=1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    x, t, z = torch.randn(5, 3, 8, 8), torch.rand(5), torch.randn(5, 1, 8, 8)
    generator = WithLatent(network)
    assert generator(x, t, z).shape == x.shape
    assert not torch.allclose(generator(x, t, z), generator(x, t, z + 1))
    paired, alone = (
        Critic(ConvEncoder((7, 8, 8), 1, 8)),
        Critic(ConvEncoder((4, 8, 8), 1, 8), paired=False),
    )
    assert paired(x, t, x).shape == (5,)
    assert not torch.allclose(paired(x, t, x), paired(x, t, x + 1))
    assert not torch.allclose(alone(x, t), alone(x, t + 1))
    assert torch.equal(alone(x, t, x), alone(x, t))
    with pytest.raises(ValueError, match="x_k must be given"):
        paired(x, t)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_steps": 0}, "num_steps must be an integer >= 1, got 0"),
        ({"penalty": -1.0}, "penalty must be finite and non-negative, got -1"),
        ({"penalty_every": 0}, "penalty_every must be an integer >= 1, got 0"),
    ],
)
def test_bad_arguments(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rule(**kwargs)


def test_fourier_features() -> None:
    seen = []
    network = Fourier(Record(lambda features: features), num=2, lowest=0.5)
    x = torch.tensor([[0.3, -1.0], [2.0, 0.7]])
    for j, w in enumerate((0.5, 1.0)):
        for i in (0, 1):
            features = network(x)
            assert torch.equal(features[:, :2], x)
            torch.testing.assert_close(features[:, 2 + 2 * i + j], (w * x[:, i]).sin())
            torch.testing.assert_close(features[:, 6 + 2 * i + j], (w * x[:, i]).cos())
            seen += [2 + 2 * i + j, 6 + 2 * i + j]
    assert sorted(seen) == list(range(2, 10)), "all features are accounted for"
    with pytest.raises(ValueError, match=r"lowest must be finite and positive, got 0\.0"):
        Fourier(nn.Identity(), lowest=0.0)


def test_time_is_a_channel() -> None:
    x, t = torch.randn(4, 3, 2, 2), torch.rand(4)
    joined = WithTime(nn.Identity())(x, t.double())
    assert joined.dtype == x.dtype
    assert torch.equal(joined[:, :3], x)
    assert torch.equal(joined[:, 3], t[:, None, None].expand(4, 2, 2))
