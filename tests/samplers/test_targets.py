"""The targets are what they claim to be."""

import pytest
import torch

from samplers import Banana, Gaussian, GaussianMixture, gradient_function, value_and_grad
from tests.samplers.table import Z_MAX, correlated_gaussian, seeded, z_scores

TARGETS = [
    correlated_gaussian(),
    GaussianMixture(
        torch.tensor([0.5, 1.0, 1.5]).double(),
        torch.tensor([[-2.0, 0.0], [1.0, 1.0], [2.0, -1.0]]).double(),
        torch.tensor([0.5, 1.0, 0.7]).double(),
    ),
    GaussianMixture(
        torch.tensor([0.4, 0.6]).double(),
        torch.tensor([[-1.0, 0.0], [1.0, 1.0]]).double(),
        torch.tensor([[0.5, 1.0], [0.8, 0.6]]).double(),
    ),
    Banana(0.4, torch.tensor([1.0, 0.5]).double()),
]
every_target = pytest.mark.parametrize(
    "target", TARGETS, ids=["gaussian", "mixture", "mixture_diagonal", "banana"]
)


@every_target
def test_log_z_mean_and_covariance_on_a_grid(target: Gaussian) -> None:
    axis = torch.linspace(-14, 14, 701, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    p = (target(x) - target.log_z).exp() * (axis[1] - axis[0]) ** 2
    torch.testing.assert_close(p.sum().item(), 1.0, rtol=0, atol=1e-6)
    mean = p @ x
    torch.testing.assert_close(mean, target.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        (x - mean).mT @ (p[:, None] * (x - mean)), target.covariance, rtol=0, atol=1e-4
    )


@every_target
def test_draws_have_the_moments(target: Gaussian) -> None:
    x = target.sample(200_000, generator=seeded())
    d = x - target.mean
    assert x.dtype == torch.float64
    assert z_scores(d, torch.zeros(2)).abs().max() < Z_MAX
    outer = (d[:, :, None] * d[:, None, :]).flatten(1)
    assert z_scores(outer, target.covariance.flatten()).abs().max() < Z_MAX


@pytest.mark.parametrize("target", TARGETS[:3], ids=["gaussian", "mixture", "mixture_diagonal"])
def test_closed_form_gradient(target: Gaussian) -> None:
    x = 3 * torch.randn(50, 2, generator=seeded()).double()
    value, grad = target.value_and_grad(x)
    wanted_value, wanted_grad = value_and_grad(lambda z: target(z), x)
    torch.testing.assert_close(value, wanted_value)
    torch.testing.assert_close(grad, wanted_grad)
    assert torch.equal(gradient_function(target, x)(x), grad)


def test_values_against_torch() -> None:
    x = torch.randn(20, 2, generator=seeded()).double()
    gaussian, mixture = TARGETS[0], TARGETS[1]
    normal = torch.distributions.MultivariateNormal(gaussian.mean, gaussian.covariance)
    torch.testing.assert_close(gaussian(x) - gaussian.log_z, normal.log_prob(x))
    parts = torch.distributions.Independent(
        torch.distributions.Normal(mixture.means, mixture.scales[:, None].expand(3, 2)), 1
    )
    wanted = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(mixture.weights), parts
    )
    torch.testing.assert_close(mixture(x) - mixture.log_z, wanted.log_prob(x))


def test_lists_give_the_default_dtype() -> None:
    for target in (
        Gaussian([0.0, 1.0], [[1.0, 0.0], [0.0, 2.0]]),
        GaussianMixture([1.0], [[0.0, 0.0]], [1.0]),
        Banana(),
    ):
        assert target.sample(3).dtype == target(torch.zeros(3, 2)).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Gaussian([0.0, 0.0], [[1.0]]),
            r"covariance must have shape \(2, 2\) .* got \(1, 1\)",
        ),
        (
            lambda: Gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]),
            "covariance must be symmetric and positive definite",
        ),
        (
            lambda: Gaussian([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]]),
            "covariance must be symmetric and positive definite",
        ),
        (
            lambda: GaussianMixture([1.0, 1.0], [[0.0]], [1.0]),
            r"must agree in K, got shapes \(2,\) and \(1, 1\)",
        ),
        (
            lambda: GaussianMixture([1.0], [[0.0, 0.0]], [1.0, 1.0]),
            r"scales must have shape .* got \(2,\)",
        ),
        (lambda: GaussianMixture([0.0], [[0.0]], [1.0]), r"weights must be positive, got \[0.0\]"),
        (
            lambda: GaussianMixture([1.0], [[0.0]], [-1.0]),
            r"scales must be positive, got \[-1.0\]",
        ),
        (lambda: Banana(float("nan")), "curvature must be finite, got nan"),
        (lambda: Banana(1.0, (1.0,)), r"scales must have shape \(2,\), got \(1,\)"),
        (lambda: Banana(1.0, (1.0, 0.0)), r"scales must be positive, got \[1.0, 0.0\]"),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_tensors_stay_where_they_are_whatever_the_default_device() -> None:
    mean, covariance = torch.zeros(2, device="cpu"), torch.eye(2, device="cpu")
    with torch.device("meta"):
        target = Gaussian(mean, covariance)
        mixture = GaussianMixture(torch.ones(1, device="cpu"), mean[None], covariance[:1, 0])
    assert not target.mean.is_meta
    assert not mixture.means.is_meta
