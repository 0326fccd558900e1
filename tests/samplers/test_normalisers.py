"""Annealing along several densities, and Bennett's estimate, against closed forms."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from samplers import MALA, Blend, Gaussian, annealed_along, bennett, log_mean_exp, value_and_grad
from samplers.densities import LogDensity, Sum
from tests.samplers.table import Z_MAX, seeded, z_scores


def gaussian(mean: float, std: float) -> Gaussian:
    return Gaussian(torch.full((2,), mean).double(), std**2 * torch.eye(2).double())


class Normalised(Sum):
    """A Gaussian minus its log Z."""

    def __init__(self, gaussian: Gaussian) -> None:
        self.gaussian = gaussian

    def terms(self):
        return (1.0, self.gaussian), (-1.0, lambda x: self.gaussian.log_z + 0 * x.sum(1))


def crooks(num: int, seed: int, shift: float = 1.3) -> tuple[Tensor, Tensor]:
    """Log-weights whose two distributions obey Crooks' relation for ``shift``: normal with
    variance v, and means ``shift - v / 2`` forth and ``-shift - v / 2`` back.
    """
    noise = torch.randn(2, num, generator=seeded(seed)).double()
    forth, back = 2 * noise - 2
    return forth + shift, back - shift


def test_weights_along_a_path_are_unbiased() -> None:
    path = [gaussian(0, 2), gaussian(1, 0.8), gaussian(-0.5, 1.0)]
    draws = path[0].sample(20_000, generator=seeded(1))
    x, log_weight = annealed_along(path, draws, MALA(0.2, 2), 4, generator=seeded(2))
    weight = (log_weight - (path[-1].log_z - path[0].log_z)).exp()[:, None]
    assert z_scores(weight, torch.ones(1)).abs().item() < Z_MAX
    terms = weight * (x - path[-1].mean)
    assert z_scores(terms, torch.zeros(2)).abs().max() < Z_MAX


def test_chains_move_at_every_density_between() -> None:
    """With one rung, plain importance weights: only the moves between make the second use new
    positions.
    """
    path = [gaussian(0, 1), gaussian(2, 1), gaussian(2, 1)]
    draws = path[0].sample(100, generator=seeded(1))
    x, log_weight = annealed_along(path, draws, MALA(0.2, 5), 1, generator=seeded(2))
    assert not torch.equal(x, draws)
    torch.testing.assert_close(log_weight, path[1](draws) - path[0](draws))


def test_a_chain_that_has_left_the_support_has_no_weight_and_keeps_no_other_from_it() -> None:
    """N(0, 1), then x > -1.5 of it, then x > -1.5 of N(0, .5): Z_last / Z_first = Phi(3) / 2."""

    def cut(precision: float) -> LogDensity:
        return lambda x: torch.where(x[:, 0] > -1.5, -precision * x[:, 0].square() / 2, -math.inf)

    first = Gaussian(torch.zeros(1).double(), torch.eye(1).double())
    draws = first.sample(20_000, generator=seeded(1))
    path = [first, cut(1.0), cut(4.0)]
    x, log_weight = annealed_along(path, draws, MALA(0.2, 2), 3, generator=seeded(2))
    dead = log_weight == -math.inf
    assert torch.equal(dead, draws[:, 0] <= -1.5)
    assert x.isfinite().all()
    right = torch.tensor([Normal(0, 1).cdf(torch.tensor(3.0)) / 2])
    assert z_scores(log_weight.exp()[:, None], right).abs().item() < Z_MAX


def test_a_path_has_two_ends() -> None:
    with pytest.raises(ValueError, match="path must hold at least two log-densities, got 1"):
        annealed_along([gaussian(0, 1)], torch.zeros(4, 2).double(), MALA(0.1, 1), 2)


def test_bennett_is_the_constant_of_crooks() -> None:
    """Estimates of 500 replicates: unbiased, and with less than .7 of the spread of either
    direction alone, which are biased in opposite senses.
    """
    pairs = [crooks(30, seed) for seed in range(500)]
    both = torch.tensor([bennett(*pair) for pair in pairs]).double()
    forth = torch.stack([log_mean_exp(pair[0]) for pair in pairs])
    back = torch.stack([-log_mean_exp(pair[1]) for pair in pairs])
    assert z_scores(both[:, None], torch.tensor([1.3])).abs().item() < Z_MAX
    assert z_scores(forth[:, None], torch.tensor([1.3])).item() < -Z_MAX
    assert z_scores(back[:, None], torch.tensor([1.3])).item() > Z_MAX
    assert both.std() < 0.7 * min(forth.std(), back.std())


@pytest.mark.parametrize("sizes", [(4_000, 500), (500, 4_000)])
def test_bennett_knows_how_many_chains_went_each_way(sizes: tuple[int, int]) -> None:
    forth, back = crooks(4_000, 7)
    found = bennett(forth[: sizes[0]], back[: sizes[1]])
    assert found == pytest.approx(1.3, abs=0.2)
    assert found != bennett(forth, back)


def test_bennett_solves_its_equation_and_follows_shifts() -> None:
    forth, back = crooks(50, 3)
    r, m = bennett(forth, back[:20]), math.log(50 / 20)
    left, right = torch.sigmoid(forth - r - m).sum(), torch.sigmoid(back[:20] + r + m).sum()
    torch.testing.assert_close(left, right, rtol=0, atol=1e-8)
    assert bennett(forth + 500, back - 500) == pytest.approx(bennett(forth, back) + 500)
    dead = torch.tensor([-math.inf]).double()
    assert math.isfinite(bennett(torch.cat([forth, dead]), back))
    with pytest.raises(ValueError, match="log_weight must be finite somewhere"):
        bennett(dead, back)


def test_a_blend_is_the_mean_of_two_densities() -> None:
    first, second = Normalised(gaussian(0, 1)), Normalised(gaussian(2, 0.5))
    x = torch.randn(9, 2, generator=seeded()).double()
    blend = Blend(first, second)
    expected = (
        Normal(0, 1).log_prob(x).sum(1).exp() + Normal(2, 0.5).log_prob(x).sum(1).exp()
    ) / 2
    torch.testing.assert_close(blend(x).exp(), expected)
    value, grad = value_and_grad(blend, x)
    recorded_value, recorded_grad = value_and_grad(lambda x: blend(x), x)
    torch.testing.assert_close(value, recorded_value)
    torch.testing.assert_close(grad, recorded_grad)
