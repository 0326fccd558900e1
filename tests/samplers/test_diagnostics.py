"""Diagnostics where the answer is known."""

import pytest
import torch
from torch import Tensor

from samplers import HMC, MALA, acceptance, ess, kernel_stein_discrepancy, split_rhat, value_and_grad
from tests.samplers.table import correlated_gaussian, seeded


def autoregression(rho: float, num: int, chains: int) -> Tensor:
    """Stationary AR(1) chains (num, chains, 2) of unit variance."""
    noise = torch.randn(num, chains, 2, generator=seeded()).double()
    rows = [noise[0]]
    for k in range(1, num):
        rows.append(rho * rows[-1] + (1 - rho**2) ** 0.5 * noise[k])
    return torch.stack(rows)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_ess_of_an_autoregression(rho: float) -> None:
    draws = autoregression(rho, 2_000, 8)
    assert ess(draws).shape == (2,)
    torch.testing.assert_close(
        ess(draws) / draws[..., 0].numel(), torch.full((2,), (1 - rho) / (1 + rho)).double(), rtol=0.15, atol=0
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


@pytest.mark.parametrize("diagnostic", [ess, split_rhat])
@pytest.mark.parametrize("shape", [(10,), (3, 4), (10, 0, 2)])
def test_wrong_draws(diagnostic, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"draws must have shape \(num_draws >= 4, chains >= 1, \*event\), got"):
        diagnostic(torch.zeros(shape))


def test_acceptance() -> None:
    target, x = correlated_gaussian(), torch.zeros(5, 2).double()
    infos = [info for _, info in MALA(0.3, 20).run(target, x, generator=seeded())]
    torch.testing.assert_close(acceptance(iter(infos)), torch.stack([info.accept_prob for info in infos]).mean(0))
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
    """``k_0(x, y) = s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr grad_x grad_y k``, pair by pair."""
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
    torch.testing.assert_close(kernel_stein_discrepancy(target, x, scale=scale, exponent=exponent), wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(1, 2)}, r"x must have shape \(n >= 2, \*event\), got \(1, 2\)"),
        ({"x": torch.zeros(3)}, "x must have shape"),
        ({"x": torch.zeros(3, 2), "scale": 0.0}, "scale must be positive, got 0.0"),
        ({"x": torch.zeros(3, 2), "exponent": -1.0}, r"exponent must lie in \(-1, 0\), got -1.0"),
    ],
)
def test_stein_discrepancy_checks(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernel_stein_discrepancy(lambda z: -z.square().sum(1), **arguments)
