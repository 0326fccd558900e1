"""Denoisers: the exact teacher against quadrature, and every adapter against the exact teacher."""

import math

import pytest
import torch
from torch import Tensor, nn

from latent_ebm.denoisers import Denoiser, GaussianMixtureDenoiser, Preconditioned
from latent_ebm.networks import UNet
from samplers import VE, Karras, Rectified, Schedule, VPCosine, VPDiscrete
from tests.samplers.table import Z_MAX, moment_z, seeded, z_scores

WIDE = {"vp": VPCosine(-20.0, 20.0), "ve": VE(4e-5, 3e4), "rectified": Rectified(-20.0, 20.0)}
WEIGHTS = torch.tensor([0.3, 0.5, 0.2]).double()
MEANS = torch.tensor([[-1.0, 0.5], [1.2, -0.3], [0.3, 1.4]]).double()
ROOTS = torch.tensor(
    [[[0.4, 0.0], [0.1, 0.3]], [[0.5, 0.0], [-0.3, 0.2]], [[0.2, 0.0], [0.2, 0.6]]]
).double()
SCALES = {
    "isotropic": torch.tensor([0.3, 0.5, 0.2]).double(),
    "diagonal": torch.tensor([[0.3, 0.6], [0.5, 0.2], [0.4, 0.4]]).double(),
    "full": ROOTS @ ROOTS.mT,
}


def mixture(kind: str = "full", schedule: Schedule = WIDE["vp"]) -> GaussianMixtureDenoiser:
    return GaussianMixtureDenoiser(WEIGHTS, MEANS, SCALES[kind], schedule)


def noised(teacher: Denoiser, x: Tensor, t: Tensor, seed: int = 5) -> Tensor:
    alpha, sigma = teacher.schedule(t)
    return alpha * x + sigma * torch.randn(x.shape, generator=seeded(seed), dtype=torch.float64)


def spread(teacher: GaussianMixtureDenoiser) -> Tensor:
    """Exact mean and covariance of clean data."""
    scales = teacher.variances.diag_embed() if teacher.axes is None else SCALES["full"]
    d = MEANS - WEIGHTS @ MEANS
    return (WEIGHTS[:, None, None] * (scales + d[:, :, None] * d[:, None])).sum(0)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("schedule", [VPCosine(), VE(), Rectified()], ids=str)
