"""How log-densities add up, and what their gradients promise."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from samplers import (
    HMC,
    MALA,
    Annealed,
    Density,
    Gaussian,
    GradientFlow,
    Langevin,
    LowPrecision,
    ParallelTempering,
    Sampler,
    Score,
    UnderdampedLangevin,
    annealed_importance,
    as_density,
    gradient_function,
    kernel_stein_discrepancy,
    value_and_grad,
)
from samplers.densities import Recorded, Total
from tests.samplers.table import correlated_gaussian, seeded

PRECISION = torch.tensor([0.5, 2.0]).double()


class Written(Density):
    """``-x^T diag(PRECISION) x / 2``, all in closed form; its workspace is written over."""

    def __call__(self, x: Tensor) -> Tensor:
        return -0.5 * (PRECISION * x.square()).sum(1)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), -PRECISION * x

    def workspace(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        out = torch.empty_like(x)
        return lambda x: torch.mul(x, -PRECISION, out=out)

    def grad_and_laplacian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return -PRECISION * x, x.new_full((len(x),), float(-PRECISION.sum()))


class Network(nn.Module, Density):
    """A module that is a density, known by its value alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).tanh().sum(1)


def quartic(x: Tensor) -> Tensor:
    return -0.25 * x.pow(4).sum(1)


WRITTEN, NETWORK, GAUSSIAN = Written(), Network(), correlated_gaussian()
BETA = torch.tensor([0.1, 0.4, 0.7, 0.9, 1.0]).double()
SUMS = {
    "minus": (WRITTEN - NETWORK, lambda x: WRITTEN(x) - NETWORK(x)),
    "times": (0.3 * GAUSSIAN, lambda x: 0.3 * GAUSSIAN(x)),
    "per chain": (BETA * WRITTEN, lambda x: BETA * WRITTEN(x)),
    "plus per chain": (
        NETWORK + BETA * WRITTEN,
        lambda x: NETWORK(x) + BETA * WRITTEN(x),
    ),
    "plus a function": (GAUSSIAN + quartic, lambda x: GAUSSIAN(x) + quartic(x)),
    "a function plus": (quartic + NETWORK, lambda x: quartic(x) + NETWORK(x)),
    "a function minus": (quartic - WRITTEN, lambda x: quartic(x) - WRITTEN(x)),
    "negative": (-NETWORK, lambda x: -NETWORK(x)),
    "nested": (
        2.0 * (WRITTEN - 0.5 * NETWORK) + GAUSSIAN - quartic,
        lambda x: 2 * WRITTEN(x) - NETWORK(x) + GAUSSIAN(x) - quartic(x),
    ),
}


@pytest.mark.parametrize("name", SUMS)
def test_a_sum_has_value_gradient_workspace_and_laplacian_of_its_terms(name: str) -> None:
    density, plain = SUMS[name]
    x, other = torch.randn(2, 5, 2, generator=seeded()).double()
    known = as_density(plain)
    for form in (density, density.settled()):
        torch.testing.assert_close(form(x), plain(x))
        torch.testing.assert_close(form.value_and_grad(x), known.value_and_grad(x))
        torch.testing.assert_close(form.gradient(x), known.gradient(x))
        torch.testing.assert_close(form.grad_and_laplacian(x), known.grad_and_laplacian(x))
        with torch.no_grad():
            gradient = form.workspace(x)
            for point in (x, other, x):
                torch.testing.assert_close(gradient(point), known.gradient(point))


def test_sums_are_flat_and_closed_forms_are_not_recorded() -> None:
    density = WRITTEN + GAUSSIAN - 0.5 * WRITTEN
    assert [weight for weight, _ in density.terms()] == [1.0, 1.0, -1.0]
    assert [type(term) for _, term in density.terms()] == [Written, Gaussian, Total]
    with torch.inference_mode():  # where nothing can be recorded
        x = torch.randn(4, 2).double()
        density.value_and_grad(x)
        density.workspace(x)(x)
        density.gradient(x)
    with pytest.raises(ValueError, match="must have one term or more"):
        Total()


def test_terms_are_checked() -> None:
    x = torch.zeros(4, 2).double()
    for wrong in (lambda x: x, lambda x: x.sum()):
        for call in ((WRITTEN + wrong), (WRITTEN + wrong).value_and_grad):
            with pytest.raises(ValueError, match=r"log_density must return shape \(4,\)"):
                call(x)
    for call in (BETA * WRITTEN, (BETA * WRITTEN).value_and_grad, (BETA * WRITTEN).gradient):
        with pytest.raises(ValueError, match=r"must have shape \(4,\), got \(5,\)"):
            call(x)


