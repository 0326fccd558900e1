"""Diagnostics where the answer is known."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from samplers import (
    HMC,
    MALA,
    acceptance,
    ess,
    kernel_stein_discrepancy,
    split_rhat,
    value_and_grad,
)
from tests.samplers.table import correlated_gaussian, seeded


def autoregression(rho: float, num: int, chains: int) -> Tensor:
    """Stationary AR(1) chains (num, chains, 2) of unit variance."""
    noise = torch.randn(num, chains, 2, generator=seeded()).double()
    rows = [noise[0]]
    for k in range(1, num):
        rows.append(rho * rows[-1] + (1 - rho**2) ** 0.5 * noise[k])
    return torch.stack(rows)


def uniform(seed: int, num: int) -> Tensor:
    """Numbers (num,) of a linear congruential generator, the same for every version of every
    library.
    """
    values = itertools.accumulate(
        range(num), lambda s, _: (1103515245 * s + 12345) % 2**31, initial=seed
    )
    return (torch.tensor(list(values)[1:], dtype=torch.float64) + 0.5) / 2**31


def draws_of(rho: float, num: int = 120, chains: int = 4) -> Tensor:
    """Autoregressions (num, chains) started at N(0, 1), with the CPU's bits on any device."""
    with torch.device("cpu"):
        radius, angle = (
            (-2 * uniform(1, num * chains).log()).sqrt(),
            2 * torch.pi * uniform(78, num * chains),
        )
        x = (radius * angle.cos()).view(num, chains)
        for k in range(1, num):
            x[k] = rho * x[k - 1] + (1 - rho**2) ** 0.5 * x[k]
    return x.to(torch.get_default_device())


LAST = torch.arange(4) == 3
# Draws, and the rank-normalised split R-hat and bulk effective sample size that ArviZ 0.23.4 gives
# for them.
ARVIZ = {
    "independent": (draws_of(0.0), 1.0049307, 519.69099),
    "slow": (draws_of(0.9), 1.1139351, 30.856847),
    "antithetic": (draws_of(-0.9), 1.0390489, 1286.9958),
    "disagreeing": (draws_of(0.3) + 2 * LAST, 1.2975645, 11.657658),
    "stuck": (torch.where(LAST, 0.0, draws_of(0.3)), 1.5474575, 332.00388),
    "wide": (draws_of(0.3) * (1 + 3 * LAST), 1.2071251, 308.03643),
    "drifting": (
        draws_of(0.3, 121) + torch.linspace(0, 2, 121).double()[:, None],
        1.1148877,
        26.46318,
    ),
    "heavy": (draws_of(0.3) ** 3 * 100, 1.0095202, 318.23114),
    "tied": (draws_of(0.5).round(), 1.0104142, 235.38013),
    "single": (draws_of(0.6, 120, 1), 1.0352307, 31.942521),
}


@pytest.mark.parametrize("name", ARVIZ)
def test_the_values_of_arviz(name: str) -> None:
    draws, rhat, size = ARVIZ[name]
    assert split_rhat(draws).item() == pytest.approx(rhat, rel=1e-6)
    assert ess(draws).item() == pytest.approx(size, rel=1e-6)


def test_rhat_of_few_draws_is_arviz_too() -> None:
    assert split_rhat(draws_of(0.3, 7, 2)).item() == pytest.approx(1.2478033, rel=1e-6)


def test_events_are_judged_one_by_one() -> None:
    names = ("independent", "slow", "stuck", "disagreeing")
    draws = torch.stack([ARVIZ[name][0] for name in names], 2).view(120, 4, 2, 2)
    torch.testing.assert_close(
        ess(draws).flatten(), torch.tensor([ARVIZ[n][2] for n in names]).double()
    )
    torch.testing.assert_close(
        split_rhat(draws).flatten(), torch.tensor([ARVIZ[n][1] for n in names]).double()
    )


def test_chains_that_never_move_do_not_reassure() -> None:
    for draws in (torch.zeros(50, 4), torch.arange(4.0).expand(50, 4)):
        assert split_rhat(draws).item() == torch.inf
        assert ess(draws).item() < 5


def test_draws_must_be_finite() -> None:
    draws = torch.zeros(10, 2, 3)
    draws[3, 1] = torch.nan
    for diagnostic in (ess, split_rhat):
        with pytest.raises(ValueError, match="draws must be finite: 3 of 60 entries are not"):
            diagnostic(draws)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_ess_of_an_autoregression(rho: float) -> None:
    draws = autoregression(rho, 2_000, 8)
    assert ess(draws).shape == (2,)
    torch.testing.assert_close(
        ess(draws) / draws[..., 0].numel(),
        torch.full((2,), (1 - rho) / (1 + rho)).double(),
        rtol=0.15,
        atol=0,
    )


def test_split_rhat() -> None:
    draws = autoregression(0.3, 500, 4)
    assert split_rhat(draws).shape == (2,)
    assert (split_rhat(draws) < 1.02).all()
    shifted = draws + torch.tensor([0.0, 0.0, 0.0, 2.0])[:, None]
    assert (split_rhat(shifted) > 1.1).all()
    drifting = draws + torch.linspace(0, 3, 500)[:, None, None]
    assert (split_rhat(drifting) > 1.1).all()


