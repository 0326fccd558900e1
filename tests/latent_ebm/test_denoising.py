"""Diffusion models against exact denoisers: the minimum of the loss, what is learnt, what is
generated.
"""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from latent_ebm import (
    AmortizedPosterior,
    GaussianLikelihood,
    GaussianPrior,
    LatentModel,
    MCMCPosterior,
    PosteriorLatents,
)
from latent_ebm.autoencoders import PatchPCA
from latent_ebm.conditions import Batch, ClassLabels, Condition, label_condition
from latent_ebm.denoisers import GaussianMixtureDenoiser, Preconditioned
from latent_ebm.learning import Denoising
from latent_ebm.learning.denoising import draw_log_snr
from latent_ebm.networks import DenoiserMLP
from latent_ebm.objectives import denoising
from samplers import Langevin, PersistentChains
from samplers.reverse import DDIM
from samplers.schedules import VPCosine

ADAM = partial(torch.optim.Adam, lr=2e-3)
SCHEDULE = VPCosine(log_snr_min=-8.0, log_snr_max=12.0)
MEANS = [[-1.0, -1.0], [1.0, 0.0], [0.0, 1.5]]


def exact() -> GaussianMixtureDenoiser:
    return GaussianMixtureDenoiser([0.5, 0.3, 0.2], MEANS, [0.2, 0.3, 0.2], SCHEDULE)


def rule(num_classes: int | None = None, shape: int = 2, **kwargs) -> Denoising:
    denoiser = Preconditioned(
        DenoiserMLP(shape, (64, 64), num_classes), SCHEDULE, prediction="edm", data_scale=1.0
    )
    return Denoising(
        denoiser,
        DDIM(SCHEDULE, 30),
        (shape,),
        ADAM,
        conditioner=None if num_classes is None else ClassLabels(num_classes),
        **kwargs,
    )


def fit(learner: Denoising, num_steps: int) -> None:
    torch.manual_seed(0)
    mixture, optimizer = exact(), learner.configure_optimizers()
    falling = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=num_steps)
    for _ in range(num_steps):
        label = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), 300, replacement=True)
        loss = learner.losses((mixture.sample(300, label=label), label))["denoising"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()


def test_the_loss_of_the_exact_denoiser_is_the_posterior_variance():
    """Data N(1, .5^2): E|D - x|^2 = 1 / (1 / .25 + snr), whatever the frame."""
    torch.manual_seed(0)
    num, scale = 200_000, 0.5
    x = 1 + scale * torch.randn(num, 1, dtype=torch.float64)
    mixture = GaussianMixtureDenoiser(
        [1.0], torch.ones(1, 1).double(), torch.tensor([scale]).double(), SCHEDULE
    )
    log_snr = torch.tensor([-3.0, 0.0, 4.0]).double().repeat_interleave(num // 3 + 1)[:num]
    weight = log_snr.exp() + scale**-2
    loss = denoising(
        partial(mixture, t=SCHEDULE.time(log_snr)), x, *SCHEDULE.frame(log_snr), weight
    )
    assert loss.item() == pytest.approx(1.0, abs=5 * math.sqrt(2 / num))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d, x, t: 1.03 * d(x, t),
        lambda d, x, t: d(x, t) + 0.05,
        lambda d, x, t: d(x, 0.97 * t),
    ],
    ids=["scaled", "shifted", "at another time"],
)
def test_no_other_denoiser_has_a_smaller_loss(spoil):
    mixture = exact()
    x = mixture.sample(100_000, generator=torch.Generator().manual_seed(1))
    log_snr = torch.linspace(-4, 6, len(x), dtype=torch.float64)
    t, frame = SCHEDULE.time(log_snr), SCHEDULE.frame(log_snr)

    def loss(denoise) -> float:
        torch.manual_seed(2)
        return denoising(denoise, x, *frame, log_snr.exp() + 1).item()

    assert loss(partial(mixture, t=t)) < loss(lambda x_t: spoil(mixture, x_t, t))


@pytest.fixture(scope="module")
def learnt() -> Denoising:
    learner = rule(num_classes=3, dropout=0.5, noise="uniform", log_snr=(-8.0, 8.0))
    fit(learner, 800)
    return learner.eval()


