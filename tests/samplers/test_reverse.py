"""Reverse samplers: exact distributions, declared orders, exact densities, and no digit lost at
the ends.

Teachers are Gaussian mixtures, whose denoiser is known in closed form at every noise level.
"""

import itertools
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from latent_ebm.denoisers import GaussianMixtureDenoiser
from samplers import (
    DDIM,
    VE,
    Ancestral,
    Heun,
    Karras,
    ProbabilityFlow,
    Rectified,
    Renoising,
    ReverseSampler,
    Schedule,
    VPCosine,
    VPDiscrete,
    VPLinear,
    bridge,
)
from samplers.derivatives import jacobian_products, unit_vectors, value_and_divergence
from samplers.ode import FIXED_STEP
from samplers.reverse_checks import GRIDS
from tests.samplers.table import Z_MAX, moment_z, seeded, z_scores

ONE, ZERO = torch.tensor(1.0), torch.tensor(0.0)
SCHEDULES = [VPLinear(), VPCosine(), VPDiscrete(), VE(), Karras(), Rectified()]
NUM = 4_000
ROUGH_FLOW = partial(ProbabilityFlow, rtol=1e-4, atol=1e-4)


def gaussian(schedule: Schedule) -> GaussianMixtureDenoiser:
    covariance = torch.tensor([[[0.5, 0.3], [0.3, 0.4]]]).double()
    return GaussianMixtureDenoiser(
        torch.ones(1).double(), [[0.7, -0.4]], covariance, schedule
    ).double()


def mixture(schedule: Schedule) -> GaussianMixtureDenoiser:
    means = torch.tensor([[-1.0, 0.5], [1.2, -0.3], [0.3, 1.4]]).double()
    return GaussianMixtureDenoiser(
        torch.tensor([0.3, 0.5, 0.2]).double(), means, torch.tensor([0.3, 0.5, 0.2]), schedule
    )


