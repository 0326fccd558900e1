"""What constructors and functions refuse, and in which words."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from samplers import (
    DDIM,
    MALA,
    Annealed,
    Banana,
    Gaussian,
    GaussianMixture,
    GradientFlow,
    Langevin,
    LowPrecision,
    ParallelTempering,
    PersistentChains,
    Tempered,
    VPCosine,
    ess,
    kernel_stein_discrepancy,
    log_mean_exp,
)


def standard(x: Tensor) -> Tensor:
    return -0.5 * x.flatten(1).square().sum(1)


def nowhere() -> Tensor:
    x = torch.zeros(4, 2)
    x[1, 0] = torch.nan
    return x


@pytest.mark.parametrize(
    ("log_density", "got"),
    [
        (lambda x: None, "NoneType"),
        (lambda x: (standard(x),), "tuple"),
        (lambda x: standard(x.detach()).numpy(force=True), "ndarray"),
        (lambda x: standard(x) * 1j, "torch.complex64"),
    ],
)
def test_what_is_no_tensor_of_real_numbers(log_density: Any, got: str) -> None:
    for sampler in (Langevin(0.1, 2), MALA(0.1, 2), GradientFlow(0.1)):
        with pytest.raises(
            ValueError, match=f"log_density must return a tensor of real numbers.* got {got}"
        ):
            sampler.sample(log_density, torch.zeros(4, 2))


EYE: Any = torch.eye(2)
MIXTURE = GaussianMixture(torch.full((2,), 0.5), torch.eye(2), torch.ones(2))
WRONG: Any = None
KSD = partial(kernel_stein_discrepancy, standard)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Annealed(WRONG, (0.5, 1.0)), "Annealed: sampler must be a Sampler, got None"),
        (
            lambda: ParallelTempering(WRONG, (0.5, 1.0)),
            "ParallelTempering: sampler must be a Sampler",
        ),
        (lambda: LowPrecision(WRONG), "LowPrecision: sampler must be a Sampler"),
        (lambda: Annealed(MALA(0.1, 1), WRONG), "ladder must increase from above 0 to 1, got"),
        (
            lambda: Annealed(MALA(0.1, 1), (WRONG, 1.0)),
            "ladder must increase from above 0 to 1, got",
        ),
        (lambda: DDIM(WRONG, 3), "DDIM: schedule must be a Schedule, got None"),
        (lambda: VPCosine(WRONG), "VPCosine: log_snr_min must be finite, got None"),
        (
            lambda: Tempered(standard, torch.nan),
            "Tempered: beta must be finite and non-negative, got nan",
        ),
        (lambda: Gaussian([torch.nan, 0.0], EYE), "mean must be finite, got"),
        (
            lambda: Gaussian([0.0, 0.0], EYE)(torch.zeros(4, 1)),
            r"x must have shape \(num, 2\), got \(4, 1\)",
        ),
        (
            lambda: Gaussian([0.0, 0.0], EYE).sample(-1),
            "Gaussian: num must be an integer >= 0, got -1",
        ),
        (
            lambda: GaussianMixture([0.5, torch.inf], EYE, [1.0, 1.0]),
            "weights must be finite, got",
        ),
        (lambda: MIXTURE(torch.zeros(4, 1)), r"x must have shape \(num, 2\), got \(4, 1\)"),
        (lambda: Banana(WRONG), "Banana: curvature must be finite, got None"),
        (lambda: Banana()(torch.zeros(4, 3)), r"x must have shape \(num, 2\), got \(4, 3\)"),
        (lambda: KSD(nowhere()), "position must be finite at the start: 1 of 4"),
        (
            lambda: KSD(torch.zeros(4, 2), scale=torch.inf),
            "scale must be finite and positive, got inf",
        ),
        (lambda: KSD(torch.zeros(4, 2).long()), "x must be a floating tensor"),
        (lambda: ess(WRONG), "draws must be a Tensor, got None"),
        (
            lambda: log_mean_exp(torch.tensor([torch.nan])),
            "log_weight must be finite or -inf, got nan",
        ),
        (
            lambda: PersistentChains(4, 2).pick(-1),
            "PersistentChains: num must be an integer >= 0, got -1",
        ),
        (
            lambda: GradientFlow(0.1).log_prob(
                standard, torch.zeros(4, 2), lambda x: standard(x)[:, None]
            ),
            r"base_log_prob\(x0\) must have shape \(4,\), got \(4, 1\)",
        ),
    ],
)
def test_bad_arguments(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "index", [torch.tensor([0.0]), torch.tensor([True]), torch.tensor([[0, 1]]), [0, 1]], ids=str
)
def test_indices_are_integers(index: Any) -> None:
    with pytest.raises(ValueError, match=r"index must be a tensor of integers \(n,\), got"):
        PersistentChains(4, 2).advance(MALA(0.1, 1), standard, index)


def test_an_euler_flow_from_nowhere() -> None:
    flow = GradientFlow(0.1, "euler", 2)
    with pytest.raises(FloatingPointError, match="position must be finite: 1 of 4"):
        flow.euler_flow(standard, nowhere(), torch.zeros(4))
    with pytest.raises(FloatingPointError, match="log_prob must be finite: 4 of 4"):
        flow.euler_flow(standard, torch.zeros(4, 2), torch.full((4,), torch.nan))


def test_low_precision_on_meta() -> None:
    assert (
        LowPrecision(Langevin(0.1, 2)).sample(standard, torch.zeros(4, 2, device="meta")).is_meta
    )


def test_whole_numbers_make_a_target() -> None:
    x = torch.randn(3, 2)
    torch.testing.assert_close(Gaussian([0, 0], [[1, 0], [0, 1]])(x), standard(x))
    assert MIXTURE.sample(0).shape == (0, 2)