@torch.no_grad()
@pytest.mark.parametrize("conditional", [False, True])
def test_a_learnt_denoiser_approaches_the_exact_one(learnt, conditional):
    """Its error is small against the spread of what it averages, at all noise levels, and larger
    before training.
    """
    mixture, untrained = exact(), rule(num_classes=3)
    label = torch.arange(4000) % 3
    given = {"label": label} if conditional else {}
    generator = torch.Generator().manual_seed(3)
    x = mixture.sample(4000, **given, generator=generator)
    for log_snr in (-4.0, -1.0, 1.0, 3.0):
        t = SCHEDULE.time(torch.tensor(log_snr))
        alpha, sigma = SCHEDULE(t)
        x_t = (alpha * x + sigma * torch.randn(x.shape, generator=generator)).float()
        truth = mixture(x_t, t, **given)
        error, spread = (
            (learnt.denoiser(x_t, t, **given) - truth).square().mean(),
            (x - truth).square().mean(),
        )
        before = (untrained.denoiser(x_t, t, **given) - truth).square().mean()
        assert error < 0.1 * spread, log_snr
        assert error < 0.3 * before, log_snr


def shares(x: Tensor) -> Tensor:
    """Share of the rows nearest to each mean."""
    return torch.bincount(torch.cdist(x, torch.tensor(MEANS)).argmin(1), minlength=3) / len(x)


def test_samples_have_the_shares_of_the_modes(learnt):
    torch.manual_seed(0)
    x = learnt.generate(2000)["x"]
    torch.testing.assert_close(shares(x), torch.tensor([0.5, 0.3, 0.2]), atol=0.06, rtol=0)


def test_guided_samples_are_more_typical_of_their_class(learnt):
    torch.manual_seed(0)
    typical = []
    for guidance in (1.0, 2.0):
        label = torch.arange(999) % 3
        found = learnt.generate(999, label_condition(label), num_steps=10, guidance=guidance)
        x = found["x"]
        assert torch.equal(label, found["label"])
        assert (torch.cdist(x, torch.tensor(MEANS)).argmin(1) == label).float().mean() > 0.95
        t = torch.tensor(0.3)
        typical.append((exact().log_prob(x, t, label=label) - exact().log_prob(x, t)).mean())
    assert typical[0] < typical[1]


def test_one_step_from_noise_is_the_mean_of_the_data(learnt):
    torch.manual_seed(0)
    x = learnt.generate(500, num_steps=1)["x"]
    torch.testing.assert_close(
        x.mean(0), torch.tensor([0.5, 0.3, 0.2]) @ torch.tensor(MEANS), atol=0.1, rtol=0
    )
    assert x.std(0).max() < 0.2


