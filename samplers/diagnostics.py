r"""Diagnostics: did the chains mix, do they move, are their draws those of the target?

Effective sample size and split R-hat (from ``pyro.ops.stats``) look at the chains alone and cannot see a mode that no
chain found. The kernel Stein discrepancy compares draws with the target's score, hence needs no normaliser, no exact
draws and no second sample.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from samplers.base import Info, LogDensity, value_and_grad


def check_draws(draws: Tensor, least: int) -> None:
    """Raise ``ValueError`` unless ``draws`` is (num_draws >= least, chains >= 1, \\*event)."""
    if draws.ndim < 2 or draws.shape[0] < least or draws.shape[1] < 1:
        raise ValueError(f"draws must have shape (num_draws >= {least}, chains >= 1, *event), got {tuple(draws.shape)}")


def ess(draws: Tensor) -> Tensor:
    """Effective sample size (\\*event) of ``draws`` (num_draws, chains, \\*event), all chains pooled.

    Initial monotone sequence estimator (Geyer 1992). Raises ``ValueError`` for fewer than 2 axes or 4 draws.
    """
    check_draws(draws, 4)
    from pyro.ops.stats import effective_sample_size

    return effective_sample_size(draws, chain_dim=1, sample_dim=0)


def split_rhat(draws: Tensor) -> Tensor:
    """Split R-hat (\\*event) of ``draws`` (num_draws, chains, \\*event): 1 when half-chains agree, suspect above 1.05.

    Source: Gelman et al. 2013. Raises ``ValueError`` for fewer than 2 axes or 4 draws.
    """
    check_draws(draws, 4)
    from pyro.ops.stats import split_gelman_rubin

    return split_gelman_rubin(draws, chain_dim=1, sample_dim=0)


def acceptance(infos: Iterable[Info]) -> Tensor:
    """Mean acceptance probability (chains,) over ``infos``, as yielded by ``Sampler.run``. ``ValueError`` if none."""
    total, count = None, 0
    for info in infos:
        total, count = info.accept_prob if total is None else total + info.accept_prob, count + 1
    if total is None:
        raise ValueError("infos must hold at least one Info, got none")
    return total / count


def kernel_stein_discrepancy(
    log_density: LogDensity, x: Tensor, *, scale: float = 1.0, exponent: float = -0.5
) -> Tensor:
    """Distance (scalar, >= 0) of draws ``x`` (n, \\*event) from the law whose log-density is given; V-statistic.

    Square root of the mean over all pairs, the diagonal included, of the Stein kernel of the inverse multiquadric
    ``(scale^2 + |x - y|^2)^exponent``, which detects non-convergence for ``-1 < exponent < 0`` (Gorham & Mackey 2017,
    arXiv:1703.01717). It is 0 only in the limit: n exact draws give O(n^-1/2). Time and memory O(n^2). Raises
    ``ValueError`` for fewer than 2 draws, a non-positive ``scale`` or an exponent outside (-1, 0).
    """
    if x.ndim < 2 or len(x) < 2:
        raise ValueError(f"x must have shape (n >= 2, *event), got {tuple(x.shape)}")
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    if not -1 < exponent < 0:
        raise ValueError(f"exponent must lie in (-1, 0), got {exponent}")
    _, score = value_and_grad(log_density, x)
    x, score = x.detach().flatten(1), score.flatten(1)
    x = x - x.mean(0)  # products of centred numbers cancel less
    cross, own = score @ x.mT, (score * x).sum(1)
    square = torch.cdist(x, x).square()
    base = scale**2 + square
    # s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr grad_x grad_y k, over k
    drift = own[:, None] + own - cross - cross.mT
    trace = x.shape[1] + 2 * (exponent - 1) * square / base
    stein = base**exponent * (score @ score.mT - 2 * exponent * (drift + trace) / base)
    return stein.mean().clamp(min=0.0).sqrt()
