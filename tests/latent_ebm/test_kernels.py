"""Kernel priors are the mixtures they say they are, their widths follow the rows, and near kernels
alone count.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from latent_ebm.kernels import (
    KernelPrior,
    NeighbourPrior,
    leave_one_out_bandwidth,
    local_bandwidths,
)
from samplers import MALA, value_and_grad
from tests.latent_ebm.test_priors import grid_log_z


def kernel_prior(num: int = 5, bandwidth: float = 0.6) -> KernelPrior:
    z = torch.randn(num, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return KernelPrior(2 * z + 1, bandwidth)


def test_kernel_prior_is_a_mixture_that_integrates_to_one() -> None:
    prior, z = kernel_prior(), torch.randn(6, 2).double()
    assert grid_log_z(prior) == pytest.approx(0, abs=1e-9)
    parts = [
        MultivariateNormal(mean, 0.36 * torch.eye(2).double()).log_prob(z)
        for mean in prior.exemplars
    ]
    torch.testing.assert_close(prior(z), torch.stack(parts).logsumexp(0) - math.log(5))


def test_kernel_prior_knows_its_gradient() -> None:
    prior, z = kernel_prior(), 3 * torch.randn(50, 2).double()
    value, grad = value_and_grad(prior, z)
    expected_value, expected_grad = value_and_grad(lambda z: prior.log_density(z), z)
    torch.testing.assert_close(value, expected_value, rtol=0, atol=1e-12)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=1e-10)


def test_kernel_prior_draws_follow_its_moments() -> None:
    prior = kernel_prior()
    z = prior.sample(40_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(z, prior.sample(40_000, generator=torch.Generator().manual_seed(0)))
    mean = prior.exemplars.mean(0)
    centred = prior.exemplars - mean
    covariance = centred.mT @ centred / 5 + 0.36 * torch.eye(2).double()
    torch.testing.assert_close(z.mean(0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(z.mT.cov(), covariance, rtol=0.03, atol=0.05)


@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("shift", [0.0, 1e5])
def test_leave_one_out_bandwidth_is_the_best_on_a_grid(dim: int, shift: float) -> None:
    z = torch.randn(80, dim, generator=torch.Generator().manual_seed(2)).double() + shift
    found = leave_one_out_bandwidth(z)

    def likelihood(h: float) -> float:
        rows = [
            KernelPrior(torch.cat([z[:i], z[i + 1 :]]), h)(z[i : i + 1]) for i in range(len(z))
        ]
        return float(torch.cat(rows).mean())

    grid = found * torch.linspace(0.5, 2, 31).double()
    best = max(likelihood(float(h)) for h in grid)
    assert likelihood(found) >= best - 1e-6
    assert likelihood(found) > likelihood(0.5 * found) + 1e-3


def test_copies_of_rows_do_not_narrow_the_kernels() -> None:
    z = torch.randn(50, 3, generator=torch.Generator().manual_seed(3)).double()
    expected = leave_one_out_bandwidth(z)
    noise = 1e-15 * torch.randn(50, 3, generator=torch.Generator().manual_seed(4)).double()
    for copies in (torch.cat([z, z]), torch.cat([z, z + noise, z - noise])):
        assert leave_one_out_bandwidth(copies) == pytest.approx(expected, rel=1e-4)
    for same in (z[:1], z[:1].expand(9, 3)):
        with pytest.raises(ValueError, match="two different rows"):
            leave_one_out_bandwidth(same)


def test_bandwidth_scales_with_the_rows() -> None:
    z = torch.randn(60, 2, generator=torch.Generator().manual_seed(5)).double()
    expected = leave_one_out_bandwidth(z)
    for scale in (1e-6, 1e6):
        assert leave_one_out_bandwidth(scale * z) == pytest.approx(scale * expected, rel=1e-4)


@pytest.mark.parametrize(
    ("exemplars", "bandwidth"), [((3,), 1.0), ((0, 2), 1.0), ((3, 2), 0.0), ((3, 2), math.nan)]
)
def test_kernel_prior_refuses(exemplars: tuple[int, ...], bandwidth: float) -> None:
    with pytest.raises(ValueError, match=r"exemplars must have|bandwidth must be"):
        KernelPrior(torch.zeros(exemplars), bandwidth)


WIDTHS = torch.tensor([0.3, 0.5, 0.6, 0.8, 1.1]).double()


def varied() -> KernelPrior:
    return KernelPrior(kernel_prior().exemplars, WIDTHS)


@pytest.mark.cpu
def test_kernels_of_different_widths_are_the_mixture() -> None:
    prior, z = varied(), torch.randn(6, 2).double()
    assert grid_log_z(prior) == pytest.approx(0, abs=1e-9)
    pairs = zip(prior.exemplars, WIDTHS, strict=True)
    parts = [
        MultivariateNormal(mean, h**2 * torch.eye(2).double()).log_prob(z) for mean, h in pairs
    ]
    torch.testing.assert_close(prior(z), torch.stack(parts).logsumexp(0) - math.log(5))
    value, grad = value_and_grad(prior, z)
    torch.testing.assert_close((value, grad), value_and_grad(lambda z: prior.log_density(z), z))
    precision = torch.stack(parts).softmax(0).mT @ WIDTHS**-2
    torch.testing.assert_close(prior.mean_shift(z), z + grad / precision[:, None])


def test_draws_of_kernels_of_different_widths() -> None:
    prior = varied()
    z = prior.sample(40_000, generator=torch.Generator().manual_seed(0))
    centred = prior.exemplars - prior.exemplars.mean(0)
    covariance = centred.mT @ centred / 5 + WIDTHS.square().mean() * torch.eye(2).double()
    torch.testing.assert_close(z.mT.cov(), covariance, rtol=0.03, atol=0.05)


def test_loaded_kernels_are_those_of_the_state() -> None:
    prior, other = varied(), KernelPrior(torch.zeros(5, 2).double(), 1.0)
    other.load_state_dict(prior.state_dict())
    z = torch.randn(6, 2).double()
    assert torch.equal(other(z), prior(z))


def scattered(num: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed)).double()


def neighbour_prior(exemplars: Tensor, k: int = 4, slope: float = 0.5) -> NeighbourPrior:
    h, _ = local_bandwidths(exemplars, k)
    return NeighbourPrior(KernelPrior(exemplars, h), -slope * h.log(), k, MALA(0.05, 20))


def by_hand(z: Tensor, prior: NeighbourPrior, exemplars: Tensor, h: Tensor) -> Tensor:
    """One row at a time."""
    out = []
    for row in z:
        square = (exemplars - row).square().sum(1)
        i = square.argsort()[: prior.num_neighbours]
        out.append((h[i] ** -0.5 * (-0.5 * square[i] / h[i] ** 2).exp()).sum().log())
    return torch.stack(out)


def test_only_the_nearest_kernels_count() -> None:
    exemplars, z = 3 + scattered(50, 3), 3 + scattered(20, 3, 1)
    prior = neighbour_prior(exemplars)
    torch.testing.assert_close(prior(z), by_hand(z, prior, exemplars, prior.base.bandwidth))
    near = exemplars[7:12] + 0.1 * scattered(5, 3, 2)
    for z, own in (
        (exemplars[7:12], prior.own_part(7, 12)),
        (near, prior.own_part(7, 12, near)),
    ):
        left_out = [
            by_hand(
                z[i - 7 : i - 6],
                prior,
                *(torch.cat([a[:i], a[i + 1 :]]) for a in (exemplars, prior.base.bandwidth)),
            )
            for i in range(7, 12)
        ]
        torch.testing.assert_close(prior(z) - own, torch.cat(left_out))


def test_the_own_part_of_a_block_is_that_of_its_rows() -> None:
    exemplars = scattered(30, 2)
    prior = KernelPrior(exemplars, 0.7)
    for z, parts in (
        (exemplars, prior.own_part(20, 25)),
        (exemplars + 1, prior.own_part(20, 25, exemplars[20:25] + 1)),
    ):
        for i, own in zip(range(20, 25), parts, strict=True):
            others = KernelPrior(torch.cat([exemplars[:i], exemplars[i + 1 :]]), 0.7)
            without = others(z[i : i + 1]) + math.log(29 / 30)
            torch.testing.assert_close(prior(z[i : i + 1]) - own, without)


def test_gaps_are_compared_with_those_nearby() -> None:
    # A cluster and its image ten times as wide, far away: with equal heights, corresponding points
    # have equal energies.
    cluster, z = scattered(100, 3), 1.5 * scattered(20, 3, 1)
    exemplars = torch.cat([cluster, 1000 + 10 * cluster])
    h, _ = local_bandwidths(exemplars, 5)
    torch.testing.assert_close(h[100:], 10 * h[:100], rtol=1e-4, atol=0)
    prior = NeighbourPrior(KernelPrior(exemplars, h), torch.zeros(200).double(), 5, MALA(0.1, 1))
    torch.testing.assert_close(prior(1000 + 10 * z), prior(z), rtol=1e-3, atol=1e-3)


def test_neighbours_tell_the_dimension_in_which_they_spread() -> None:
    flat = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0)).double()
    directions = torch.linalg.qr(scattered(10, 2)).Q
    h, m = local_bandwidths(flat @ directions.mT, 20)
    assert m == pytest.approx(2, abs=0.15)
    reach = torch.cdist(flat, flat).topk(21, largest=False).values[:, -1]
    torch.testing.assert_close(h, reach / math.sqrt(m), rtol=1e-4, atol=0)


def test_copies_do_not_close_the_gaps() -> None:
    z = scattered(50, 3)
    h, _ = local_bandwidths(z, 5)
    copied, _ = local_bandwidths(torch.cat([z, z, z]), 5)
    torch.testing.assert_close(copied, h.repeat(3), rtol=1e-6, atol=0)
    few, _ = local_bandwidths(z[:2], 5)
    assert (few > 0).all()
    with pytest.raises(ValueError, match="two different rows"):
        local_bandwidths(z[:1].expand(9, 3), 5)
    with pytest.raises(ValueError, match="num_neighbours must be an integer >= 2, got 1"):
        local_bandwidths(z, 1)


def test_neighbour_prior_draws_near_its_exemplars() -> None:
    prior = neighbour_prior(10 * scattered(8, 2), 2)
    z = prior.sample(200, generator=torch.Generator().manual_seed(0))
    assert (
        torch.cdist(z, prior.base.exemplars).min(1).values < 5 * prior.base.bandwidth.max()
    ).all()
    assert torch.equal(z, prior.sample(200, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("heights", "k", "message"),
    [(4, 2, "log_heights must have"), (5, 5, r"num_neighbours must be in")],
)
def test_neighbour_prior_refuses(heights: int, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeighbourPrior(varied(), torch.zeros(heights).double(), k, MALA(0.1, 1))


def test_bandwidths_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match=r"bandwidth must be a number or have shape \(5,\)"):
        KernelPrior(torch.zeros(5, 2), torch.ones(4))
