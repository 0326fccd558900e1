"""What reverse samplers refuse of denoisers, schedules, starts and times, and the steps that
invert them.
"""

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
    ProbabilityFlow,
    Renoising,
    ReverseSampler,
    Schedule,
    VPCosine,
    VPLinear,
    bridge,
)
from tests.samplers.table import seeded
from tests.samplers.test_reverse import SCHEDULES, gaussian, mixture


class Odd(GaussianMixtureDenoiser):
    """A denoiser whose answer is changed by ``make``."""

    def __init__(self, make) -> None:
        super().__init__(torch.ones(1), [[0.7, -0.4]], [0.5], VPLinear())
        self.make = make

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:  # pyright: ignore
        return self.make(super().forward(x_t, t))


NOISY = [
    Ancestral(VPLinear(), 3),
    DDIM(VPLinear(), 3, eta=0.2),
    Renoising(VPLinear(), 3),
]
EVERY = pytest.mark.parametrize(
    "sampler",
    [
        Ancestral(VPLinear(), 3),
        DDIM(VPLinear(), 3),
        DDIM(VPLinear(), 3, eta=0.5),
        Heun(VPLinear(), 3),
        ProbabilityFlow(VPLinear()),
        ProbabilityFlow(VPLinear(), 3, "rk4"),
    ],
    ids=str,
)


@EVERY
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda x: x[:, :1],
            r"x_0 must be like x_t, torch.float32 of shape \(4, 2\), got torch.float32 of shape "
            r"\(4, 1\)",
        ),
        (lambda x: x[:1], r"x_0 must be like x_t, .* got torch.float32 of shape \(1, 2\)"),
        (lambda x: x.double(), "x_0 must be like x_t, .* got torch.float64"),
        (lambda x: (x,), "x_0 must be like x_t, .* got tuple"),
    ],
)
def test_what_a_denoiser_returns_is_checked(sampler: ReverseSampler, make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler.sample(Odd(make), torch.zeros(4, 2))
    if isinstance(sampler, ProbabilityFlow):
        with pytest.raises(ValueError, match=message), torch.no_grad():
            sampler.log_prob(Odd(make), torch.zeros(4, 2))


@EVERY
def test_lower_precision_inside_a_denoiser_is_allowed(sampler: ReverseSampler) -> None:
    x = sampler.sample(Odd(lambda x: x.bfloat16()), torch.ones(4, 2), generator=seeded())
    assert x.dtype == torch.float32


@EVERY
def test_another_schedule_is_refused(sampler: ReverseSampler) -> None:
    teacher = gaussian(VPCosine()).float()
    message = r"schedule must be that of the denoiser, VPCosine\(.*\), got VPLinear"
    for denoise in (teacher, partial(teacher, label=None), partial(partial(teacher), label=None)):
        with pytest.raises(ValueError, match=message):
            sampler.sample(denoise, torch.zeros(4, 2))
    sampler.sample(
        gaussian(VPLinear()).float(), torch.zeros(4, 2), generator=seeded()
    )  # equal, not the same


@EVERY
def test_starts_are_checked(sampler: ReverseSampler) -> None:
    teacher = gaussian(VPLinear()).float()
    x_T = torch.zeros(4, 2)
    for wrong in (x_T.long(), x_T[:, 0]):
        with pytest.raises(ValueError, match=r"x_T must be a floating tensor .* got torch"):
            sampler.sample(teacher, wrong)
    x_T[2, 1] = torch.nan
    with pytest.raises(ValueError, match=r"(x_T|x and its log-density) must be finite.* 1 of"):
        sampler.sample(teacher, x_T)
    assert sampler.sample(teacher, torch.zeros(0, 2)).shape == (0, 2)
    with pytest.raises(ValueError, match=r"x_t must have events of shape \(2,\), got \(1,\)"):
        sampler.sample(teacher, torch.zeros(4, 1))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_deterministic_steps_to_the_same_time_do_nothing(schedule: Schedule) -> None:
    teacher, time = mixture(schedule), torch.tensor(0.3).double()
    x = teacher.sample(5, generator=seeded())
    for sampler in (DDIM(schedule, 1), Heun(schedule, 1)):
        torch.testing.assert_close(sampler.step(teacher, x, time, time), x)


@pytest.mark.parametrize("t", [torch.tensor(0.3), torch.tensor([0.3, 0.8])])
@pytest.mark.parametrize("sampler", NOISY, ids=str)
def test_noisy_steps_do_not_lead_to_noisier_times(sampler: ReverseSampler, t: Tensor) -> None:
    teacher, x, s = gaussian(VPLinear()).float(), torch.zeros(2, 2), torch.tensor(0.5)
    with pytest.raises(ValueError, match="s must be at most t where fresh noise is drawn"):
        sampler.step(teacher, x, t, s)
    assert sampler.step(teacher, x, s, s, generator=seeded()).isfinite().all()


@pytest.mark.parametrize("sampler", NOISY, ids=str)
def test_noisy_samplers_do_not_invert(sampler: ReverseSampler) -> None:
    message = r"invert needs a sampler that draws no noise, such as .*, got \w+\(schedule=VPLin"
    with pytest.raises(ValueError, match=message):
        next(sampler.invert(gaussian(VPLinear()).float(), torch.zeros(2, 2)))


def test_starts_of_an_inversion_are_checked() -> None:
    x = torch.zeros(4, 2)
    x[2, 1] = torch.nan
    teacher = gaussian(VPLinear()).float()
    with pytest.raises(ValueError, match="x_0 must be finite: 1 of 4 rows are not"):
        list(DDIM(VPLinear(), 3).invert(teacher, x))
    with pytest.raises(ValueError, match=r"x_0 must be a floating tensor .* got torch.int64"):
        next(DDIM(VPLinear(), 3).invert(teacher, x.long()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, t: bridge(VE(), x, x, t, t, eta=1.5), r"eta must be in \[0, 1\], got 1.5"),
        (lambda x, t: bridge(VE(), x[:1], x, t, t), "x_0 must be like x_t"),
        (
            lambda x, t: bridge(VE(), x, x, t.expand(3), t),
            r"times must be a scalar or of shape \(4,\), got \(3,\)",
        ),
    ],
)
def test_shapes_of_a_bridge(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(4, 2), torch.tensor(0.5))
