"""Energy-based models in data space: the losses' gradients in closed form, and the view of critic
and generator.
"""

import math
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from latent_ebm import EnergyPrior, GaussianPrior
from latent_ebm.learning import ScoreMatching, SelfAdversarial
from latent_ebm.learning.self_adversarial import fit_line
from latent_ebm.objectives import denoising_score_matching, nearest_neighbour_entropy
from samplers import MALA, GradientFlow, Langevin, PersistentChains, Sampler

ADAM = partial(torch.optim.Adam, lr=1e-2)
A, T, NUM = 0.6, 0.4, 400


class Quadratic(nn.Module):
    """``E(x) = a |x|^2 / 2``: with a standard normal base, p = N(0, 1 / (1 + a)) and x(T) =
    exp(-(1 + a) T) x(0).
    """

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(A))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * self.a * x.square().sum(1)


def rule(sampler: Sampler | None = None, **kwargs) -> SelfAdversarial:
    return SelfAdversarial(
        EnergyPrior(Quadratic(), GaussianPrior(2), sampler or GradientFlow(T)), ADAM, **kwargs
    )


def data(num: int = NUM) -> Tensor:
    return 1.5 * torch.randn(num, 2, generator=torch.Generator().manual_seed(1))


def gradients(made: SelfAdversarial, x: Tensor) -> dict[str, float]:
    """Derivative in a of every loss."""
    torch.manual_seed(0)
    network = made.ebm.network
    losses = made.losses(x)
    return {
        k: torch.autograd.grad(v, list(network.parameters()), retain_graph=True)[0].item()
        for k, v in losses.items()
    }


def starts(num: int = NUM) -> Tensor:
    """The cold starts that ``gradients`` sees."""
    torch.manual_seed(0)
    return GaussianPrior(2).sample(num)


