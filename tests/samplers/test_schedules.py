"""Schedules: identities of the frames, inverses, known formulas, precision, refusals."""

import math

import pytest
import torch
from torch import Tensor

from samplers import VE, Karras, Rectified, Schedule, VPCosine, VPDiscrete, VPLinear
from samplers.schedules import broadcast

VARIANCE_PRESERVING = [
    VPLinear(),
    VPCosine(),
    VPDiscrete(),
    VPDiscrete(100, 0.00085, 0.012, "scaled_linear"),
    VPDiscrete(betas="squaredcos_cap_v2"),
]
EXPLODING = [VE(), Karras()]
SCHEDULES = [
    *VARIANCE_PRESERVING,
    *EXPLODING,
    Rectified(),
    Rectified(-6.0, 9.0),
    VPCosine(-3.0, 6.0),
]


def ticks(num: int = 997) -> Tensor:
    return torch.linspace(0, 1, num, dtype=torch.float64)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_log_snr_falls_and_is_inverted(schedule: Schedule) -> None:
    t = ticks()
    log_snr = schedule.log_snr(t)
    assert (log_snr.diff() < 0).all()
    torch.testing.assert_close(schedule.time(log_snr), t, rtol=0, atol=1e-12)
    inside = torch.linspace(*schedule.log_snr_range, 501, dtype=torch.float64)
    torch.testing.assert_close(schedule.log_snr(schedule.time(inside)), inside, rtol=0, atol=1e-9)
    assert schedule.log_snr_range == pytest.approx((log_snr[-1].item(), log_snr[0].item()))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_coefficients_have_that_log_snr_in_the_frame_of_the_schedule(schedule: Schedule) -> None:
    t = ticks()
    alpha, sigma = schedule(t)
    assert alpha.isfinite().all()
    assert (alpha > 0).all()
    assert (sigma > 0).all()
    torch.testing.assert_close(2 * (alpha / sigma).log(), schedule.log_snr(t), rtol=0, atol=1e-10)
    torch.testing.assert_close(schedule.ve_sigma(t), sigma / alpha)
    torch.testing.assert_close(
        schedule.time(-2 * schedule.ve_sigma(t).log()), t, rtol=0, atol=1e-12
    )
    if isinstance(schedule, VE | Karras):
        assert torch.equal(alpha, torch.ones_like(t))
    elif isinstance(schedule, Rectified):
        torch.testing.assert_close(alpha + sigma, torch.ones_like(t), rtol=0, atol=1e-15)
    else:
        torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t), rtol=0, atol=1e-15)


def test_linear_betas_are_the_derivative_of_log_alpha() -> None:
    """``-2 d log alpha / du = beta(u)`` on the whole of u, which starts at the log-SNR asked
    for.
    """
    schedule, t = VPLinear(0.1, 20.0, 13.0), ticks(20_001)
    log_alpha = schedule(t)[0].log()
    slope = -2 * (log_alpha[2:] - log_alpha[:-2]) / (t[2:] - t[:-2])
    torch.testing.assert_close(slope, 0.1 + t[1:-1] * 19.9, rtol=1e-3, atol=1e-3)
    assert schedule.log_snr_range[1] == pytest.approx(13.0)
    assert -2 * log_alpha[-1].item() == pytest.approx((0.1 + 20.0) / 2)


def test_cosine_rectified_and_karras_are_their_formulas() -> None:
    t = ticks()
    torch.testing.assert_close(
        VPCosine(-30.0, 30.0)(t)[0], (math.pi * t / 2).cos(), rtol=0, atol=1e-6
    )
    alpha, sigma = Rectified()(t)
    torch.testing.assert_close(sigma, 1e-4 + (1 - 2e-4) * t, rtol=0, atol=1e-12)
    torch.testing.assert_close(alpha, 1 - sigma, rtol=0, atol=1e-12)
    sigma = Karras(0.002, 80.0, 7.0)(t)[1]
    torch.testing.assert_close(
        sigma ** (1 / 7), torch.lerp(sigma[0] ** (1 / 7), sigma[-1] ** (1 / 7), t)
    )
    assert (sigma[0].item(), sigma[-1].item()) == pytest.approx((0.002, 80.0))
    sigma = VE(0.01, 50.0)(ticks(3))[1]
    assert sigma.tolist() == pytest.approx([0.01, math.sqrt(0.01 * 50.0), 50.0])