def noised(
    teacher: GaussianMixtureDenoiser, t: Tensor, num: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Exact draws of x_0 and of x_t given it."""
    x, generator = teacher.sample(num, generator=seeded(seed)), seeded(seed + 100)
    alpha, sigma = teacher.schedule(t)
    return x, alpha * x + sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype)


SAMPLERS = {
    "ancestral": lambda schedule: Ancestral(schedule, 250, "karras"),
    "ddim": lambda schedule: DDIM(schedule, 250, grid="karras"),
    "ddim_half": lambda schedule: DDIM(schedule, 250, eta=0.5, grid="karras"),
    "heun": lambda schedule: Heun(schedule, 50),
    "flow": lambda schedule: ProbabilityFlow(schedule, rtol=1e-5, atol=1e-5),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    "schedule", [VPLinear(), Karras(), Rectified(-9.0, 9.0)], ids=lambda s: type(s).__name__
)
def test_samplers_land_on_the_gaussian(name: str, schedule: Schedule) -> None:
    teacher = gaussian(schedule)
    _, x_T = noised(teacher, ONE, NUM)
    x = SAMPLERS[name](schedule).sample(teacher, x_T, generator=seeded(1))
    alpha, sigma = schedule(ZERO)
    covariance = torch.tensor([[0.5, 0.3], [0.3, 0.4]]).double()
    law = alpha**2 * covariance + sigma**2 * torch.eye(2)
    assert moment_z(x, alpha * teacher.means[0], law) < Z_MAX
    assert moment_z(x_T, alpha * teacher.means[0], law) > 10


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_land_on_the_mixture(name: str) -> None:
    """Shares of the components, and first and second moments within each, weighted by its
    posterior probability.
    """
    teacher = mixture(VPCosine())
    _, x_T = noised(teacher, ONE, NUM, seed=2)
    x = SAMPLERS[name](teacher.schedule).sample(teacher, x_T, generator=seeded(1))

    def moments(x: Tensor) -> Tensor:
        share = torch.stack(
            [teacher.log_prob(x, ZERO, label=torch.full((len(x),), k)) for k in range(3)], 1
        )
        share = (share + teacher.log_weights).softmax(1)[..., None]
        d = x[:, None] - teacher.means
        return torch.cat([share, share * d, share * d**2], 2).flatten(1)

    exact = moments(teacher.sample(200_000, generator=seeded(3)))
    difference = z_scores(moments(x), exact.mean(0)) / (1 + len(x) / len(exact)) ** 0.5
    assert difference.abs().max() < Z_MAX
    assert z_scores(moments(x_T), exact.mean(0)).abs().max() > 10


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize(
    "schedule", [VPLinear(), Rectified(), VE()], ids=lambda s: type(s).__name__
)
def test_bridge_has_the_marginals_of_the_diffusion(schedule: Schedule, eta: float) -> None:
    """Of ``(x_s, x_t)`` given x_0: with eta 1 also their covariance, that of the forward diffusion
    from s to t.
    """
    x_0 = torch.full((50_000, 1), 0.8).double()
    t, s = torch.tensor(0.6), torch.tensor(0.35)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    x_t = alpha_t * x_0 + sigma_t * torch.randn(x_0.shape, generator=seeded(1), dtype=x_0.dtype)
    x_s = bridge(schedule, x_0, x_t, t, s, eta, generator=seeded(2))
    snr_ratio = (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2
    correlation = (
        1 - eta**2 * (1 - snr_ratio)
    ).sqrt()  # sqrt of the ratio of the SNRs for the forward diffusion
    cross = correlation * sigma_s * sigma_t
    law = torch.stack([torch.stack([sigma_s**2, cross]), torch.stack([cross, sigma_t**2 + 1e-9])])
    pairs = torch.cat([x_s, x_t], 1)
    if eta == 0:  # degenerate: x_s is a function of x_t
        torch.testing.assert_close(x_s, alpha_s * x_0 + sigma_s * (x_t - alpha_t * x_0) / sigma_t)
    else:
        assert moment_z(pairs, torch.stack([alpha_s, alpha_t]) * 0.8, law) < Z_MAX


def posterior_draw(teacher: GaussianMixtureDenoiser, generator: torch.Generator):
    """``(x_t, t) -> x_0``, drawn from ``q(x_0 | x_t)`` of the one component of ``teacher``."""
    covariance = torch.tensor([[0.5, 0.3], [0.3, 0.4]]).double()

    def draw(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = teacher.schedule(t)
        inner = torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(2))
        left = covariance - alpha**2 * covariance @ inner @ covariance
        noise = torch.randn(x_t.shape, generator=generator, dtype=x_t.dtype)
        return teacher(x_t, t) + noise @ torch.linalg.cholesky(left).mT

    return draw


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_renoising_a_perfect_generator_lands_on_the_data(num_steps: int) -> None:
    """Also on the way: the marginals are those of the diffusion, for any number of steps."""
    teacher = gaussian(VPLinear())
    covariance = torch.tensor([[0.5, 0.3], [0.3, 0.4]]).double()
    _, x_T = noised(teacher, ONE, NUM)
    draw = posterior_draw(teacher, seeded(5))
    for _, s, x in Renoising(VPLinear(), num_steps).run(draw, x_T, generator=seeded(1)):
        alpha, sigma = VPLinear()(s) if s > 0 else (ONE, ZERO)
        law = alpha**2 * covariance + sigma**2 * torch.eye(2)
        assert moment_z(x, alpha * teacher.means[0], law) < Z_MAX


def test_renoising_keeps_nothing_but_the_guess() -> None:
    """Fresh noise at s, unlike that of ``DDIM`` with eta 1; at the end none."""
    guess, x_t = torch.full((50_000, 1), 0.8).double(), torch.randn(50_000, 1).double()
    t, s = torch.tensor(0.5), torch.tensor(0.4)
    step = Renoising(VPCosine(), 1).step
    x_s = step(lambda x, t: guess, x_t, t, s, generator=seeded(1))
    alpha, sigma = VPCosine()(s)
    assert moment_z(x_s, (alpha * 0.8)[None], (sigma**2)[None, None]) < Z_MAX
    pair = torch.corrcoef(torch.cat([x_s, x_t], 1).mT)
    assert pair[0, 1].abs() < 0.03
    other = bridge(VPCosine(), guess, x_t, t, s, generator=seeded(1))
    assert torch.corrcoef(torch.cat([other, x_t], 1).mT)[0, 1] > 0.5
    ends = torch.tensor([0.0, 0.3]).repeat(25_000)
    x_s = step(lambda x, t: guess, x_t, t, ends, generator=seeded(1))
    assert torch.equal(x_s[::2], guess[::2])
    assert (x_s[1::2] != guess[1::2]).all()


def test_ancestral_is_ddim_with_all_the_noise() -> None:
    teacher = mixture(VPLinear())
    _, x_T = noised(teacher, ONE, 20)
    a = Ancestral(teacher.schedule, 10).sample(teacher, x_T, generator=seeded())
    assert torch.equal(
        a, DDIM(teacher.schedule, 10, eta=1.0).sample(teacher, x_T, generator=seeded())
    )


@pytest.fixture(scope="module")
def paths() -> dict[Schedule, tuple[GaussianMixtureDenoiser, Tensor, Tensor]]:
    """Of two schedules: teacher, starts, and where the exact flow takes them."""
    found = {}
    for schedule in (VPLinear(), Karras()):
        teacher = mixture(schedule)
        _, x_T = noised(teacher, ONE, 60)
        truth = ProbabilityFlow(schedule, rtol=1e-11, atol=1e-11).sample(teacher, x_T)
        found[schedule] = teacher, x_T, truth
    return found


ORDERS = [(DDIM, 1, grid) for grid in GRIDS] + [(Heun, 2, grid) for grid in ("log_snr", "karras")]
ORDERS += [
    (partial(ProbabilityFlow, method=method), FIXED_STEP[method], "log_snr")
    for method in ("midpoint", "rk4")
]


@pytest.mark.cpu
@pytest.mark.parametrize(("make", "order", "grid"), ORDERS)
@pytest.mark.parametrize("schedule", [VPLinear(), Karras()], ids=lambda s: type(s).__name__)
def test_observed_order_is_the_declared_one(
    paths, schedule: Schedule, make, order: int, grid: str
) -> None:
    teacher, x_T, truth = paths[schedule]
    coarse, fine = (
        (make(schedule, num_steps, grid=grid).sample(teacher, x_T) - truth)
        .abs()
        .mean()
        .log2()
        .item()
        for num_steps in (64, 128)
    )
    assert coarse - fine == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_density_is_that_of_the_mixture(schedule: Schedule) -> None:
    """Forwards, and at given points, from the exact density at t = 1."""
    teacher, flow = mixture(schedule), ProbabilityFlow(schedule, rtol=1e-6, atol=1e-6)
    x, x_T = noised(teacher, ONE, 40)
    found, log_prob = flow.flow(teacher, x_T, teacher.log_prob(x_T, ONE))
    torch.testing.assert_close(log_prob, teacher.log_prob(found, ZERO), rtol=0, atol=1e-3)
    log_prob = flow.log_prob(teacher, x, lambda x: teacher.log_prob(x, ONE))
    torch.testing.assert_close(log_prob, teacher.log_prob(x, ZERO), rtol=0, atol=1e-3)
    assert (log_prob - teacher.log_prob(x_T, ONE)).abs().min() > 1e-3


def test_noise_is_the_default_base() -> None:
    """Within 1e-3 nats where the schedule ends in nothing but noise."""
    teacher = mixture(VPCosine(-18.0, 12.0))
    x = teacher.sample(40, generator=seeded())
    found = ProbabilityFlow(teacher.schedule, rtol=1e-6, atol=1e-6).log_prob(teacher, x)
    torch.testing.assert_close(found, teacher.log_prob(x, ZERO), rtol=0, atol=1e-3)
    wide = ProbabilityFlow(VE(0.01, 300.0))
    x = 40 * torch.randn(10, 3, generator=seeded(), dtype=torch.float64)
    normal = torch.distributions.Normal(0.0, math.sqrt(1 + 300.0**2))
    torch.testing.assert_close(wide._noise_log_prob(x), normal.log_prob(x).sum(1))


def test_hutchinson_is_unbiased_along_a_path() -> None:
    teacher, num = gaussian(VPLinear()), 2_000
    x = torch.tensor([[0.3, -0.8]]).double().expand(num, 2)
    base = partial(teacher.log_prob, t=ONE)
    flow = ProbabilityFlow(teacher.schedule, 40, "midpoint", exact_dim=1)
    exact = ProbabilityFlow(teacher.schedule, 40, "midpoint").log_prob(teacher, x[:1], base)
    estimates = flow.log_prob(teacher, x, base, generator=seeded())
    assert estimates.std() > 0.1
    assert z_scores(estimates[:, None], exact).abs().item() < Z_MAX


def test_divergence_of_a_field_without_symmetry() -> None:
    matrix = torch.randn(3, 3, generator=seeded()).double()
    x = torch.randn(5, 3, generator=seeded(1)).double()

    def field(x: Tensor) -> Tensor:
        return (x @ matrix.mT).sin()

    jacobian = (x @ matrix.mT).cos()[..., None] * matrix
    value, divergence = value_and_divergence(field, x)
    torch.testing.assert_close(value, field(x))
    torch.testing.assert_close(divergence, jacobian.diagonal(dim1=1, dim2=2).sum(1))
    products = jacobian_products(field, x, unit_vectors(x))[1]
    torch.testing.assert_close(products.transpose(0, 1), jacobian)


@pytest.mark.parametrize("make", [DDIM, Ancestral, Heun, ROUGH_FLOW], ids=str)
@pytest.mark.parametrize("schedule", [*SCHEDULES, VPCosine(-20.0, 30.0)], ids=str)
def test_single_precision_loses_nothing_at_the_ends(make, schedule: Schedule) -> None:
    """One step and a dozen, in float32 against float64; nothing leaves the neighbourhood of the
    data.
    """
    teacher = mixture(schedule)
    _, x_T = noised(teacher, ONE, 20)
    cases = [("log_snr", 1)] if make is ROUGH_FLOW else itertools.product(GRIDS, (1, 12))
    for grid, num_steps in cases:
        sampler = make(schedule, num_steps, grid=grid)
        single = sampler.sample(teacher.float(), x_T.float(), generator=seeded())
        assert single.dtype == torch.float32
        assert single.abs().max() < 5
        if make is not Ancestral:  # normal numbers of either precision are different draws
            torch.testing.assert_close(
                single.double(), sampler.sample(teacher.double(), x_T), rtol=0, atol=1e-3
            )


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("grid", GRIDS)
def test_grids(schedule: Schedule, grid: str) -> None:
    times = DDIM(schedule, 20, grid=grid).times(torch.zeros(1))
    assert times.dtype == torch.float64
    assert times.tolist()[:: len(times) - 1] == pytest.approx([1.0, 0.0], abs=1e-12)
    assert (times.diff() < 0).all()
    scale = {
        "time": times,
        "log_snr": schedule.log_snr(times),
        "karras": schedule.ve_sigma(times) ** (1 / 7),
    }[grid]
    torch.testing.assert_close(
        scale, torch.lerp(scale[0], scale[-1], torch.linspace(0, 1, 21, dtype=torch.float64))
    )


TRAINING_STEPS = [
    ("leading", 3, [667, 334, 1, 0]),
    ("leading", 500, [*range(999, 0, -2), 0]),
    ("trailing", 4, [999, 749, 499, 249, 0]),
    ("trailing", 3, [999, 666, 332, 0]),
    ("trailing", 500, [*range(999, 0, -2), 0]),
]


@pytest.mark.parametrize(("grid", "num_steps", "steps"), TRAINING_STEPS)
def test_grids_of_training_steps(grid: str, num_steps: int, steps: list[int]) -> None:
    times = DDIM(VPDiscrete(), num_steps, grid=grid).times(torch.zeros(1))
    torch.testing.assert_close(times * 999, torch.tensor(steps).double())
    with pytest.raises(ValueError, match=f"at most 500 on the grid '{grid}', got 501"):
        DDIM(VPDiscrete(), 501, grid=grid)
    with pytest.raises(ValueError, match=f"with VPDiscrete one of .*, got '{grid}'"):
        DDIM(VPLinear(), num_steps, grid=grid)


@pytest.mark.parametrize("name", SAMPLERS)
def test_same_generator_same_images(name: str) -> None:
    schedule = VPDiscrete()
    teacher = GaussianMixtureDenoiser(
        [0.4, 0.6], torch.randn(2, 1, 3, 4, generator=seeded()), [0.3, 0.5], schedule
    )
    x_T = torch.randn(3, 1, 3, 4, generator=seeded(1))
    a, b = (SAMPLERS[name](schedule).sample(teacher, x_T, generator=seeded(2)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.shape == x_T.shape
    assert not a.requires_grad


@pytest.mark.parametrize("make", [DDIM, Ancestral, Heun, Renoising], ids=lambda c: c.__name__)
def test_steps_take_a_time_for_every_row(make) -> None:
    teacher = mixture(VPLinear())
    _, x = noised(teacher, torch.tensor(0.5), 3)
    t, s = torch.tensor([0.9, 0.5, 0.2]), torch.tensor([0.3, 0.4, 0.0])
    step = make(teacher.schedule, 1).step
    torch.manual_seed(0)
    rows = step(teacher, x, t, s, generator=seeded())
    if make not in (Ancestral, Renoising):
        torch.testing.assert_close(
            rows, torch.cat([step(teacher, x[i : i + 1], t[i], s[i]) for i in range(3)])
        )


def test_gradients_through_a_step() -> None:
    """Of the mean of x_s in x_t, against central differences."""
    teacher = mixture(VPLinear())
    x, t, s = (
        noised(teacher, ONE, 1)[1].requires_grad_(),
        torch.tensor(0.7).double(),
        torch.tensor(0.2).double(),
    )
    for make in (DDIM, Heun, partial(ProbabilityFlow, method="rk4")):
        torch.autograd.gradcheck(
            partial(make(teacher.schedule, 4).step, teacher, t=t, s=s), x, atol=1e-5
        )


@pytest.mark.parametrize(
    "make", [DDIM, Ancestral, Heun, ProbabilityFlow, Renoising], ids=lambda c: c.__name__
)
def test_meta_tensors_pass(make) -> None:
    teacher, x_T = (
        mixture(VPLinear()).to("meta"),
        torch.empty(4, 2, device="meta", dtype=torch.float64),
    )
    sampler: ReverseSampler = make(teacher.schedule, 3)
    assert sampler.sample(teacher, x_T).is_meta
    if isinstance(sampler, ProbabilityFlow):
        assert sampler.log_prob(teacher, x_T).shape == (4,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDIM(VE(), 0), "DDIM: num_steps must be an integer >= 1, got 0"),
        (lambda: DDIM(VE(), 3, eta=1.5), r"eta must be in \[0, 1\], got 1.5"),
        (
            lambda: Heun(VE(), 3, "cosine"),
            "grid must be one of time, log_snr, karras, or with VPDiscrete .* got .cosine.",
        ),
        (
            lambda: ProbabilityFlow(VE(), method="rk45"),
            "method must be one of euler, .*, got 'rk45'",
        ),
        (
            lambda: ProbabilityFlow(VE(), method="rk4"),
            "num_steps must be an integer >= 1, got 0",
        ),
        (lambda: ProbabilityFlow(VE(), rtol=0.0), "rtol must be finite and positive, got 0.0"),
        (
            lambda: ProbabilityFlow(VE()).flow(mixture(VE()), torch.zeros(3, 2), torch.zeros(2)),
            r"log_prob_T must have shape \(3,\), got \(2,\)",
        ),
        (
            lambda: ProbabilityFlow(VE()).step(
                mixture(VE()), torch.zeros(2, 2), torch.ones(2), torch.zeros(2)
            ),
            r"t and s must be scalars, got shapes \(2,\) and \(2,\)",
        ),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_divergence_is_reported() -> None:
    with pytest.raises(FloatingPointError, match="a sample of DDIM diverged"):
        DDIM(VE(), 3).sample(lambda x, t: x / 0, torch.ones(3, 2))


@pytest.mark.parametrize("name", SAMPLERS)
def test_run_yields_every_step_and_sample_is_its_last(name):
    """Each x is one step from the one before; the times lead from 1 to 0."""
    schedule = VPCosine()
    sampler, x_T = replace(SAMPLERS[name](schedule), num_steps=5), torch.randn(3, 2).double()
    denoise = GaussianMixtureDenoiser([1.0], torch.zeros(1, 2).double(), [0.5], schedule)
    states = list(sampler.run(denoise, x_T, generator=seeded(1)))
    assert [float(t) for t, _, _ in states] == sampler.times(x_T)[:-1].tolist()
    assert [float(s) for _, s, _ in states] == sampler.times(x_T)[1:].tolist()
    x, generator = x_T, seeded(1)
    for t, s, x_s in states:
        x = sampler.step(denoise, x, t, s, generator=generator)
        torch.testing.assert_close(x_s, x)
    assert torch.equal(states[-1][2], sampler.sample(denoise, x_T, generator=seeded(1)))