def test_labels_are_dropped_at_the_rate_that_was_asked_for():
    learner, told = rule(num_classes=3, dropout=0.3), []

    def spy(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        told.append(label)
        return x

    learner.denoiser.forward = spy
    torch.manual_seed(0)
    label = torch.randint(3, (4000,))
    learner.losses((torch.zeros(4000, 2), label))
    assert torch.all((told[0] == label) | (told[0] == -1))
    assert (told[0] == -1).float().mean().item() == pytest.approx(0.3, abs=0.03)
    learner.eval().losses((torch.zeros(4000, 2), label))
    torch.testing.assert_close(told[1], label, rtol=0, atol=0)  # held-out rows keep theirs


@pytest.mark.parametrize(
    ("noise", "log_snr", "mean", "std"),
    [("normal", (1.0, 0.5), 1.0, 0.5), ("uniform", (-2.0, 4.0), 1.0, 6 / 12**0.5)],
)
def test_noise_levels_follow_their_law(noise, log_snr, mean, std):
    torch.manual_seed(0)
    draws = draw_log_snr(torch.zeros(100_000, 2), noise, log_snr, SCHEDULE.log_snr_range)
    assert draws.dtype == torch.float64
    assert draws.mean().item() == pytest.approx(mean, abs=5 * std / 300)
    assert draws.std().item() == pytest.approx(std, rel=0.02)


def test_wide_laws_of_noise_stay_within_the_schedule():
    ends = SCHEDULE.log_snr_range
    draws = draw_log_snr(torch.zeros(10_000, 2), "normal", (2.0, 20.0), ends)
    assert -8 <= draws.min() < -7
    assert 11 < draws.max() <= 12


def test_the_law_of_latents_is_learnt_and_decoded():
    """Posterior draws of a fixed encoder N(x / 2, .1^2): the latents of x ~ N(2, 1) are N(1,
    .26).
    """
    encoder, decoder = nn.Linear(1, 2), nn.Linear(1, 1)
    with torch.no_grad():
        (
            encoder.weight.copy_(torch.tensor([[0.5], [0.0]])),
            encoder.bias.copy_(torch.tensor([0.0, math.log(0.1)])),
        )
    model = LatentModel(GaussianPrior(1), GaussianLikelihood(decoder, 0.1))
    learner = rule(shape=1, latents=PosteriorLatents(model, AmortizedPosterior(encoder)))
    assert {id(p) for g in learner.configure_optimizers().param_groups for p in g["params"]} == {
        id(p) for p in learner.denoiser.parameters()
    }
    torch.manual_seed(0)
    optimizer = learner.configure_optimizers()
    for _ in range(200):
        optimizer.zero_grad()
        learner.losses(2 + torch.randn(200, 1))["denoising"].backward()
        optimizer.step()
    found = learner.generate(2000)
    assert found["z"].mean().item() == pytest.approx(1.0, abs=0.1)
    assert found["z"].std().item() == pytest.approx(math.sqrt(0.26), abs=0.08)
    assert torch.equal(found["x"], model.decode(found["z"]))


def test_held_out_rows_do_not_move_the_chains_of_training_rows() -> None:
    """Row 0 of a held-out set is not row 0 of training: it has a posterior of its own."""
    model = LatentModel(GaussianPrior(1), GaussianLikelihood(nn.Linear(1, 1), 0.1))
    chains, sampler = PersistentChains(4, 1), Langevin(1e-3, 2)
    posterior = MCMCPosterior(sampler, start=chains)
    with pytest.raises(ValueError, match="inference must draw the latents of other rows"):
        PosteriorLatents(model, posterior)
    space = PosteriorLatents(model, posterior, MCMCPosterior(sampler))
    learner, batch = rule(shape=1, latents=space), Batch(torch.ones(2, 1), Condition(), None)
    batch = batch._replace(index=torch.tensor([0, 1]))
    before = chains.particles.clone()
    learner.eval().unpack(batch)
    assert torch.equal(chains.particles, before)
    learner.train().unpack(batch)
    assert (chains.particles != before).flatten().tolist() == [True, True, False, False]


def test_latents_of_an_autoencoder_are_learnt_and_decoded():
    """The denoiser sees standardised latents of the images, not the images."""
    torch.manual_seed(0)
    images = torch.rand(50, 1, 4, 4) * 2 - 1
    autoencoder = PatchPCA(channels=2, patch=2, in_channels=1).fit(images)
    seen = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x, noise_level):
            seen.append(x.detach())
            return self.scale * x

    denoiser = Preconditioned(Watched(), SCHEDULE)
    learner = Denoising(
        denoiser,
        DDIM(SCHEDULE, 2),
        (2, 2, 2),
        torch.optim.Adam,
        latents=autoencoder,
        noise="uniform",
        log_snr=(11.0, 12.0),
    )
    learner.losses(images)["denoising"].backward()
    latents = autoencoder.encode(images)
    torch.testing.assert_close(seen[0] / seen[0].std(), latents / latents.std(), atol=0.05, rtol=0)
    found = learner.generate(3)
    assert torch.equal(found["x"], autoencoder.decode(found["z"]))


def test_refusals():
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\], got 1\.5"):
        rule(dropout=1.5)
    with pytest.raises(ValueError, match="noise must be one of normal, uniform, got 'cauchy'"):
        rule(noise="cauchy")
    with pytest.raises(ValueError, match="log_snr must be ends in order"):
        rule(noise="uniform", log_snr=(3.0, -3.0))
    with pytest.raises(ValueError, match="a standard deviation > 0"):
        rule(log_snr=(3.0, 0.0))
    with pytest.raises(ValueError, match="guidance must come with a condition"):
        rule().generate(3, guidance=2.0)
    with pytest.raises(ValueError, match="condition must be left out for a rule without"):
        rule().generate(3, label_condition(torch.arange(3)))
    with pytest.raises(ValueError, match=r"batch must be \(x, label, \.\.\.\) .* got x alone"):
        rule(num_classes=3).losses(torch.zeros(4, 2))