@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_discrete_steps_are_products_of_betas(betas: str) -> None:
    """An independent loop over the training steps, in plain numbers."""
    num, start, end, product = 50, 1e-3, 0.3, 1.0
    schedule = VPDiscrete(num, start, end, betas)
    alpha, _ = schedule(torch.arange(num).double() / (num - 1))
    for i in range(num):
        if betas == "linear":
            beta = start + (end - start) * i / (num - 1)
        elif betas == "scaled_linear":
            beta = (start**0.5 + (end**0.5 - start**0.5) * i / (num - 1)) ** 2
        else:
            bar = [math.cos((u / num + 0.008) / 1.008 * math.pi / 2) ** 2 for u in (i, i + 1)]
            beta = min(1 - bar[1] / bar[0], 0.999)
        product *= 1 - beta
        assert alpha[i].item() == pytest.approx(math.sqrt(product), rel=1e-6)


def test_discrete_positions() -> None:
    schedule = VPDiscrete()
    i = torch.arange(1000)
    position = schedule.position(schedule.log_snr(i / 999.0))
    assert torch.equal(position.round().long(), i)
    torch.testing.assert_close(
        position, i.double(), rtol=0, atol=1e-4
    )  # i / 999 was rounded to single precision
    halfway = (schedule.log_snr(ticks(1000))[:-1] + schedule.log_snr(ticks(1000))[1:]) / 2
    torch.testing.assert_close(
        schedule.position(halfway), i[:-1].double() + 0.5, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int64])
def test_everything_is_float64_of_the_same_shape(schedule: Schedule, dtype: torch.dtype) -> None:
    t = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    for a in (
        *schedule(t),
        schedule.log_snr(t),
        schedule.ve_sigma(t),
        schedule.time(schedule.log_snr(t)),
    ):
        assert a.dtype == torch.float64
        assert a.shape == (2, 2)
    assert schedule(t[0, 0])[0].shape == ()
    assert schedule(t.to("meta"))[1].is_meta
    assert schedule.time(t.to("meta")).is_meta


def test_clean_ends_keep_their_digits() -> None:
    """``1 - alpha^2`` at log-SNR 30 is 9e-14, below single precision and near the end of
    double.
    """
    alpha, sigma = VPCosine(-30.0, 30.0)(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(sigma[0], torch.tensor(math.exp(-15)).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(alpha[1], torch.tensor(math.exp(-15)).double(), rtol=1e-6, atol=0)


def test_coefficients_broadcast_over_events() -> None:
    x = torch.zeros(3, 2, 4)
    assert broadcast(torch.ones(3).double(), x).shape == (3, 1, 1)
    assert broadcast(torch.tensor(1.0).double(), x).shape == ()
    assert broadcast(torch.ones(3).double(), x).dtype == torch.float32


def test_schedules_are_values() -> None:
    schedule = VPDiscrete()
    schedule.log_snr(ticks())  # whatever is remembered
    assert schedule == VPDiscrete()
    assert hash(schedule) == hash(VPDiscrete())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VPLinear(-0.1), "beta_min must be finite and positive, got -0.1"),
        (
            lambda: VPLinear(20.0, 0.1),
            "beta_min must be finite and below beta_max, got 20.0 and 0.1",
        ),
        (lambda: VPLinear(log_snr_max=-11.0), "log_snr_max, got -10.0.* and -11.0"),
        (
            lambda: VPCosine(3.0, 1.0),
            "log_snr_min must be finite and below log_snr_max, got 3.0 and 1.0",
        ),
        (lambda: VPDiscrete(1), "below num_train_steps, got 1 and 1"),
        (lambda: VPDiscrete(beta_end=1.5), "beta_end must be finite and below 1, got 1.5 and 1"),
        (lambda: VPDiscrete(betas="cosine"), "betas must be one of linear, .*, got 'cosine'"),
        (lambda: VE(0.0), "sigma_min must be finite and positive, got 0.0"),
        (lambda: VE(2.0, 1.0), "sigma_min must be finite and below sigma_max, got 2.0 and 1.0"),
        (lambda: Karras(rho=0.0), "rho must be finite and positive, got 0.0"),
        (lambda: Rectified(-math.inf), "Rectified: log_snr_min must be finite, got -inf"),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_ends_of_a_cosine_are_its_arguments() -> None:
    """To the last bit, so that a rule may be given the same numbers."""
    assert VPCosine(-6.0, 8.0).log_snr_range == (-6.0, 8.0)