@pytest.mark.parametrize("negatives", ["detached", "through", "through+entropy"])
def test_critic_takes_the_generator_for_fixed(negatives) -> None:
    x, generated = data(), math.exp(-(1 + A) * T) * starts()
    expected = 0.5 * (x.square().sum(1).mean() - generated.square().sum(1).mean()).item()
    assert gradients(rule(negatives=negatives), x)["critic"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("adjoint", [False, True])
def test_generator_is_differentiated_at_a_fixed_critic(adjoint: bool) -> None:
    """``d/da E[(1 + a*) x(T)^2 / 2]`` at a* = a, held fixed: ``-(1 + a) T E[x(T)^2]``, through
    x(T) alone.
    """
    found = gradients(rule(GradientFlow(T, adjoint=adjoint), negatives="through"), data())
    generated = math.exp(-(1 + A) * T) * starts()
    assert found["generator"] == pytest.approx(
        -(1 + A) * T * generated.square().sum(1).mean().item(), rel=1e-4
    )


def test_entropy_falls_as_the_flow_contracts() -> None:
    """x(T) shrinks by exp(-(1 + a) T): its entropy changes by -2 T da, so that the loss -H has the
    derivative 2 T.
    """
    assert gradients(rule(negatives="through+entropy"), data())["entropy"] == pytest.approx(
        2 * T, rel=1e-4
    )


def test_warm_and_persistent_chains_start_where_they_say() -> None:
    x = data(10)
    shrink = math.exp(-(1 + A) * T)
    torch.testing.assert_close(
        rule(start="warm").sample_negatives(x), shrink * x, rtol=1e-4, atol=1e-5
    )
    chains = PersistentChains(5, 2)
    before = chains.particles.clone()
    rule(start=chains).sample_negatives(x)
    moved = (chains.particles != before).any(1)
    torch.testing.assert_close(
        chains.particles[moved], shrink * before[moved], rtol=1e-4, atol=1e-5
    )
    assert moved.any()


def test_view_of_critic_and_generator_in_closed_form() -> None:
    """p_T = N(0, s^2), s = exp(-(1 + a) T): log p_T against -U has the slope 1 / (s^2 (1 + a)),
    correlation 1.
    """
    x, x0 = data(), starts()
    figures = rule().adversaries(x, x0)
    s = math.exp(-(1 + A) * T)
    assert figures["slope"].item() == pytest.approx(1 / (s**2 * (1 + A)), rel=1e-3)
    assert figures["correlation"].item() == pytest.approx(1, abs=1e-4)
    assert figures["contraction"].item() == pytest.approx(2 * (1 + A) * T, rel=1e-4)
    assert figures["displacement"].item() == pytest.approx(
        (1 - s) * x0.norm(dim=1).mean().item(), rel=1e-4
    )
    gap = 0.5 * (1 + A) * (s**2 * x0.square().sum(1).mean() - x.square().sum(1).mean()).item()
    assert figures["gap"].item() == pytest.approx(gap, rel=1e-3)
    assert figures["noise"] == 0
    noisy = rule(Langevin(0.02, 8, temperature=0.25)).adversaries(x, x0)
    assert noisy["noise"].item() == pytest.approx(math.sqrt(2 * 0.02 * 8 * 0.25))
    assert set(noisy) == {"noise", "gap", "displacement"}
    alone = rule().adversaries(x[:1], x0[:1])
    assert set(figures) - set(alone) == {"slope", "correlation"}
    assert all(value.isfinite() for value in alone.values())


def test_fit_line() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    slope, correlation = fit_line(x, -3 * x + 2)
    torch.testing.assert_close(torch.stack([slope, correlation]), torch.tensor([-3.0, -1.0]))


def test_entropy_of_a_gaussian() -> None:
    """Kozachenko and Leonenko: H = dim E[log r] + log(n - 1) + log V_dim + Euler's constant."""
    n, scale = 4_000, torch.tensor([0.5, 2.0, 1.0])
    x = scale * torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    constant = math.log(n - 1) + math.log(4 / 3 * math.pi) + 0.5772
    exact = 1.5 * math.log(2 * math.pi * math.e) + scale.log().sum().item()
    assert nearest_neighbour_entropy(x).item() + constant == pytest.approx(exact, abs=0.1)
    with pytest.raises(ValueError, match="at least two rows, got 1"):
        nearest_neighbour_entropy(x[:1])


def test_the_entropy_does_not_depend_on_where_rows_are() -> None:
    x = 0.1 * torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    there = nearest_neighbour_entropy(x + 100)
    torch.testing.assert_close(there, nearest_neighbour_entropy(x), atol=0.02, rtol=0)


def test_score_matching_is_least_at_the_blurred_density() -> None:
    """For data N(0, s^2) blurred by ``noise``, among N(0, v) the loss is least at v = s^2 +
    noise^2.
    """
    noise = 0.5
    x = 0.8 * torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    losses = []
    for value in (0.8**2 + noise**2, 0.8**2, 1.3):
        v = torch.tensor(value, requires_grad=True)
        loss = denoising_score_matching(lambda y, v=v: -0.5 * y.square().sum(1) / v, x, noise)
        losses.append(loss.item())
        if value == 0.8**2 + noise**2:
            assert torch.autograd.grad(loss, v)[0].item() == pytest.approx(0, abs=5e-3)
    assert losses[0] < min(losses[1:]) - 5e-3


def test_rules_train_log_and_generate(tmp_path) -> None:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    ebm = EnergyPrior(Quadratic(), GaussianPrior(2), MALA(0.2, 5))
    for made in (rule(), ScoreMatching(ebm, ADAM, noise=0.1)):
        before = made.ebm.network.get_parameter("a").item()
        loader = DataLoader(data(100), batch_size=50)  # pyright: ignore[reportArgumentType]
        trainer = Trainer(inference_mode=False, max_epochs=3, default_root_dir=tmp_path, **quiet)
        trainer.fit(made, loader, loader)
        assert made.ebm.network.get_parameter("a").item() < before, (
            "the data are wider than the model"
        )
        assert made.generate(7)["x"].shape == (7, 2)
        if isinstance(made, SelfAdversarial):
            logged = {
                "val/gap",
                "val/displacement",
                "val/noise",
                "val/slope",
                "val/correlation",
                "val/contraction",
            }
            assert logged <= set(trainer.callback_metrics)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: rule(negatives="attached"),
            "negatives must be one of detached, through, .* got 'attached'",
        ),
        (lambda: rule(start="hot"), "start must be .* got 'hot'"),
        (
            lambda: rule(negatives="through", start=PersistentChains(3, 2)),
            'negatives must be "detached" with persistent',
        ),
        (
            lambda: ScoreMatching(rule().ebm, ADAM, noise=0.0),
            "noise must be finite and positive, got 0.0",
        ),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
