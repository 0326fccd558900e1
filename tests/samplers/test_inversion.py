"""From data to noise and back: the exact flow of a Gaussian, and declared orders on a mixture."""

from functools import partial

import pytest
import torch
from torch import Tensor

from latent_ebm.denoisers import GaussianMixtureDenoiser
from samplers import (
    DDIM,
    VE,
    Heun,
    Karras,
    ProbabilityFlow,
    Rectified,
    ReverseSampler,
    Schedule,
    VPCosine,
    VPDiscrete,
    VPLinear,
)
from samplers.ode import FIXED_STEP
from tests.samplers.table import seeded
from tests.samplers.test_reverse import SCHEDULES, gaussian, mixture

ONE, ZERO = torch.ones(()).double(), torch.zeros(()).double()


def end(sampler: ReverseSampler, denoise: GaussianMixtureDenoiser, x_0: Tensor) -> Tensor:
    """The noise that ``invert`` ends in."""
    return list(sampler.invert(denoise, x_0))[-1][2]


def gaussian_flow(teacher: GaussianMixtureDenoiser, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """``m_s + C_s^(1/2) C_t^(-1/2) (x - m_t)``, with the mean and covariance of noised data."""
    (alpha, sigma), (alpha_s, sigma_s) = teacher.schedule(t), teacher.schedule(s)
    values, axes = torch.linalg.eigh(torch.tensor([[0.5, 0.3], [0.3, 0.4]]).double())
    stretch = ((alpha_s**2 * values + sigma_s**2) / (alpha**2 * values + sigma**2)).sqrt()
    mean = teacher.means[0]
    return alpha_s * mean + (x - alpha * mean) @ (axes * stretch) @ axes.mT


EXACT = [
    (lambda schedule: DDIM(schedule, 1000, grid="log_snr"), 2e-2),
    (lambda schedule: Heun(schedule, 500, grid="log_snr"), 2e-4),
    (partial(ProbabilityFlow, rtol=1e-8, atol=1e-8), 1e-6),
]


@pytest.mark.parametrize(("make", "error"), EXACT, ids=["ddim", "heun", "flow"])
@pytest.mark.parametrize("schedule", [VPLinear(), Karras()], ids=lambda s: type(s).__name__)
def test_both_ways_are_the_flow_of_a_gaussian(schedule: Schedule, make, error: float) -> None:
    teacher, sampler = gaussian(schedule), make(schedule)
    x_0 = teacher.sample(20, generator=seeded())
    x_T = gaussian_flow(teacher, x_0, ZERO, ONE)
    there, back = end(sampler, teacher, x_0), sampler.sample(teacher, x_T)
    scale = x_T.std() / x_0.std()
    torch.testing.assert_close(there, x_T, rtol=0, atol=error * float(scale))
    torch.testing.assert_close(back, x_0, rtol=0, atol=error)


ORDERS = [(DDIM, 1, "karras"), (DDIM, 1, "log_snr"), (Heun, 2, "log_snr")]
ORDERS += [(partial(ProbabilityFlow, method="rk4"), FIXED_STEP["rk4"], "log_snr")]


@pytest.mark.cpu
@pytest.mark.parametrize(("make", "order", "grid"), ORDERS)
@pytest.mark.parametrize("schedule", [VPLinear(), Karras()], ids=lambda s: type(s).__name__)
def test_inversion_has_the_declared_order(schedule: Schedule, make, order: int, grid: str) -> None:
    """Against the exact flow. Both ways together have one order more if the order is even: an
    error in ``h^(order + 1)`` then changes its sign with the step h, and cancels.
    """
    teacher = mixture(schedule)
    x_0 = teacher.sample(60, generator=seeded())
    x_T = end(ProbabilityFlow(schedule, rtol=1e-11, atol=1e-11), teacher, x_0)
    one_way, both_ways = [], []
    for num_steps in (64, 128):
        sampler = make(schedule, num_steps, grid=grid)
        found = end(sampler, teacher, x_0)
        one_way.append((found - x_T).abs().mean().log2().item())
        both_ways.append((sampler.sample(teacher, found) - x_0).abs().mean().log2().item())
    assert one_way[0] - one_way[1] == pytest.approx(order, abs=0.15)
    together = order + (order % 2 == 0)
    assert both_ways[0] - both_ways[1] == pytest.approx(together, abs=0.25)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("make", [DDIM, Heun, partial(ProbabilityFlow, method="rk4")], ids=str)
def test_inversion_visits_the_same_times(make, schedule: Schedule) -> None:
    """Each x is one step from the one before; the times are those of ``run``, backwards."""
    sampler, teacher = make(schedule, 4, grid="log_snr"), mixture(schedule)
    x = teacher.sample(3, generator=seeded())
    states = list(sampler.invert(teacher, x))
    times = sampler.times(x).flip(0)
    assert [float(t) for t, _, _ in states] == times[:-1].tolist()
    assert [float(s) for _, s, _ in states] == times[1:].tolist()
    for t, s, x_s in states:
        x = sampler.step(teacher, x, t, s)
        torch.testing.assert_close(x_s, x)


@pytest.mark.parametrize("grid", ["leading", "trailing"])
def test_inversion_on_training_steps(grid: str) -> None:
    """It ends where ``run`` starts, which may be a little below t = 1."""
    sampler, teacher = DDIM(VPDiscrete(), 200, grid=grid), mixture(VPDiscrete())
    x_0 = teacher.sample(20, generator=seeded())
    states = list(sampler.invert(teacher, x_0))
    assert states[-1][1] == sampler.times(x_0)[0]
    torch.testing.assert_close(sampler.sample(teacher, states[-1][2]), x_0, atol=0.15, rtol=0)


@pytest.mark.parametrize(
    "schedule", [VPCosine(-20.0, 30.0), VE(), Rectified()], ids=lambda s: type(s).__name__
)
def test_inversion_in_single_precision(schedule: Schedule) -> None:
    x_0 = mixture(schedule).sample(20, generator=seeded())
    for sampler in (DDIM(schedule, 40, grid="log_snr"), Heun(schedule, 40, grid="log_snr")):
        single = end(sampler, mixture(schedule).float(), x_0.float())
        assert single.dtype == torch.float32
        double = end(sampler, mixture(schedule), x_0)
        torch.testing.assert_close(single.double(), double, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("make", [DDIM, Heun, ProbabilityFlow], ids=lambda c: c.__name__)
def test_inversion_of_meta_tensors(make) -> None:
    teacher = mixture(VPLinear()).to("meta")
    x_0 = torch.empty(4, 2, device="meta", dtype=torch.float64)
    assert end(make(VPLinear(), 3), teacher, x_0).is_meta