def adams_bashforth(gradient: Callable[[Tensor], Tensor], x: Tensor, step: float, num: int):
    """``dx/dt = grad log p`` by a method of two steps, which keeps the gradient of the last."""
    last = gradient(x)
    x = x + step * last - step**2 / 2 * PRECISION * last  # a Taylor step of second order
    for _ in range(num - 1):
        grad = gradient(x)
        x, last = x + step * (1.5 * grad - 0.5 * last), grad
    return x


def test_gradients_can_be_kept() -> None:
    """Where a gradient is written over by the next, the method has the order 1 of another."""
    x = torch.randn(6, 2, generator=seeded()).double()
    exact = x * (-PRECISION).exp()  # after a time of 1
    for density in (WRITTEN, WRITTEN + 0.0 * GAUSSIAN):
        with torch.no_grad():
            for gradient in (gradient_function(density, x), density.gradient):
                ends = [adams_bashforth(gradient, x, 1 / num, num) for num in (20, 40)]
                coarse, fine = ((end - exact).abs().max() for end in ends)
                assert 3.5 < coarse / fine < 4.5


def test_a_workspace_is_written_over() -> None:
    x = torch.randn(6, 2, generator=seeded()).double()
    with torch.no_grad():
        gradient = (WRITTEN + GAUSSIAN).workspace(x)
        first = gradient(x)
        kept = first.clone()
        assert gradient(2 * x) is first
    assert not torch.equal(first, kept)


def test_a_recorded_density_keeps_the_graph() -> None:
    x = torch.randn(3, 2, generator=seeded()).double().requires_grad_()
    value, grad = value_and_grad(Recorded(NETWORK), x)
    assert value.requires_grad
    torch.autograd.grad(grad.square().sum(), [x, NETWORK.layer.weight])


class StandardScore(Score):
    """The score of N(0, I)."""

    def gradient(self, x: Tensor) -> Tensor:
        return -x


UNADJUSTED = [
    Langevin(0.1, 6),
    LowPrecision(Langevin(0.1, 6)),
    UnderdampedLangevin(0.3, 1.0, 6),
    GradientFlow(1.0, "rk4", 6),
]
ADJUSTED = [
    MALA(0.1, 6),
    HMC(0.1, 2, 6),
    LowPrecision(MALA(0.1, 6)),
    ParallelTempering(Langevin(0.1, 6), (0.5, 1.0)),
    Annealed(Langevin(0.1, 6), (0.5, 1.0)),
]


@pytest.mark.parametrize("sampler", UNADJUSTED, ids=str)
def test_a_score_is_enough_without_a_metropolis_test(sampler: Sampler) -> None:
    x = torch.randn(20, 3, generator=seeded()).double()
    density = Gaussian(torch.zeros(3).double(), torch.eye(3).double())
    ends = (sampler.sample(f, x, generator=seeded(1)) for f in (StandardScore(), density))
    torch.testing.assert_close(*ends)
    *_, (state, _) = sampler.run(StandardScore(), x, generator=seeded(1))
    assert torch.equal(state.log_density, torch.zeros(20).double())


@pytest.mark.parametrize("sampler", ADJUSTED, ids=str)
def test_what_compares_values_refuses_a_score(sampler: Sampler) -> None:
    message = "log_density must have a value, got StandardScore, which is known by its gradient"
    score, x = StandardScore(), torch.zeros(4, 2)
    state = Langevin(0.1, 1).init(score, x)
    calls = [
        lambda: sampler.sample(score, x),
        lambda: list(sampler.run(score, x)),
        lambda: value_and_grad(score, x),
        lambda: kernel_stein_discrepancy(score, x),
        lambda: annealed_importance(score, score, x, sampler, 2),
        lambda: 0.5 * as_density(score),
    ]
    if sampler.is_adjusted:
        calls.append(lambda: sampler.step(score, state))
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


def test_sum_of_python_and_arrays_of_numpy() -> None:
    x = torch.randn(5, 2)
    first, second = Gaussian(torch.zeros(2), torch.eye(2)), Gaussian(torch.ones(2), torch.eye(2))
    assert torch.equal(sum([first, second])(x), first(x) + second(x))
    assert torch.allclose((np.float64(2) * first)(x), 2 * first(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p * p, "weight must be finite, got <samplers"),
        (lambda p: p * "2", "weight must be finite, got '2'"),
        (lambda p: math.nan * p, "weight must be finite, got nan"),
        (lambda p: np.ones(5) * p, r"weight must be finite, got array"),
        (lambda p: p + 1.0, "function of positions, got 1.0"),
        (lambda p: 1 - p, "function of positions, got 1"),
        (lambda p: p - None, "function of positions, got None"),
    ],
)
def test_what_is_no_density_is_refused_where_it_is_added(
    make: Callable[[Density], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(Gaussian(torch.zeros(2), torch.eye(2)))