@pytest.mark.parametrize("event", [(), (1,), (1, 3)])
def test_event_shapes(event: tuple[int, ...]) -> None:
    draws = torch.randn(40, 1, *event, generator=seeded())
    assert ess(draws).shape == split_rhat(draws).shape == event


@pytest.mark.parametrize(("diagnostic", "least"), [(ess, 10), (split_rhat, 4)])
def test_wrong_draws(diagnostic: Callable[[Tensor], Tensor], least: int) -> None:
    message = rf"draws must have shape \(num_draws >= {least}, chains >= 1, \*event\), got"
    for shape in ((10,), (least - 1, 4), (10, 0, 2)):
        with pytest.raises(ValueError, match=message):
            diagnostic(torch.zeros(shape))
    assert diagnostic(torch.randn(least, 2)).isfinite()


def test_few_draws_of_stuck_chains_are_few() -> None:
    """From 10 draws on, the least number whose lags can be summed up."""
    for num in (10, 11, 20):
        draws = torch.randn(1, 100, generator=seeded()) + 1e-3 * torch.randn(num, 100)
        assert ess(draws).item() < 300


def test_draws_of_two_values_and_of_low_precision() -> None:
    """Which mode a chain is in: whole numbers have the figures of fractions."""
    shares = torch.tensor([0.1, 0.1, 0.9, 0.9])
    apart = torch.rand(200, 4, generator=seeded()) < shares
    even = torch.arange(800).view(200, 4) // 4 % 2 == 0
    for draws in (apart, even):
        for like in (draws, draws.long(), draws.half()):
            for diagnostic in (ess, split_rhat):
                found, right = diagnostic(like), diagnostic(draws.double())
                assert found.dtype == torch.float32
                torch.testing.assert_close(found, right.float())
    assert split_rhat(apart).item() > 1.5
    assert split_rhat(even).item() < 1.01


def test_acceptance() -> None:
    target, x = correlated_gaussian(), torch.zeros(5, 2).double()
    infos = [info for _, info in MALA(0.3, 20).run(target, x, generator=seeded())]
    torch.testing.assert_close(
        acceptance(iter(infos)), torch.stack([info.accept_prob for info in infos]).mean(0)
    )
    with pytest.raises(ValueError, match="infos must hold at least one Info, got none"):
        acceptance([])


def test_chains_pass_their_diagnostics() -> None:
    target = correlated_gaussian()
    run = HMC(0.5, 4, 400).run(target, target.sample(4, generator=seeded()), generator=seeded(1))
    draws = torch.stack([state.position for state, _ in run])
    assert (split_rhat(draws) < 1.05).all()
    assert (ess(draws) > 200).all()


def test_stein_discrepancy_tells_the_right_target() -> None:
    target = correlated_gaussian()
    x = target.sample(400, generator=seeded())
    right = kernel_stein_discrepancy(target, x)
    assert right.ndim == 0
    for wrong in (x + 1, 1.5 * x, x.flip(1)):
        assert kernel_stein_discrepancy(target, wrong) > 2 * right
    assert kernel_stein_discrepancy(target, target.sample(1600, generator=seeded(1))) < 0.8 * right
    torch.testing.assert_close(kernel_stein_discrepancy(lambda z: target(z), x), right)


def test_stein_discrepancy_against_automatic_differentiation() -> None:
    """``k_0(x, y) = s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr grad_x grad_y k``, pair by
    pair.
    """
    target, scale, exponent = correlated_gaussian(), 0.7, -0.3
    x = target.sample(6, generator=seeded())
    score = value_and_grad(target, x)[1]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (scale**2 + (a - b).square().sum()) ** exponent

    def stein(i: int, j: int) -> Tensor:
        a, b = x[i], x[j]
        grad_a, grad_b = torch.func.grad(kernel, (0, 1))(a, b)
        trace = torch.func.jacrev(torch.func.grad(kernel, 0), 1)(a, b).trace()
        return score[i] @ score[j] * kernel(a, b) + score[i] @ grad_b + score[j] @ grad_a + trace

    wanted = torch.stack([stein(i, j) for i in range(6) for j in range(6)]).mean().sqrt()
    torch.testing.assert_close(
        kernel_stein_discrepancy(target, x, scale=scale, exponent=exponent), wanted
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(1, 2)}, r"x must have shape \(n >= 2, \*event\), got \(1, 2\)"),
        ({"x": torch.zeros(3)}, "x must have shape"),
        ({"x": torch.zeros(3, 2), "scale": 0.0}, "scale must be finite and positive, got 0.0"),
        ({"x": torch.zeros(3, 2), "exponent": -1.0}, r"exponent must lie in \(-1, 0\), got -1.0"),
    ],
)
def test_stein_discrepancy_checks(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernel_stein_discrepancy(lambda z: -z.square().sum(1), **arguments)
