"""What every sampler promises, whatever its target."""

import itertools
import warnings

import pytest
import torch
from torch import nn

from samplers import (
    HMC,
    MALA,
    Annealed,
    Density,
    Gaussian,
    Langevin,
    ParallelTempering,
    UnderdampedLangevin,
    value_and_grad,
)
from samplers.base import Info, State, metropolis
from samplers.run_checks import check_finite
from tests.samplers.table import TABLE, Row, correlated_gaussian, seeded

every_sampler = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)


def standard(x: torch.Tensor) -> torch.Tensor:
    return -0.5 * x.flatten(1).square().sum(1)


@every_sampler
@pytest.mark.parametrize("event", [(2,), (3, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_dtype(row: Row, event: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.zeros(5, *event, dtype=dtype)
    before = x.clone()
    for state, info in row.sampler.run(standard, x, generator=seeded()):
        assert state.position.shape == state.grad.shape == x.shape
        assert state.log_density.shape == info.accept_prob.shape == info.accepted.shape == (5,)
        assert state.position.dtype == state.log_density.dtype == state.grad.dtype == dtype
        assert info.accepted.dtype == torch.bool
        assert not state.position.requires_grad
        assert not state.grad.requires_grad
        torch.testing.assert_close(torch.where(info.accept_prob <= 1, 1, 0), torch.ones(5).long())
    sample = row.sampler.sample(standard, x, generator=seeded())
    assert sample.shape == x.shape
    assert sample.dtype == dtype
    assert torch.equal(x, before), "the start was written to"


@every_sampler
def test_state_holds_value_and_gradient_of_its_position(row: Row) -> None:
    target = correlated_gaussian()
    *_, (state, _) = row.sampler.run(target, torch.zeros(7, 2).double(), generator=seeded())
    value, grad = target.value_and_grad(state.position)
    torch.testing.assert_close(state.log_density, value)
    torch.testing.assert_close(state.grad, grad)


@every_sampler
def test_sample_is_the_last_of_run_and_generators_reproduce(row: Row) -> None:
    target, x = correlated_gaussian(), torch.zeros(9, 2).double()
    states = [state for state, _ in row.sampler.run(target, x, generator=seeded(1))]
    assert len(states) == row.sampler.num_steps
    first = row.sampler.sample(target, x, generator=seeded(1))
    torch.testing.assert_close(first, states[-1].position)
    assert torch.equal(first, row.sampler.sample(target, x, generator=seeded(1)))
    again = row.sampler.sample(target, x, generator=seeded(2))
    assert torch.equal(first, again) == (row.law is None), (
        "noise follows the generator, and a flow has none"
    )


@every_sampler
def test_generator_is_the_only_source_of_chance(row: Row) -> None:
    state = torch.random.get_rng_state()
    row.sampler.sample(standard, torch.zeros(4, 2), generator=seeded())
    assert torch.equal(state, torch.random.get_rng_state())


@every_sampler
def test_run_can_be_cut_short(row: Row) -> None:
    run = row.sampler.run(standard, torch.zeros(4, 2), generator=seeded())
    assert len(list(itertools.islice(run, 2, 4))) == 2


@every_sampler
def test_chains_do_not_see_each_other(row: Row) -> None:
    """Moving chain 0 leaves the others where they are under the same noise."""
    x = torch.randn(6, 2, generator=seeded()).double()
    other = x.clone()
    other[0] += 1
    target = correlated_gaussian()
    a, b = (row.sampler.sample(target, start, generator=seeded(3)) for start in (x, other))
    torch.testing.assert_close(a[1:], b[1:])
    assert not torch.equal(a[0], b[0])


@every_sampler
def test_no_parameter_gradient_is_left(row: Row) -> None:
    network = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    learned = Gaussian(torch.zeros(2, requires_grad=True), torch.eye(2))  # knows its gradient
    for target in (lambda x: standard(x) + network(x).squeeze(1), learned):
        assert not row.sampler.sample(target, torch.zeros(4, 2), generator=seeded()).requires_grad
    assert all(p.grad is None for p in (*network.parameters(), learned.mean))


@every_sampler
def test_runs_on_meta(row: Row) -> None:
    x = torch.empty(4, 2, device="meta")
    target = Gaussian(torch.zeros(2, device="meta"), torch.eye(2, device="meta"))
    for log_density in (standard, target):
        sample = row.sampler.sample(log_density, x)
        assert sample.is_meta
        assert sample.shape == x.shape


@every_sampler
def test_gradient_modes(row: Row) -> None:
    target, x = correlated_gaussian(), torch.zeros(4, 2).double()
    wanted = row.sampler.sample(target, x, generator=seeded())
    with torch.no_grad():
        torch.testing.assert_close(
            row.sampler.sample(lambda z: target(z), x, generator=seeded()), wanted
        )
    with torch.inference_mode():
        torch.testing.assert_close(row.sampler.sample(target, x, generator=seeded()), wanted)
        with pytest.raises(RuntimeError, match="inference_mode"):
            row.sampler.sample(lambda z: target(z), x, generator=seeded())


@every_sampler
def test_wrong_shape_of_log_density(row: Row) -> None:
    class ClosedForm(Density):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return standard(x)[:, None]

        def value_and_grad(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self(x), -x

    for wrong in (lambda x: standard(x).sum(), lambda x: standard(x)[:, None], ClosedForm()):
        with pytest.raises(ValueError, match="log_density must return shape"):
            row.sampler.sample(wrong, torch.zeros(4, 2))


@pytest.mark.parametrize(
    "sampler",
    [
        Langevin(20.0, 400),
        UnderdampedLangevin(80.0, 1.0, 400),
        ParallelTempering(Langevin(20.0, 400), (0.5, 1.0)),
    ],
)
def test_divergence_raises(sampler: Langevin) -> None:
    with pytest.raises(
        FloatingPointError, match=r"(4 of 4|8 of 8) are not.*use a smaller step_size"
    ):
        sampler.sample(correlated_gaussian(), torch.zeros(4, 2).double(), generator=seeded())


def test_a_bounded_divergence_raises() -> None:
    """At step size 2 the drift of a standard normal only flips the sign: the chain is a random
    walk, never infinite.
    """
    with pytest.raises(
        FloatingPointError,
        match=r"log_density must not fall along a chain.*use a smaller step_size",
    ):
        Langevin(2.0, 60).sample(standard, torch.zeros(50, 3), generator=seeded())
    Langevin(0.5, 60).sample(standard, torch.zeros(50, 3), generator=seeded())


def test_divergence_of_a_hot_replica_raises() -> None:
    """A log-density that is undefined where only the hot replica goes."""

    def undefined_far_out(x: torch.Tensor) -> torch.Tensor:
        return standard(x) * torch.where(x.abs().amax(1) < 6, 1.0, torch.nan)

    sampler, generator = ParallelTempering(Langevin(0.5, 100), (0.01, 1.0)), seeded()
    with pytest.raises(FloatingPointError, match="replicas must be finite: 4 of 8 are not"):
        sampler.sample(undefined_far_out, torch.zeros(4, 2), generator=generator)


@pytest.mark.parametrize(
    "sampler", [MALA(1e4, 5), HMC(1e3, 3, 5), ParallelTempering(MALA(1e4, 5), (0.5, 1.0))]
)
def test_stuck_chains_warn(sampler: MALA) -> None:
    with pytest.warns(UserWarning, match="8 of 8 chains .* never moved"):
        sampler.sample(correlated_gaussian(), torch.zeros(8, 2).double(), generator=seeded())


def test_single_rejections_do_not_warn() -> None:
    target = correlated_gaussian()
    start = target.sample(20_000, generator=seeded())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MALA(0.3, 1).sample(target, start, generator=seeded())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Langevin(0.0, 1), "step_size must be finite and positive, got 0.0"),
        (lambda: Langevin(float("nan"), 1), "step_size must be finite and positive, got nan"),
        (lambda: Langevin(0.1, 0), "num_steps must be an integer >= 1, got 0"),
        (lambda: Langevin(0.1, 1.5), "num_steps must be an integer >= 1, got 1.5"),  # pyright: ignore[reportArgumentType]
        (
            lambda: Langevin(0.1, 1, temperature=-1.0),
            "temperature must be finite and non-negative, got -1.0",
        ),
        (lambda: MALA(-0.1, 1), "MALA: step_size"),
        (lambda: MALA(0.1, 0), "MALA: num_steps"),
        (lambda: HMC(float("inf"), 1, 1), "HMC: step_size"),
        (lambda: HMC(0.1, 0, 1), "HMC: num_leapfrog"),
        (lambda: HMC(0.1, 1, -1), "HMC: num_steps"),
        (lambda: UnderdampedLangevin(0.0, 1.0, 1), "UnderdampedLangevin: step_size"),
        (lambda: UnderdampedLangevin(0.1, 0.0, 1), "UnderdampedLangevin: friction"),
        (lambda: UnderdampedLangevin(0.1, 1.0, 0), "UnderdampedLangevin: num_steps"),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("wrapper", [Annealed, ParallelTempering])
@pytest.mark.parametrize(
    "ladder",
    [
        (),
        (0.5,),
        (0.0, 1.0),
        (-1.0, 1.0),
        (0.5, 0.5, 1.0),
        (1.0, 0.5),
        (1.0, 2.0),
        (float("nan"), 1.0),
    ],
)
def test_bad_ladders(wrapper, ladder: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="ladder must increase from above 0 to 1, got"):
        wrapper(MALA(0.1, 1), ladder)


def test_closed_form_is_used_and_detached() -> None:
    scale = nn.Parameter(torch.tensor(2.0))

    class Hook(Density):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            raise NotImplementedError

        def value_and_grad(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return scale * standard(x), -scale * x

    value, grad = value_and_grad(Hook(), torch.ones(3, 2))
    assert not value.requires_grad
    assert not grad.requires_grad
    torch.testing.assert_close(grad, torch.full((3, 2), -2.0))


def test_metropolis_rejects_what_is_not_finite() -> None:
    inf, nan = float("inf"), float("nan")
    old = State(torch.zeros(4, 1), torch.zeros(4), torch.zeros(4, 1))
    new = State(torch.ones(4, 1), torch.tensor([inf, -inf, nan, 1.0]), torch.ones(4, 1))
    state, info = metropolis(old, new, new.log_density - old.log_density, generator=seeded())
    assert state.position.flatten().tolist() == [0, 0, 0, 1]
    assert info.accept_prob.tolist() == [0, 0, 0, 1]


def test_check_finite_counts_rows() -> None:
    x = torch.zeros(5, 3)
    x[[1, 4], [0, 2]] = torch.nan
    with pytest.raises(FloatingPointError, match="x must be finite: 2 of 5 are not; look"):
        check_finite("x", x, "look")
    check_finite("x", torch.empty(5, device="meta"))


def test_langevin_at_zero_temperature_climbs() -> None:
    target = correlated_gaussian()
    x = Langevin(0.2, 500, temperature=0.0).sample(target, torch.zeros(3, 2).double())
    torch.testing.assert_close(x, target.mean.expand(3, 2))


def test_hmc_with_one_leapfrog_is_mala() -> None:
    target, x = correlated_gaussian(), torch.zeros(6, 2).double()
    a = HMC(0.6, 1, 5).sample(target, x, generator=seeded())
    torch.testing.assert_close(a, MALA(0.6**2 / 2, 5).sample(target, x, generator=seeded()))


def test_noise_is_reported() -> None:
    x = torch.zeros(4, 2)
    state, info = next(Langevin(0.1, 1).run(standard, x, generator=seeded()))
    assert isinstance(info, Info)
    assert info.noise is not None
    torch.testing.assert_close(state.position, 0.2**0.5 * info.noise)
