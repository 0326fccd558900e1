r"""Diagnostics: did the chains mix, do they move, do their draws follow the target?

Effective sample size and split R-hat look at the chains alone and cannot see a mode that no chain
has found. The kernel Stein discrepancy compares draws with the target's score. It needs no
normaliser, no exact draws and no second sample.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from samplers.base import Info
from samplers.checks import check_kind, check_numbers
from samplers.densities import LogDensity, value_and_grad
from samplers.run_checks import check_position, check_start


def check_draws(draws: Tensor, least: int) -> None:
    """Raise ``ValueError`` unless ``draws`` (num_draws >= least, chains >= 1, \\*event) are
    finite.
    """
    check_kind("diagnostics", Tensor, draws=draws)
    if draws.is_complex():
        raise ValueError(f"draws must be real, got {draws.dtype}")
    if draws.ndim < 2 or draws.shape[0] < least or draws.shape[1] < 1:
        raise ValueError(
            f"draws must have shape (num_draws >= {least}, chains >= 1, *event), got "
            f"{tuple(draws.shape)}"
        )
    if not bool(draws.isfinite().all()):
        raise ValueError(
            f"draws must be finite: {int((~draws.isfinite()).sum())} of {draws.numel()} entries "
            "are not"
        )


def ess(draws: Tensor) -> Tensor:
    """Bulk effective sample size (\\*event) of ``draws`` (num_draws, chains, \\*event), all chains
    pooled.

    Each chain is cut into halves, and the draws are replaced by normal scores of their ranks. The
    autocorrelations are summed up to the end of Geyer's initial monotone sequence (Geyer 1992).
    The variance between halves counts as well, so that chains that disagree have few effective
    draws. The size is at most ``N log10 N`` for N draws (draws that alternate about the mean), and
    1 where all draws are equal. Source: Vehtari et al. 2021, arXiv:1903.08008.

    Raises:
        ValueError: For fewer than 2 axes, fewer than 10 draws, which have too few lags to sum up,
            or draws that are not finite.
    """
    check_draws(draws, least=10)
    x = normal_scores(halves(draws))
    num, chains = x.shape[:2]
    between, within = chain_variances(x)
    total = within * (num - 1) / num + between
    rho = 1 - (within - autocovariance(x).mean(1)) / total  # (num, events)
    rho[0] = 1
    tau = (monotone_sum(rho) - 1).clamp(min=1 / math.log10(num * chains))
    size = torch.where(total > 0, num * chains / tau, 1.0)
    return like(size, draws)


def split_rhat(draws: Tensor) -> Tensor:
    """Rank-normalised split R-hat (\\*event) of ``draws`` (num_draws, chains, \\*event): 1 when
    half-chains agree.

    Values above 1.01 are suspect, values above 1.1 are bad. R-hat is computed for the draws, which
    shows chains with different means, and for their distances from the median, which shows chains
    with different spreads, such as a stuck one; the larger value is returned. It is infinite where
    no half-chain moves. Distances that are all equal, as of draws with two values, do not count.
    Source: Vehtari et al. 2021, arXiv:1903.08008.

    Raises:
        ValueError: For fewer than 2 axes or 4 draws, or draws that are not finite.
    """
    check_draws(draws, least=4)
    x = halves(draws)
    middle = torch.from_numpy(np.median(x.flatten(0, 1).numpy(), axis=0))
    distance = (x - middle).abs()
    differ = distance.amax((0, 1)) > distance.amin((0, 1))
    found, folded = (ratio_of_scales(normal_scores(part)) for part in (x, distance))
    return like(torch.where(differ, torch.maximum(found, folded), found), draws)


def like(value: Tensor, draws: Tensor) -> Tensor:
    """``value`` (events,) in the event shape, on the device and in the precision of ``draws``, but
    in float32 at least.
    """
    dtype = torch.promote_types(draws.dtype, torch.float32)
    return value.view(draws.shape[2:]).to(draws.device, dtype)


def halves(draws: Tensor) -> Tensor:
    """The first and last half of each chain as separate chains (num_draws // 2, 2 chains, events),
    in float64 on the CPU.
    """
    x, num = draws.detach().double().cpu(), len(draws) // 2
    x = x.unsqueeze(2).flatten(2)
    return torch.cat([x[:num], x[-num:]], 1)


def normal_scores(x: Tensor) -> Tensor:
    """Normal quantiles of the ranks of ``x`` (num, chains, events) among the draws of all chains.
    Ties get their average rank.
    """
    from scipy.stats import rankdata

    flat = x.flatten(0, 1)
    rank = torch.from_numpy(rankdata(flat.numpy(), axis=0))
    return torch.special.ndtri((rank - 0.375) / (len(flat) + 0.25)).view_as(x)


def chain_variances(x: Tensor) -> tuple[Tensor, Tensor]:
    """The variance of the chains' means and the mean of their variances, both (events,), for ``x``
    (num, chains, events).
    """
    return x.mean(0).var(0), x.var(0).mean(0)


def ratio_of_scales(x: Tensor) -> Tensor:
    """R-hat (events,) of chains ``x`` (num, chains, events): the square root of the pooled
    variance over the mean variance of a chain.
    """
    between, within = chain_variances(x)
    return torch.where(within > 0, (between / within + (len(x) - 1) / len(x)).sqrt(), math.inf)


def autocovariance(x: Tensor) -> Tensor:
    """Autocovariance of ``x`` (num, chains, events) along the first axis at lags 0 to num - 1, by
    Fourier transform.
    """
    num = len(x)
    spectrum = torch.fft.rfft(x - x.mean(0), n=2 * num, dim=0)
    return torch.fft.irfft(spectrum.abs().square(), n=2 * num, dim=0)[:num] / num


def monotone_sum(rho: Tensor) -> Tensor:
    """Sum (events,) of ``rho`` (num, events) over all lags of both signs, by Geyer's initial
    monotone sequence.

    Adjacent lags are added in pairs, and the sums are made decreasing. Pairs count until one is
    not positive; of that pair only the even lag counts, if it is positive.
    """
    last = max(0, (len(rho) - 3) // 2)  # number of pairs that have a successor
    pairs = (rho[0::2][: last + 1] + rho[1::2][: last + 1]).cummin(0).values
    stop = torch.where((pairs <= 0).any(0), (pairs <= 0).int().argmax(0), last)
    counted = torch.arange(last + 1, device=rho.device)[:, None] < stop
    edge = rho[0::2].gather(0, stop[None])[0].clamp(min=0)
    return 2 * (pairs * counted).sum(0) + edge


def acceptance(infos: Iterable[Info]) -> Tensor:
    """Mean acceptance probability (chains,) over ``infos``, as yielded by ``Sampler.run``.

    Raises:
        ValueError: If there are no infos.
    """
    total, count = None, 0
    for info in infos:
        total, count = info.accept_prob if total is None else total + info.accept_prob, count + 1
    if total is None:
        raise ValueError("infos must hold at least one Info, got none")
    return total / count


def kernel_stein_discrepancy(
    log_density: LogDensity, x: Tensor, *, scale: float = 1.0, exponent: float = -0.5
) -> Tensor:
    """Distance (scalar, >= 0) of draws ``x`` (n, \\*event) from the distribution with the
    given log-density; V-statistic.

    It is the square root of the Stein kernel's mean over all pairs, including each draw with
    itself, for the inverse multiquadric ``(scale^2 + |x - y|^2)^exponent``. That kernel detects
    non-convergence for ``-1 < exponent < 0`` (Gorham & Mackey 2017, arXiv:1703.01717). The
    distance is 0 only in the limit: n exact draws give O(n^-1/2). Time and memory are O(n^2).

    Raises:
        ValueError: For fewer than 2 draws, a non-positive ``scale`` or an exponent outside
            (-1, 0).
    """
    if x.ndim < 2 or len(x) < 2:
        raise ValueError(f"x must have shape (n >= 2, *event), got {tuple(x.shape)}")
    check_position(x, "x")
    check_numbers("kernel_stein_discrepancy", "positive", scale=scale)
    check_numbers("kernel_stein_discrepancy", "finite", exponent=exponent)
    if not -1 < exponent < 0:
        raise ValueError(f"exponent must lie in (-1, 0), got {exponent}")
    value, score = value_and_grad(log_density, x)
    check_start(x, value, score)
    x, score = x.detach().flatten(1), score.flatten(1)
    x = x - x.mean(0)  # centred entries lose fewer digits in products
    cross, own = score @ x.mT, (score * x).sum(1)
    square = torch.cdist(x, x).square()
    base = scale**2 + square
    # s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr grad_x grad_y k, over k
    drift = own[:, None] + own - cross - cross.mT
    trace = x.shape[1] + 2 * (exponent - 1) * square / base
    stein = base**exponent * (score @ score.mT - 2 * exponent * (drift + trace) / base)
    return stein.mean().clamp(min=0.0).sqrt()
