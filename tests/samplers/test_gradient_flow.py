"""The gradient flow: closed forms, brute force, declared orders, inverse, gradients, refusals."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from samplers import MALA, Gaussian, GaussianMixture, GradientFlow, Langevin, UnderdampedLangevin
from samplers.gradient_flow import score_and_hessian, score_and_laplacian
from samplers.ode import FIXED_STEP
from tests.samplers.table import seeded, z_scores

HORIZON = 1.3


def standard_log_prob(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum(1) - x.shape[1] / 2 * math.log(2 * math.pi)


def gaussian() -> Gaussian:
    return Gaussian(torch.tensor([1.0, -2.0, 0.5]).double(), (torch.eye(3) + 0.4).double())


def mixture() -> GaussianMixture:
    means = torch.tensor([[-1.0, 0.3], [1.2, -0.4], [0.2, 1.5]]).double()
    return GaussianMixture(
        torch.tensor([0.3, 0.5, 0.2]).double(), means, torch.tensor([0.7, 0.9, 0.6]).double()
    )


def start(num: int, dim: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(num, dim, generator=seeded(3), dtype=torch.float64)
    return x, standard_log_prob(x)


class Quartic(nn.Module):
    """``-w . x^2 / 2 - sum x^4 / 10``: not Gaussian, with parameters."""

    def __init__(self, dim: int = 2) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.linspace(0.5, 1.5, dim).double())

    def forward(self, x: Tensor) -> Tensor:
        return -0.5 * (self.w * x.square()).flatten(1).sum(1) - x.pow(4).flatten(1).sum(1) / 10


@pytest.mark.parametrize("method", ["dopri5", "dopri8"])
def test_flow_to_a_gaussian_is_that_of_ornstein_and_uhlenbeck(method: str) -> None:
    """``x_t = m + exp(-P t)(x_0 - m)``, and ``log q_t`` grows by ``t tr P``: N(m - exp(-Pt) m,
    exp(-2Pt)).
    """
    target, (x0, log_prob0) = gaussian(), start(50, 3)
    x, log_prob = GradientFlow(HORIZON, method).flow(target, x0, log_prob0)
    shrink = torch.matrix_exp(-HORIZON * target.precision)
    torch.testing.assert_close(x, target.mean + (x0 - target.mean) @ shrink, rtol=1e-6, atol=1e-8)
    law = torch.distributions.MultivariateNormal(
        target.mean - target.mean @ shrink, shrink @ shrink
    )
    torch.testing.assert_close(log_prob, law.log_prob(x), rtol=1e-6, atol=0)


def test_density_is_the_change_of_variables_by_brute_force() -> None:
    """Jacobian of the whole map, one column a unit vector, by differences of flows started a
    little apart.
    """
    target, flow, (x0, log_prob0) = (
        mixture(),
        GradientFlow(HORIZON, rtol=1e-11, atol=1e-11),
        start(20, 2),
    )
    _, log_prob = flow.flow(target, x0, log_prob0)
    h = 1e-4 * torch.eye(2).double()
    columns = [(flow.sample(target, x0 + e) - flow.sample(target, x0 - e)) / 2e-4 for e in h]
    brute = log_prob0 - torch.stack(columns, 2).det().log()
    torch.testing.assert_close(log_prob, brute, rtol=0, atol=1e-4)
    assert (log_prob - log_prob0).abs().min() > 0.01


def test_exact_trace_and_hessian_are_those_of_autograd() -> None:
    target, x = mixture(), start(7, 2)[0]
    grad, laplacian = score_and_laplacian(target, x)
    full = torch.stack(
        [torch.autograd.functional.hessian(lambda y: target(y[None])[0], row) for row in x]
    )
    torch.testing.assert_close(grad, target.value_and_grad(x)[1])
    torch.testing.assert_close(laplacian, full.diagonal(dim1=1, dim2=2).sum(1))
    torch.testing.assert_close(score_and_hessian(target, x)[1], full)


def test_images_flow_too() -> None:
    model, x0 = Quartic(1), torch.randn(5, 1, 3, 4, generator=seeded(), dtype=torch.float64)
    flow = GradientFlow(0.5)
    x, log_prob = flow.flow(model, x0, torch.zeros(5).double())
    flat, flat_log_prob = flow.flow(model, x0.flatten(1), torch.zeros(5).double())
    torch.testing.assert_close(x.flatten(1), flat)
    torch.testing.assert_close(log_prob, flat_log_prob)


@pytest.mark.parametrize("method", FIXED_STEP)
def test_observed_order_is_the_declared_one(method: str) -> None:
    target, (x0, log_prob0) = mixture(), start(50, 2)
    truth = GradientFlow(HORIZON, "dopri8", rtol=1e-13, atol=1e-13).flow(target, x0, log_prob0)
    errors = []
    for num_steps in (16, 32, 64):
        found = GradientFlow(HORIZON, method, num_steps).flow(target, x0, log_prob0)
        errors.append(
            [(a - b).abs().mean().log2().item() for a, b in zip(found, truth, strict=True)]
        )
    for coarse, fine in itertools.pairwise(errors[1:]):
        for a, b in zip(coarse, fine, strict=True):
            assert a - b == pytest.approx(FIXED_STEP[method], abs=0.15)


def test_tolerances_hold_for_every_chain() -> None:
    """One fast chain among thousands of slow ones must not drown in their mean."""

    def pull(x: Tensor) -> Tensor:
        return -0.5 * x.square().sum(1) * (1 + 30 * (x[:, 0] > 5))

    x0 = torch.full((4_000, 1), 0.01).double()
    x0[0] = 40.0
    flow = GradientFlow(0.05, rtol=1e-6, atol=1e-6)
    assert flow.sample(pull, x0)[0].item() == pytest.approx(40 * math.exp(-31 * 0.05), rel=1e-5)


def test_hutchinson_is_unbiased_with_the_stated_variance() -> None:
    """Variance ``2 sum_{i != j} H_ij^2 / num_probes`` of one trace; a Gaussian's H is constant, so
    T times that.
    """
    target, num = gaussian(), 40_000
    off_diagonal = target.precision - torch.diag(target.precision.diagonal())
    flow = GradientFlow(0.5, "euler", 1, exact_dim=2, num_probes=3)
    x0 = torch.zeros(num, 3).double()
    _, gain = flow.flow(target, x0, torch.zeros(num).double(), generator=seeded())
    assert z_scores(gain[:, None], 0.5 * target.precision.trace()).abs().item() < 4.8
    variance = 0.25 * 2 * off_diagonal.square().sum() / 3
    assert gain.var().item() == pytest.approx(variance.item(), rel=0.05)


def test_density_of_given_points_inverts_the_flow() -> None:
    target, flow, (x0, log_prob0) = mixture(), GradientFlow(HORIZON), start(30, 2)
    x, log_prob = flow.flow(target, x0, log_prob0)
    point = flow.log_prob(target, x, standard_log_prob)
    torch.testing.assert_close(point.log_prob, log_prob, rtol=0, atol=1e-5)
    torch.testing.assert_close(point.x0, x0, rtol=0, atol=1e-5)
    assert point.round_trip_error.max() < 1e-6
    coarse = GradientFlow(HORIZON, "euler", 5).log_prob(target, x, standard_log_prob)
    assert coarse.round_trip_error.max() > 1e-2


def test_density_of_the_flow_integrates_to_one() -> None:
    ticks = torch.linspace(-4, 4, 81).double()
    flow = GradientFlow(0.5, rtol=1e-6, atol=1e-6)
    point = flow.log_prob(mixture(), torch.cartesian_prod(ticks, ticks), standard_log_prob)
    assert point.log_prob.exp().sum().item() * 0.01 == pytest.approx(1, abs=1e-3)


def test_euler_density_is_that_of_the_euler_maps() -> None:
    target, flow, (x0, log_prob0) = mixture(), GradientFlow(HORIZON, "euler", 12), start(10, 2)
    x, log_prob = flow.euler_flow(target, x0, log_prob0)
    torch.testing.assert_close(x, flow.sample(target, x0))
    for i in range(10):
        jacobian = torch.autograd.functional.jacobian(
            lambda y: flow.rsample(target, y[None])[0], x0[i]
        )
        torch.testing.assert_close(log_prob[i], log_prob0[i] - jacobian.det().log())
    smooth = flow.flow(target, x0, log_prob0)[1]
    assert 0.001 < (log_prob - smooth).abs().mean() < 0.5


def test_euler_step_that_folds_space_is_refused() -> None:
    target, (x0, log_prob0) = Gaussian([0.0], [[0.01]]), start(4, 1)
    steep = Gaussian(target.mean.double(), target.covariance.double())
    GradientFlow(1.0, "euler", 101).euler_flow(steep, x0, log_prob0)
    with pytest.raises(
        ValueError,
        match=r"num_steps must be large enough.* got 1\.01 in step 1 of 99 with eta = 0\.0101",
    ):
        GradientFlow(1.0, "euler", 99).euler_flow(steep, x0, log_prob0)
    with pytest.raises(ValueError, match="at most exact_dim = 2 entries per event, got 3"):
        GradientFlow(1.0, "euler", 9, exact_dim=2).euler_flow(gaussian(), *start(4, 3))


@pytest.mark.cpu
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_gradients_through_the_flow(method: str, adjoint: bool) -> None:
    """Of ``mean |F(x)|^2`` and of the entropy of q_T in a parameter, against central
    differences.
    """
    flow = GradientFlow(0.5, method, 10 if method == "rk4" else 1, adjoint=adjoint)
    model, (x0, log_prob0) = Quartic(), start(3, 2)

    def losses() -> tuple[Tensor, Tensor]:
        return flow.rsample(model, x0).square().mean(), flow.flow(model, x0, log_prob0)[1].mean()

    grads = [torch.autograd.grad(loss, model.w)[0] for loss in losses()]
    for i, grad in itertools.product(range(2), range(2)):
        ends = []
        for h in (1e-5, -1e-5):
            with torch.no_grad():
                model.w[i] += h
                ends.append(losses()[grad].item())
                model.w[i] -= h
        assert grads[grad][i].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-6)


def test_gradient_in_the_start() -> None:
    target, flow = gaussian(), GradientFlow(0.7)
    x0 = start(1, 3)[0].requires_grad_()
    jacobian = torch.stack(
        [torch.autograd.grad(c, x0, retain_graph=True)[0][0] for c in flow.rsample(target, x0)[0]]
    )
    torch.testing.assert_close(
        jacobian, torch.matrix_exp(-0.7 * target.precision), rtol=1e-6, atol=1e-8
    )


def test_langevin_differentiates_its_chain() -> None:
    """``x_K = (1 - step a)^K x_0 + noise``: its derivative in the precision a is closed-form at
    zero temperature.
    """
    a = nn.Parameter(torch.tensor(0.8).double())
    x0, k, h = torch.full((3, 1), 2.0).double(), 7, 0.1
    x = Langevin(h, k, temperature=0.0).rsample(lambda x: -0.5 * a * x.square().sum(1), x0)
    x.sum().backward()
    assert a.grad is not None
    assert a.grad.item() == pytest.approx(3 * 2.0 * k * (1 - h * 0.8) ** (k - 1) * -h)
    assert torch.equal(
        x, Langevin(h, k, temperature=0.0).sample(lambda x: -0.5 * a * x.square().sum(1), x0)
    )
    noisy = UnderdampedLangevin(0.1, 1.0, 3)
    same = (
        noisy.rsample(standard_log_prob, x0, generator=seeded()),
        noisy.sample(standard_log_prob, x0, generator=seeded()),
    )
    torch.testing.assert_close(*same)


def test_a_metropolis_test_is_not_differentiated() -> None:
    with pytest.raises(NotImplementedError, match=r"MALA\(.* cannot be differentiated"):
        MALA(0.1, 3).rsample(standard_log_prob, torch.zeros(2, 2))


def test_parts_of_the_horizon_add_up() -> None:
    target, (x0, _) = mixture(), start(5, 2)
    whole = GradientFlow(HORIZON)
    parts = replace(whole, num_steps=4)
    *_, (state, _) = parts.run(target, x0)
    torch.testing.assert_close(state.position, whole.sample(target, x0), rtol=0, atol=1e-7)
    torch.testing.assert_close(parts.sample(target, x0), state.position, rtol=0, atol=1e-7)
    euler = GradientFlow(0.6, "euler", 6).sample(target, x0)
    torch.testing.assert_close(euler, Langevin(0.1, 6, temperature=0.0).sample(target, x0))


def test_no_graph_is_kept_where_none_is_asked_for() -> None:
    model, x0 = Quartic(), start(4, 2)[0]
    assert not GradientFlow(1.0).sample(model, x0).requires_grad
    with torch.no_grad():
        x, log_prob = GradientFlow(1.0).flow(model, x0, standard_log_prob(x0))
    assert not x.requires_grad
    assert not log_prob.requires_grad
    assert model.w.grad is None


def test_distributions_that_validate_their_arguments_can_flow() -> None:
    normal = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    x, log_prob = GradientFlow(0.5).flow(normal.log_prob, torch.ones(3, 2), torch.zeros(3))
    torch.testing.assert_close(x, torch.full((3, 2), math.exp(-0.5)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_prob, torch.ones(3), rtol=1e-4, atol=1e-4)


def test_meta_tensors_pass() -> None:
    model, x0 = Quartic().to("meta"), torch.empty(4, 2, device="meta", dtype=torch.float64)
    for flow in (GradientFlow(1.0), GradientFlow(1.0, "euler", 3), GradientFlow(1.0, exact_dim=1)):
        x, log_prob = flow.flow(model, x0, torch.empty(4, device="meta", dtype=torch.float64))
        assert x.shape == (4, 2)
        assert log_prob.shape == (4,)
        assert flow.sample(model, x0).is_meta


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientFlow(0.0), "horizon must be finite and positive, got 0.0"),
        (lambda: GradientFlow(1.0, "rk45"), "method must be one of euler, .*, got 'rk45'"),
        (lambda: GradientFlow(1.0, "rk4"), "num_steps must be an integer >= 1, got 0"),
        (lambda: GradientFlow(1.0, "rk4", 0), "num_steps must be an integer >= 1, got 0"),
        (lambda: GradientFlow(1.0, rtol=0.0), "rtol must be finite and positive, got 0.0"),
        (lambda: GradientFlow(1.0, atol=-1.0), "atol must be finite and positive, got -1.0"),
        (lambda: GradientFlow(1.0, num_probes=0), "num_probes must be an integer >= 1, got 0"),
        (
            lambda: GradientFlow(1.0).flow(gaussian(), *start(4, 3)[:1], torch.zeros(3)),
            r"log_prob0 must have shape \(4,\)",
        ),
        (
            lambda: GradientFlow(1.0).flow(lambda x: x.sum(), *start(4, 3)),
            r"log_density must return shape \(4,\)",
        ),
        (
            lambda: GradientFlow(1.0, adjoint=True).rsample(standard_log_prob, torch.zeros(2, 2)),
            "log_density must be an nn.Module for adjoint gradients, got function",
        ),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("flow", [GradientFlow(100.0), GradientFlow(100.0, "euler", 60)])
def test_divergence_is_reported(flow: GradientFlow) -> None:
    with pytest.raises(FloatingPointError, match="diverged"):
        flow.sample(lambda x: x.pow(4).sum(1), torch.ones(3, 2))


def test_inference_mode_is_refused() -> None:
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode"):
        GradientFlow(1.0).flow(gaussian(), *start(2, 3))
