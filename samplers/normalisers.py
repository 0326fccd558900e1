r"""log Z from paths in both directions: annealing along several densities, and Bennett's estimate.

Chains annealed from ``initial`` to ``final`` have log-weights ``a``, and chains annealed back have
``b``. By reversibility the density of ``a`` among chains forth, times ``exp(a)``, is ``Z_final /
Z_initial`` times the density of ``-b`` among chains back (Crooks 1999). So the ratio of the two
normalisers is the constant of a logistic regression that tells the directions apart. Its maximum
likelihood is Bennett's acceptance ratio (Bennett 1976; Shirts et al. 2003), which has the least
variance of all estimates from these weights.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from scipy.optimize import root_scalar
from torch import Tensor

from samplers.base import Sampler, choose
from samplers.checks import check_kind
from samplers.densities import Density, LogDensity, per_chain, value_and_grad
from samplers.importance import Living, annealed_importance, check_some_weight
from samplers.run_checks import is_readable


class Blend(Density):
    """The log-density ``log((exp first(x) + exp second(x)) / 2)``: a draw of either of two
    normalised densities, with equal chances.
    """

    def __init__(self, first: LogDensity, second: LogDensity) -> None:
        self.first, self.second = first, second

    def __call__(self, x: Tensor) -> Tensor:
        return torch.logaddexp(self.first(x), self.second(x)) - math.log(2)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Value (chains,) and gradient, like ``x``: the mean of both gradients, by their shares of
        the density at ``x``.
        """
        (first, first_grad), (second, second_grad) = (
            value_and_grad(f, x) for f in (self.first, self.second)
        )
        share = per_chain(torch.sigmoid(first - second), first_grad)
        grad = share * first_grad + (1 - share) * second_grad
        return torch.logaddexp(first, second) - math.log(2), grad


def annealed_along(
    path: Sequence[LogDensity],
    position: Tensor,
    sampler: Sampler,
    num_rungs: int,
    *,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Annealed importance sampling along several densities, ``num_rungs`` steps for each pair of
    neighbours.

    Args:
        path: Log-densities, two or more; ``position`` are draws of the first.
        position: Exact draws (chains, \\*event).
        sampler: As for ``annealed_importance``; it also moves the chains at each density between.
        num_rungs: Steps from one density to the next.
        generator: Source of randomness.

    Returns:
        Positions (chains, \\*event) and their log-weights (chains,) for the last density, with
        ``E[exp(log_weight)] = Z_last / Z_first``. A chain that has visited a point where the next
        density is zero has the log-weight -inf, and stays in the support of the first density.

    Raises:
        ValueError: For fewer than two densities, or ``num_rungs < 1``.
        FloatingPointError: For a log-weight that is NaN or +inf.
    """
    if len(path) < 2:
        raise ValueError(f"path must hold at least two log-densities, got {len(path)}")
    start, total = position, position.new_zeros(len(position))
    for k, (initial, final) in enumerate(pairwise(path)):
        alive = total > -math.inf
        if is_readable(alive) and not bool(alive.all()):
            position = choose(alive, position, start)
            initial, final = (Living(density, path[0], alive) for density in (initial, final))
        if k:
            position = sampler.sample(initial, position, generator=generator)
        position, log_weight = annealed_importance(
            initial, final, position, sampler, num_rungs, generator=generator
        )
        total = total + log_weight
    return position, total


def bennett(forth: Tensor, back: Tensor) -> float:
    """Bennett's acceptance ratio: the estimate r of ``log Z_final / Z_initial`` that solves
    ``sum_i sigmoid(forth_i - r - m) = sum_j sigmoid(back_j + r + m)``, ``m = log(n / k)``.

    Args:
        forth: Log-weights (n,) of chains from exact draws of ``initial``.
        back: Log-weights (k,) of chains from exact draws of ``final`` to ``initial``.

    Raises:
        ValueError: For weights that are empty, NaN, +inf or all -inf.
    """
    check_kind("bennett", Tensor, forth=forth, back=back)
    for log_weight in (forth, back):
        check_some_weight(log_weight, 0)
    forth, back = forth.double(), back.double()
    m = math.log(len(forth) / len(back))

    def excess(r: float) -> float:
        return (torch.sigmoid(forth - r - m).sum() - torch.sigmoid(back + r + m).sum()).item()

    ends = torch.cat([forth, -back])
    ends = ends[ends.isfinite()]
    reach = abs(m) + math.log(len(forth) + len(back)) + 1.0
    bracket = ends.min().item() - reach, ends.max().item() + reach
    return float(root_scalar(excess, bracket=bracket, xtol=1e-10).root)
