"""Weights, resampling and annealed importance sampling against closed forms."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from samplers import (
    HMC,
    MALA,
    Gaussian,
    GaussianMixture,
    annealed_importance,
    effective_sample_size,
    gradient_function,
    log_mean_exp,
    log_z_bracket,
    resample,
    value_and_grad,
)
from samplers.importance import Interpolated
from tests.samplers.table import Z_MAX, seeded, z_scores


def start() -> Gaussian:
    """Wider than every end, so that the weights have a variance."""
    return Gaussian(torch.zeros(2).double(), 3 * torch.eye(2).double())


def mixture() -> GaussianMixture:
    means = torch.tensor([[-2.0, 0.0], [1.0, 1.0]]).double()
    return GaussianMixture(
        torch.tensor([2.0, 3.0]).double(), means, torch.tensor([0.6, 0.8]).double()
    )


def gaussian() -> Gaussian:
    return Gaussian(
        torch.tensor([1.0, -1.0]).double(), torch.tensor([[1.0, 0.5], [0.5, 1.5]]).double()
    )


ENDS = [gaussian(), mixture()]
either_end = pytest.mark.parametrize("final", ENDS, ids=["gaussian", "mixture"])
SAMPLER = MALA(0.15, 2)


@either_end
@pytest.mark.parametrize("num_rungs", [2, 5, 12])
def test_weights_are_unbiased(final: Gaussian, num_rungs: int) -> None:
    """``E[w] = Z_1 / Z_0`` whatever the number of rungs, and however badly the chains mix between
    them.
    """
    initial, generator = start(), seeded(1)
    draws = initial.sample(40_000, generator=generator)
    x, log_weight = annealed_importance(
        initial, final, draws, SAMPLER, num_rungs, generator=generator
    )
    assert x.shape == draws.shape
    assert log_weight.shape == (40_000,)
    weight = (log_weight - (final.log_z - initial.log_z)).exp()
    assert z_scores(weight[:, None], torch.ones(1)).abs().item() < Z_MAX


@either_end
def test_weighted_positions_follow_the_final_density(final: Gaussian) -> None:
    initial, generator = start(), seeded(2)
    draws = initial.sample(40_000, generator=generator)
    x, log_weight = annealed_importance(initial, final, draws, SAMPLER, 10, generator=generator)
    weight = (log_weight - log_mean_exp(log_weight)).exp()[:, None]
    d = x - final.mean
    terms = weight * torch.cat([d, d**2 - final.covariance.diagonal()], 1)
    assert z_scores(terms, torch.zeros(4)).abs().max() < Z_MAX


def test_more_rungs_tighten_the_weights() -> None:
    initial, final, generator = start(), gaussian(), seeded(3)
    draws = initial.sample(5_000, generator=generator)
    sizes = [
        effective_sample_size(
            annealed_importance(initial, final, draws, SAMPLER, k, generator=generator)[1]
        ).item()
        for k in (1, 5, 25)
    ]
    assert all(a < b for a, b in pairwise(sizes))
    assert sizes[-1] > 0.5


def test_one_rung_is_importance_sampling() -> None:
    initial, final = start(), gaussian()
    draws = initial.sample(100, generator=seeded())
    x, log_weight = annealed_importance(initial, final, draws, SAMPLER, 1)
    torch.testing.assert_close(x, draws)
    torch.testing.assert_close(log_weight, final(draws) - initial(draws))


@either_end
@pytest.mark.parametrize("sampler", [SAMPLER, HMC(0.4, 3, 1)], ids=["mala", "hmc"])
def test_bracket_holds_log_z(final: Gaussian, sampler: MALA) -> None:
    initial, generator, exact = start(), seeded(4), (final.log_z - start().log_z).item()
    ends = initial.sample(4_000, generator=generator), final.sample(4_000, generator=generator)
    lower, upper = log_z_bracket(initial, final, *ends, sampler, 40, generator=generator)
    assert lower == pytest.approx(exact, abs=0.1)
    assert upper == pytest.approx(exact, abs=0.1)


@either_end
def test_bounds_hold_in_expectation(final: Gaussian) -> None:
    """With two chains a group the bounds are loose: their means over 2000 groups are on the right
    sides of log Z.
    """
    initial, generator, exact = start(), seeded(5), final.log_z - start().log_z
    ends = initial.sample(4_000, generator=generator), final.sample(4_000, generator=generator)
    _, forth = annealed_importance(initial, final, ends[0], SAMPLER, 4, generator=generator)
    _, back = annealed_importance(final, initial, ends[1], SAMPLER, 4, generator=generator)
    lower, upper = log_mean_exp(forth.view(-1, 2)), -log_mean_exp(back.view(-1, 2))
    assert z_scores(lower[:, None], exact).item() < -Z_MAX
    assert z_scores(upper[:, None], exact).item() > Z_MAX
    assert upper.mean() - lower.mean() < 2


def test_bracket_is_zero_between_equals() -> None:
    target = gaussian()
    x = target.sample(10, generator=seeded())
    assert log_z_bracket(target, target, x, x, SAMPLER, 4, generator=seeded()) == (0.0, 0.0)


def test_interpolated_uses_the_hooks_of_both_ends() -> None:
    initial, final, x = start(), gaussian(), torch.randn(5, 2, generator=seeded()).double()
    rung = Interpolated(initial, final, 0.3)
    value, grad = value_and_grad(rung, x)
    torch.testing.assert_close(value, rung(x))
    torch.testing.assert_close(
        grad, 0.7 * initial.value_and_grad(x)[1] + 0.3 * final.value_and_grad(x)[1]
    )
    torch.testing.assert_close(gradient_function(rung, x)(x), grad)
    with torch.inference_mode():
        draws = initial.sample(5, generator=seeded())
        annealed_importance(initial, final, draws, SAMPLER, 3, generator=seeded())


def test_chains_outside_the_final_support_get_no_weight() -> None:
    """Of N(0, I) cut to x_1 > 0: half of the mass, whatever the rungs, and all weighted positions
    inside.
    """

    def cut(x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, -0.5 * x.square().sum(1), -torch.inf)

    initial, generator = Gaussian(torch.zeros(2).double(), torch.eye(2).double()), seeded(6)
    draws = initial.sample(4_000, generator=generator)
    for num_rungs in (1, 3):
        x, log_weight = annealed_importance(
            initial, cut, draws, SAMPLER, num_rungs, generator=generator
        )
        assert log_weight.isneginf().any()
        assert (x[log_weight > -torch.inf, 0] > 0).all()
        assert (resample(x, log_weight, generator=generator)[:, 0] > 0).all()
        assert 0 < effective_sample_size(log_weight).item() < 1
    share = log_weight.exp()
    assert abs(share.mean().item() - 0.5) < 0.05
    with pytest.raises(
        FloatingPointError,
        match="log_weight must be finite: 4 of 4 are not; initial must be finite",
    ):
        annealed_importance(lambda z: torch.full((4,), -torch.inf), initial, draws[:4], SAMPLER, 1)


def test_annealed_importance_checks() -> None:
    initial, x = start(), torch.zeros(4, 2).double()
    with pytest.raises(ValueError, match="num_rungs must be an integer >= 1, got 0"):
        annealed_importance(initial, initial, x, SAMPLER, 0)
    with pytest.raises(ValueError, match="log_density must return shape"):
        annealed_importance(initial, lambda z: z, x, SAMPLER, 1)


def test_resample_moments() -> None:
    """Draws of N(0, I) resampled to N(mean, I) by ``w = exp(mean . x)`` have the shifted
    moments.
    """
    mean = torch.tensor([0.7, -0.4]).double()
    x = torch.randn(200_000, 2, generator=seeded()).double()
    y = resample(x, x @ mean, generator=seeded(1)) - mean
    fraction = effective_sample_size(x @ mean)
    torch.testing.assert_close(
        fraction.item(), math.exp(-mean.square().sum().item()), rtol=0.03, atol=0
    )
    moments = torch.cat([y, y**2 - 1, y[:, :1] * y[:, 1:]], 1)
    # Equal draws are no independent draws: inflate the standard error.
    assert (z_scores(moments, torch.zeros(5)).abs() * fraction**0.5).max() < Z_MAX


def test_resample_copies_are_systematic() -> None:
    """Row i comes floor or ceil of ``num * w_i`` times, on average exactly; zero weights never
    come.
    """
    share = torch.tensor([0.5, 0.0, 0.23, 0.27]).double()
    rows = torch.arange(4.0)[:, None]
    log_weight = share.log()
    counts = torch.stack(
        [
            torch.bincount(
                resample(rows, log_weight, 10, generator=seeded(k))[:, 0].long(), minlength=4
            )
            for k in range(3000)
        ]
    ).double()
    assert (counts.sum(1) == 10).all()
    assert ((counts >= (10 * share).floor()) & (counts <= (10 * share).ceil())).all()
    assert z_scores(counts[:, 2:], 10 * share[2:]).abs().max() < Z_MAX


def test_resample_shapes_and_shift() -> None:
    x, log_weight = torch.randn(6, 2, 3, generator=seeded()), torch.randn(6, generator=seeded(1))
    assert resample(x, log_weight, generator=seeded()).shape == x.shape
    assert resample(x, log_weight, 11, generator=seeded()).shape == (11, 2, 3)
    shifted = resample(x, log_weight + 1e3, generator=seeded())
    assert torch.equal(shifted, resample(x, log_weight, generator=seeded()))


@pytest.mark.parametrize(
    ("log_weight", "message"),
    [
        (
            torch.tensor([0.0, torch.nan]),
            r"log_weight must be finite or -inf, got nan \(1 of 2 entries\)",
        ),
        (torch.tensor([0.0, torch.inf]), "log_weight must be finite or -inf, got inf"),
        (
            torch.tensor([-torch.inf, -torch.inf]),
            "log_weight must be finite somewhere, got -inf everywhere",
        ),
        (torch.zeros(3), r"log_weight must have shape \(2,\), got \(3,\)"),
        (torch.zeros(0), r"log_weight must not be empty, got shape \(0,\)"),
    ],
)
def test_resample_rejects_bad_weights(log_weight: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resample(torch.zeros(2, 1), log_weight)


def test_resample_rejects_bad_num() -> None:
    with pytest.raises(ValueError, match="num must be an integer >= 1, got 0"):
        resample(torch.zeros(2, 1), torch.zeros(2), 0)


def test_effective_sample_size() -> None:
    w = torch.tensor([1.0, 2.0, 5.0])
    torch.testing.assert_close(
        effective_sample_size(w.log() + 700).item(), 64 / (3 * 30), rtol=1e-3, atol=0
    )
    assert effective_sample_size(torch.zeros(7)).item() == pytest.approx(1)
    grouped = effective_sample_size(torch.stack([w, torch.ones(3)]).log())
    torch.testing.assert_close(grouped, torch.tensor([64 / 90, 1.0]))
    torch.testing.assert_close(
        effective_sample_size(torch.stack([w, w], 1).log(), 0), torch.full((2,), 64 / 90)
    )
    large = torch.tensor([0.0, 1.0, 3.0]) - 2e6  # exact in float32, unlike a sum of their squares
    torch.testing.assert_close(effective_sample_size(large), effective_sample_size(large + 2e6))
    with pytest.raises(ValueError, match="log_weight must be finite or -inf, got nan"):
        effective_sample_size(torch.tensor([torch.nan]))


def test_log_mean_exp() -> None:
    x = torch.tensor([[1000.0, 1000.0 + math.log(3)], [0.0, -torch.inf]])
    torch.testing.assert_close(log_mean_exp(x), torch.tensor([1000 + math.log(2), -math.log(2)]))
    with pytest.raises(ValueError, match="log_weight must not be empty"):
        log_mean_exp(torch.zeros(0))
