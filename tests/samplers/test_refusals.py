"""What samplers refuse, and in which words: starts, densities and shapes that no chain can use."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from samplers import (
    HMC,
    MALA,
    GradientFlow,
    Langevin,
    LowPrecision,
    PersistentChains,
    UnderdampedLangevin,
    value_and_grad,
)
from tests.samplers.table import CHAINS, TABLE, Row, seeded

chains = pytest.mark.parametrize("row", CHAINS, ids=lambda row: row.name)
every = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)


def standard(x: Tensor) -> Tensor:
    return -0.5 * x.flatten(1).square().sum(1)


def half(x: Tensor) -> Tensor:
    """N(0, I) cut to x_1 > -1."""
    return torch.where(x[:, 0] > -1, standard(x), -torch.inf)


def start(**entries: float) -> Tensor:
    x = torch.zeros(4, 2)
    x[1, 0] = entries.get("x", 0.0)
    return x


@chains
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_start_that_is_not_finite(row: Row, bad: float) -> None:
    for call in (row.sampler.sample, lambda *args: list(row.sampler.run(*args))):
        with pytest.raises(
            ValueError, match=r"position must be finite at the start: \d of \d+ chains are not"
        ):
            call(standard, start(x=bad))


@chains
def test_a_start_outside_the_support(row: Row) -> None:
    message = (
        r"position must lie inside the support at the start: log_density is -inf at \d of \d+ "
        r"chains"
    )
    with pytest.raises(ValueError, match=message):
        row.sampler.sample(half, start(x=-2.0))


@chains
@pytest.mark.parametrize(
    ("log_density", "message"),
    [
        (
            lambda x: standard(x) * torch.nan,
            r"log_density at the start must be finite: (\d+) of \1 are not",
        ),
        (
            lambda x: standard(x) + torch.inf,
            r"log_density at the start must be finite: (\d+) of \1 are not",
        ),
        (
            lambda x: x.norm(dim=1).sqrt(),
            r"gradient of log_density at the start must be finite: (\d+) of \1 are not",
        ),
    ],
)
def test_a_density_that_is_not_finite_at_the_start(
    row: Row, log_density: Callable, message: str
) -> None:
    with pytest.raises(FloatingPointError, match=message):
        row.sampler.sample(log_density, torch.zeros(4, 2))


class Decaying:
    """A density that is lost after ``calls`` calls."""

    def __init__(self, calls: int, value: float) -> None:
        self.calls, self.value = calls, value

    def __call__(self, x: Tensor) -> Tensor:
        self.calls -= 1
        return standard(x) + (0.0 if self.calls >= 0 else self.value)


@chains
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_density_that_is_lost_on_the_way(row: Row, value: float) -> None:
    with pytest.raises(FloatingPointError, match=r"log_density .*must be finite"):
        row.sampler.sample(Decaying(3, value), torch.zeros(8, 2), generator=seeded())


def test_single_proposals_without_a_density_are_rejections() -> None:
    """As of a trajectory that overflows: some of 64 chains meet NaN, and stay inside."""

    def lost_far_out(x: Tensor) -> Tensor:
        return standard(x) + torch.where(x[:, 0] < 1.5, 0.0, torch.nan)

    run = list(HMC(0.5, 3, 20).run(lost_far_out, torch.zeros(64, 2), generator=seeded()))
    assert any(torch.as_tensor(info.log_ratio).isnan().any() for _, info in run)
    assert all(
        (state.position[:, 0] < 1.5).all() and (info.accept_prob >= 0).all() for state, info in run
    )


@every
@pytest.mark.parametrize(
    "x",
    [torch.zeros(4, 2, dtype=torch.long), torch.zeros(4), torch.tensor(1.0), [[0.0, 0.0]]],
    ids=str,
)
def test_positions_of_another_kind(row: Row, x: Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"(position|x) must be a floating tensor \(chains, \*event\).* got"
    ):
        row.sampler.sample(standard, x)


@every
def test_no_chains_are_no_error(row: Row) -> None:
    assert row.sampler.sample(standard, torch.zeros(0, 3)).shape == (0, 3)
    if row.sampler.has_rsample:
        assert row.sampler.rsample(standard, torch.zeros(0, 3)).shape == (0, 3)


@every
def test_detached_densities(row: Row) -> None:
    bias = torch.zeros(1, requires_grad=True)
    for detached in (
        lambda x: torch.zeros(len(x)),
        lambda x: standard(x.detach()),
        lambda x: bias.expand(len(x)),
    ):
        with pytest.raises(
            ValueError, match=r"log_density must return a value with a gradient .* write one that"
        ):
            row.sampler.sample(detached, torch.zeros(4, 2))
    row.sampler.sample(lambda x: 0 * x.flatten(1).sum(1), torch.zeros(4, 2), generator=seeded())


@pytest.mark.parametrize("sampler", [Langevin(0.1, 2), UnderdampedLangevin(0.1, 1.0, 2)])
def test_differentiable_runs_check_their_start(sampler: Langevin) -> None:
    with pytest.raises(ValueError, match="position must be finite at the start"):
        sampler.rsample(standard, start(x=torch.nan))
    with pytest.raises(ValueError, match="position must lie inside the support"):
        sampler.rsample(half, start(x=-2.0))


@pytest.mark.parametrize("flow", [GradientFlow(0.5), GradientFlow(0.5, "rk4", 3)])
def test_flows_tell_where_it_went_wrong(flow: GradientFlow) -> None:
    with pytest.raises(
        ValueError, match="x and its log-density must be finite at the start: 1 of their entries"
    ):
        flow.sample(standard, start(x=torch.nan))
    with pytest.raises(
        FloatingPointError, match="velocity at the start must be finite: 4 of 4 are not"
    ):
        flow.sample(lambda x: x.norm(dim=1).sqrt(), torch.zeros(4, 2))


class Quartic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, 1.0]).double())

    def forward(self, x: Tensor) -> Tensor:
        return -(self.w * x.square()).sum(1) - 0.25 * x.pow(4).sum(1)


@pytest.mark.cpu
@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_adjoint_gradients_in_all_arguments(method: str) -> None:
    module, grads = Quartic(), []
    for adjoint in (False, True):
        flow = GradientFlow(0.7, method, 8, adjoint=adjoint)
        x0 = (0.4 * torch.randn(3, 2, generator=seeded())).double().requires_grad_()
        log_prob0 = torch.zeros(3).double().requires_grad_()
        x, log_prob = flow.flow(module, x0, log_prob0)
        found = torch.autograd.grad((x**2).sum() + (log_prob**2).sum(), [x0, log_prob0, module.w])
        grads.append(
            [*found, *torch.autograd.grad((flow.rsample(module, x0) ** 2).sum(), [x0, module.w])]
        )
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sampler", [LowPrecision(MALA(0.1, 2)), MALA(0.1, 2)])
def test_persistent_chains_outside_are_refused_and_kept(sampler: MALA) -> None:
    chains = PersistentChains(4, 2, generator=seeded())
    chains.particles[2] = torch.nan
    before = chains.particles.clone()
    with pytest.raises(
        ValueError, match="position must be finite at the start: 1 of 4 chains are not"
    ):
        chains.advance(sampler, standard, torch.arange(4))
    torch.testing.assert_close(chains.particles, before, equal_nan=True)


def test_value_and_grad_of_a_module_whose_output_ignores_its_input() -> None:
    with pytest.raises(ValueError, match="log_density must return a value with a gradient"):
        value_and_grad(lambda x: nn.Linear(1, 1)(torch.ones(len(x), 1))[:, 0], torch.zeros(4, 2))