def test_posterior_mean_and_density_are_integrals(schedule: Schedule, t: float) -> None:
    """``E[x_0 | x_t]`` and ``q(x_t)`` by quadrature over clean data, in one dimension."""
    means, scales = (
        torch.tensor([[-1.0], [0.5], [2.0]]).double(),
        torch.tensor([0.3, 0.2, 0.5]).double(),
    )
    teacher, time = GaussianMixtureDenoiser(WEIGHTS, means, scales, schedule), torch.tensor(t)
    x = torch.linspace(-2, 3, 7).double()[:, None]
    alpha, sigma = schedule(time)
    grid = torch.linspace(-6, 8, 20_001, dtype=torch.float64)
    clean = (
        WEIGHTS * torch.distributions.Normal(means[:, 0], scales).log_prob(grid[:, None]).exp()
    ).sum(1)
    joint = clean * torch.distributions.Normal(alpha * grid, sigma).log_prob(x).exp()
    torch.testing.assert_close(
        teacher(x, time)[:, 0], (joint @ grid) / joint.sum(1), rtol=0, atol=1e-7
    )
    density = joint.sum(1) * (grid[1] - grid[0])
    torch.testing.assert_close(teacher.log_prob(x, time), density.log(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", SCALES)
@pytest.mark.parametrize("label", [None, torch.tensor([0, 1, 2, -1, 0])])
def test_score_is_the_gradient_of_the_log_density(kind: str, label: Tensor | None) -> None:
    teacher, t = mixture(kind), torch.tensor([0.02, 0.3, 0.5, 0.7, 0.98])
    x = noised(teacher, teacher.sample(5, generator=seeded()), t[:, None]).requires_grad_()
    (expected,) = torch.autograd.grad(teacher.log_prob(x, t, label=label).sum(), x)
    torch.testing.assert_close(teacher.score(x, t, label=label), expected)
    torch.testing.assert_close(
        Denoiser.score(teacher, x, t, label=label), expected, rtol=1e-6, atol=1e-6
    )


def test_full_covariances_are_those_of_multivariate_normals() -> None:
    """Density and posterior mean in three dimensions, where axes are no reflections, by dense
    linear algebra.
    """
    roots = torch.randn(2, 3, 3, generator=seeded()).double()
    means, covariances = torch.randn(2, 3, generator=seeded(1)).double(), roots @ roots.mT
    teacher, t = (
        GaussianMixtureDenoiser([0.4, 0.6], means, covariances, Rectified()),
        torch.tensor(0.3),
    )
    x, label = torch.randn(2, 3, generator=seeded(2)).double(), torch.arange(2)
    alpha, sigma = teacher.schedule(t)
    noised_covariances = alpha**2 * covariances + sigma**2 * torch.eye(3)
    law = torch.distributions.MultivariateNormal(alpha * means, noised_covariances)
    torch.testing.assert_close(teacher.log_prob(x, t, label=label), law.log_prob(x))
    pull = torch.linalg.solve(noised_covariances, (x - alpha * means)[..., None])
    torch.testing.assert_close(
        teacher(x, t, label=label), means + (alpha * covariances @ pull)[..., 0]
    )


@pytest.mark.parametrize("kind", SCALES)
def test_density_integrates_to_one(kind: str) -> None:
    ticks = torch.linspace(-5, 5, 201).double()
    points = torch.cartesian_prod(ticks, ticks)
    for t, label in ((0.3, None), (0.3, torch.tensor([1])), (0.5, torch.tensor([-1]))):
        log_prob = mixture(kind).log_prob(points, torch.tensor(t), label=label)
        assert log_prob.exp().sum().item() * 0.05**2 == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", SCALES)
def test_draws_follow_the_mixture(kind: str) -> None:
    teacher = mixture(kind)
    x = teacher.sample(20_000, generator=seeded(1))
    assert moment_z(x, WEIGHTS @ MEANS, spread(teacher)) < Z_MAX
    within = teacher.variances[1].diag() if teacher.axes is None else SCALES["full"][1]
    x = teacher.sample(20_000, label=torch.ones(20_000).long(), generator=seeded(2))
    assert moment_z(x, MEANS[1], within) < Z_MAX


def test_labels_select_components() -> None:
    """Two components of a class weigh as their shares do; a single one is a Gaussian."""
    teacher = GaussianMixtureDenoiser(WEIGHTS, MEANS, SCALES["full"], WIDE["vp"], labels=[7, 7, 3])
    pair = GaussianMixtureDenoiser(WEIGHTS[:2], MEANS[:2], SCALES["full"][:2], WIDE["vp"])
    t, x = torch.tensor(0.4), noised(teacher, MEANS, torch.tensor(0.4))
    label = torch.tensor([7, 7, 3])
    torch.testing.assert_close(teacher(x, t, label=label)[:2], pair(x, t)[:2])
    law = torch.distributions.MultivariateNormal(MEANS[2], SCALES["full"][2])
    clean = teacher.log_prob(MEANS + 0.1, torch.tensor(0.0), label=torch.full((3,), 3))
    torch.testing.assert_close(clean, law.log_prob(MEANS + 0.1), rtol=1e-4, atol=1e-4)
    share = (
        teacher.sample(20_000, label=torch.full((20_000,), 7), generator=seeded())[:, :1] < 0
    ).double()
    exact = (pair.sample(200_000, generator=seeded(1))[:, :1] < 0).double().mean(0)
    assert z_scores(share, exact).abs().item() < Z_MAX * 1.05
    with pytest.raises(ValueError, match=r"label must be one of \[3, 7\], got \[7, 0, 3\]"):
        teacher(x, t, label=torch.tensor([7, 0, 3]))


def test_events_of_any_shape() -> None:
    images, flat = torch.randn(3, 1, 2, 4, generator=seeded()), torch.eye(8).expand(3, 8, 8) / 4
    teacher = GaussianMixtureDenoiser([1.0, 2.0, 3.0], images, flat, VPCosine())
    x, t = teacher.sample(5, generator=seeded()), torch.rand(5, generator=seeded())
    assert x.shape == teacher(x, t).shape == teacher.score(x, t).shape == (5, 1, 2, 4)
    same = GaussianMixtureDenoiser([1.0, 2.0, 3.0], images.flatten(1), [0.5] * 3, VPCosine())
    torch.testing.assert_close(
        teacher(x, t).flatten(1), same(x.flatten(1), t), rtol=1e-4, atol=1e-4
    )
    assert torch.equal(x, teacher.sample(5, generator=seeded()))
    assert not list(teacher.parameters())


def test_numbers_of_less_precision_do_not_lower_that_of_the_means() -> None:
    teacher = GaussianMixtureDenoiser([0.3, 0.5, 0.2], MEANS, SCALES["full"].float(), VE())
    assert {b.dtype for name, b in teacher.named_buffers() if name != "labels"} == {torch.float64}
    assert GaussianMixtureDenoiser([1], [[0, 1]], [1], VE()).means.dtype == torch.float32


class Exact(nn.Module):
    """The mixture's denoiser as a network with a given prediction, written in the frame that it is
    trained in.
    """

    def __init__(self, prediction: str, data_scale: float = 1.0) -> None:
        super().__init__()
        self.teacher, self.prediction, self.d = (
            mixture(schedule=VE(1e-6, 1e6)),
            prediction,
            data_scale,
        )

    def forward(self, x: Tensor, noise_level: Tensor, label: Tensor | None = None) -> Tensor:
        s = (4 * noise_level).exp()[:, None]
        if self.prediction == "flow":
            tau = s / (1 + s)
            x_0 = self.denoise(x / (1 - tau), s, label)
            return (x - (1 - tau) * x_0) / tau - x_0  # eps - x_0
        if self.prediction == "edm":
            x_ve = x * (s**2 + self.d**2).sqrt()
            x_0 = self.denoise(x_ve, s, label)
            return (
                (x_0 - self.d**2 / (s**2 + self.d**2) * x_ve)
                * (s**2 + self.d**2).sqrt()
                / (s * self.d)
            )
        alpha, sigma = 1 / (1 + s**2).sqrt(), s / (1 + s**2).sqrt()
        x_0 = self.denoise(x / alpha, s, label)
        eps = (x - alpha * x_0) / sigma
        return {"x": x_0, "eps": eps, "v": alpha * eps - sigma * x_0}[self.prediction]

    def denoise(self, x_ve: Tensor, s: Tensor, label: Tensor | None) -> Tensor:
        return self.teacher(x_ve, self.teacher.schedule.time(-2 * s[:, 0].log()), label=label)


PREDICTIONS = ["edm", "v", "eps", "x", "flow"]


def adapter(prediction: str, schedule: Schedule) -> Preconditioned:
    scale = 0.7 if prediction == "edm" else 1.0
    return Preconditioned(Exact(prediction, scale), schedule, prediction, scale)  # pyright: ignore


def denoiser(name: str, frame: str) -> Denoiser:
    return mixture(schedule=WIDE[frame]) if name == "mixture" else adapter(name, WIDE[frame])


@pytest.mark.parametrize("frame", WIDE)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_gives_the_denoiser_it_was_made_from(prediction: str, frame: str) -> None:
    schedule, t = WIDE[frame], torch.linspace(0, 1, 41).double()
    teacher, found = mixture(schedule=schedule), adapter(prediction, schedule)
    x = noised(teacher, teacher.sample(41, generator=seeded()), t[:, None])
    label = torch.arange(41) % 4 - 1
    torch.testing.assert_close(found(x, t), teacher(x, t), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        found(x, t, label=label), teacher(x, t, label=label), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(found(x, t[20]), teacher(x, t[20]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("frame", WIDE)
@pytest.mark.parametrize("name", ["mixture", *PREDICTIONS])
def test_denoiser_contract(name: str, frame: str) -> None:
    """x itself without noise, the mean of the data in nothing but noise, and a squared error that
    grows with noise.
    """
    found = denoiser(name, frame)
    x = mixture().sample(2_000, generator=seeded())
    clean, noise = torch.tensor(0.0), torch.tensor(1.0)
    x_t = noised(found, x, clean)
    torch.testing.assert_close(
        found(x_t, clean), x_t / found.schedule(clean)[0], rtol=0, atol=1e-3
    )
    torch.testing.assert_close(
        found(noised(found, x, noise), noise),
        (WEIGHTS @ MEANS).expand(2_000, 2),
        rtol=0,
        atol=2e-3,
    )
    errors = []
    for log_snr in range(16, -5, -2):
        t = found.schedule.time(torch.tensor(float(log_snr)))
        errors.append((found(noised(found, x, t), t) - x).square().sum(1).mean().item())
    assert errors == sorted(errors)
    assert errors[-1] == pytest.approx(spread(mixture()).trace().item(), rel=0.1)


@pytest.mark.parametrize("prediction", ["edm", "v"])
def test_inputs_and_targets_have_unit_variance(prediction: str) -> None:
    """For data of standard deviation d, in every frame and at every noise level."""
    for schedule in WIDE.values():
        wrapped = Preconditioned(nn.Identity(), schedule, prediction, data_scale=0.5)  # pyright: ignore
        alpha, sigma = schedule(torch.linspace(0, 1, 9))
        c_in, c_skip, c_out = wrapped.coefficients(alpha, sigma)
        torch.testing.assert_close(
            c_in**2 * ((0.5 * alpha) ** 2 + sigma**2), torch.ones(9).double()
        )
        target = ((1 - c_skip * alpha) * 0.5) ** 2 + (c_skip * sigma) ** 2
        torch.testing.assert_close(target / c_out**2, torch.ones(9).double(), rtol=1e-6, atol=0)


def test_level_is_what_the_network_is_told() -> None:
    seen = []

    class Spy(nn.Module):
        def forward(self, x: Tensor, noise_level: Tensor) -> Tensor:
            seen.append(noise_level)
            return x

    schedule, x = VPDiscrete(), torch.zeros(2, 3)
    t = torch.tensor([0, 777]).double() / 999
    Preconditioned(Spy(), schedule, "eps", level=schedule.position)(x, t)
    Preconditioned(Spy(), Karras(), "edm")(x, torch.tensor(1.0))
    assert seen[0].tolist() == [0.0, 777.0]
    assert seen[0].dtype == torch.float32
    assert seen[1].tolist() == pytest.approx([math.log(80) / 4] * 2)


def test_networks_of_the_library_fit() -> None:
    wrapped = Preconditioned(
        UNet((1, 8, 8), 8, num_classes=3, patch=1, depth=1), VPCosine(), data_scale=0.5
    )
    x = torch.randn(2, 1, 8, 8, generator=seeded())
    x_0 = wrapped(x, torch.tensor(0.3), label=torch.tensor([0, 2]))
    torch.testing.assert_close(
        x_0, wrapped(x, torch.tensor([0.3, 0.3]), label=torch.tensor([0, 2]))
    )
    x_0.mean().backward()
    assert any(p.grad is not None for p in wrapped.parameters())


def test_meta_tensors_pass() -> None:
    x, t = torch.empty(4, 2, device="meta"), torch.empty(4, device="meta")
    label = torch.empty(4, device="meta", dtype=torch.long)
    for kind in SCALES:
        teacher = mixture(kind).float().to("meta")
        for found in (
            teacher(x, t, label=label),
            teacher.score(x, t),
            teacher.sample(3),
            teacher.log_prob(x, t),
        ):
            assert found.is_meta
    for prediction in PREDICTIONS:
        assert adapter(prediction, WIDE["vp"]).to("meta")(x.double(), t).shape == (4, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: GaussianMixtureDenoiser([1.0], MEANS, [1.0], VE()),
            r"must agree in K, got shapes \(3, 2\), \(1,\)",
        ),
        (
            lambda: GaussianMixtureDenoiser(WEIGHTS, MEANS, torch.ones(2), VE()),
            r"scales must have shape .* got \(2,\)",
        ),
        (
            lambda: GaussianMixtureDenoiser(-WEIGHTS, MEANS, SCALES["full"], VE()),
            "weights must be positive, got",
        ),
        (
            lambda: GaussianMixtureDenoiser(WEIGHTS, MEANS, -SCALES["full"], VE()),
            "scales must be positive",
        ),
        (
            lambda: GaussianMixtureDenoiser(WEIGHTS, MEANS, [0.0, 1.0, 1.0], VE()),
            "scales must be positive",
        ),
        (
            lambda: GaussianMixtureDenoiser(WEIGHTS, MEANS, ROOTS, VE()),
            "scales must be symmetric if they are",
        ),
        (
            lambda: Preconditioned(nn.Identity(), VE(), "noise"),
            "prediction must be one of edm, .*, got 'noise'",
        ),  # pyright: ignore
        (
            lambda: Preconditioned(nn.Identity(), VE(), data_scale=0.0),
            "data_scale must be finite and positive, got 0.0",
        ),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
