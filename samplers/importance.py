r"""Importance weights: resampling, effective sample size, and annealed importance sampling with
bounds on log Z.

Annealed importance sampling (Neal 2001, arXiv:physics/9803008) starts at an exact draw ``x_0`` of
``f_0`` and follows the log-densities ``f_beta = (1 - beta) f_0 + beta f_1``. At each rung it
*first* adds ``f_{beta_k}(x) - f_{beta_{k-1}}(x)`` to the log-weight at the old position and *then*
moves x by a kernel that leaves ``f_{beta_k}`` invariant. Then ``E[w] = Z_1 / Z_0`` exactly. By
Jensen's inequality ``log mean w`` is a lower bound of ``log Z_1 / Z_0`` in expectation. The chain
run backwards from exact draws of ``f_1`` gives an upper bound (Grosse et al. 2015,
arXiv:1511.02543).
"""

import math

import torch
from torch import Tensor

from samplers.base import Sampler, choose
from samplers.checks import check_counts, check_kind
from samplers.densities import Density, LogDensity, Sum, Terms, value_and_grad
from samplers.derivatives import check_value
from samplers.hmc import HMC
from samplers.langevin import MALA
from samplers.run_checks import check_finite, check_position, is_readable


def check_log_weight(log_weight: Tensor) -> None:
    """Raise ``ValueError`` unless ``log_weight`` is a non-empty tensor of real entries, each of
    them finite or -inf (a weight of zero).
    """
    check_kind("importance", Tensor, log_weight=log_weight)
    if log_weight.is_complex():
        raise ValueError(f"log_weight must be real, got {log_weight.dtype}")
    if log_weight.ndim == 0 or log_weight.numel() == 0:
        raise ValueError(f"log_weight must not be empty, got shape {tuple(log_weight.shape)}")
    if not is_readable(log_weight) or bool(torch.isfinite(log_weight).all()):
        return
    if len(bad := log_weight[log_weight.isnan() | (log_weight == math.inf)]):
        raise ValueError(
            f"log_weight must be finite or -inf, got {bad[0].item()} ({len(bad)} of "
            f"{log_weight.numel()} entries)"
        )


def check_some_weight(log_weight: Tensor, dim: int) -> None:
    """Call ``check_log_weight``, and raise ``ValueError`` unless some weight along ``dim`` is
    positive.
    """
    check_log_weight(log_weight)
    if is_readable(log_weight) and not bool(log_weight.isfinite().any(dim).all()):
        raise ValueError(
            "log_weight must be finite somewhere, got -inf everywhere: no draw has any weight"
        )


def resample(
    position: Tensor,
    log_weight: Tensor,
    num: int | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw ``num`` rows by systematic resampling: row i comes ``num * w_i / sum(w)`` times on
    average.

    Copies of a row are adjacent. Source: Kitagawa 1996.

    Args:
        position: The rows (n, \\*event).
        log_weight: One log-weight per row (n,); -inf for rows that must not be drawn.
        num: How many rows to draw; n if left out.
        generator: Source of randomness.

    Raises:
        ValueError: For weights that are empty, NaN, +inf, all -inf or not one per row, or
            ``num < 1``.
    """
    check_some_weight(log_weight, -1)
    if log_weight.shape != position.shape[:1]:
        raise ValueError(
            f"log_weight must have shape {tuple(position.shape[:1])}, got "
            f"{tuple(log_weight.shape)}"
        )
    num = len(position) if num is None else num
    check_counts("resample", num=num)
    share = log_weight.double().softmax(0).cumsum(0)
    offset = share.new_empty(1).uniform_(generator=generator)
    ticks = (torch.arange(num, device=share.device) + offset) / num
    index = torch.searchsorted(share / share[-1], ticks, right=True).clamp(max=len(position) - 1)
    return position[index]


def effective_sample_size(log_weight: Tensor, dim: int = -1) -> Tensor:
    """Kish's effective sample size as a fraction of n, ``(sum w)^2 / (n sum w^2)``, along ``dim``.

    It lies in (0, 1] and is 1 for equal weights.

    Raises:
        ValueError: For weights that are empty, NaN, +inf or all -inf.
    """
    check_some_weight(log_weight, dim)
    log_weight = log_weight - log_weight.amax(dim, keepdim=True)  # large ones lose digits
    return (2 * log_mean_exp(log_weight, dim) - log_mean_exp(2 * log_weight, dim)).exp()


def log_mean_exp(log_weight: Tensor, dim: int = -1) -> Tensor:
    """``log(mean(exp(log_weight)))`` along ``dim``, without overflow.

    Raises:
        ValueError: For weights that are empty, NaN or +inf.
    """
    check_log_weight(log_weight)
    return log_weight.logsumexp(dim) - math.log(log_weight.shape[dim])


class Interpolated(Sum):
    """The geometric path ``(1 - beta) * initial(x) + beta * final(x)``, 0 < beta < 1."""

    def __init__(self, initial: LogDensity, final: LogDensity, beta: float) -> None:
        self.initial, self.final, self.beta = initial, final, beta

    def terms(self) -> Terms:
        return (1 - self.beta, self.initial), (self.beta, self.final)


class Living(Density):
    """``path`` for the chains that are ``alive`` (chains,), and ``initial`` for the others, whose
    weight is zero already.
    """

    def __init__(self, path: LogDensity, initial: LogDensity, alive: Tensor) -> None:
        self.path, self.initial, self.alive = path, initial, alive

    def __call__(self, x: Tensor) -> Tensor:
        return choose(self.alive, self.path(x), self.initial(x))

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        (value, grad), (initial, initial_grad) = (
            value_and_grad(f, x) for f in (self.path, self.initial)
        )
        return choose(self.alive, value, initial), choose(self.alive, grad, initial_grad)


def log_ratio(initial: LogDensity, final: LogDensity, x: Tensor) -> Tensor:
    """``final(x) - initial(x)`` (chains,), without a graph."""
    with torch.no_grad():
        ends = final(x), initial(x)
    for value in ends:
        check_value(value, x)
    return ends[0] - ends[1]


def check_invariant(sampler: Sampler) -> None:
    """Raise ``ValueError`` unless ``sampler`` leaves its target exactly invariant."""
    if not isinstance(sampler, (HMC, MALA)):
        raise ValueError(
            f"sampler must be HMC or MALA, which leave their target invariant, got {sampler!r}"
        )


def annealed_importance(
    initial: LogDensity,
    final: LogDensity,
    position: Tensor,
    sampler: Sampler,
    num_rungs: int,
    *,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Annealed importance sampling from ``initial`` to ``final`` in ``num_rungs`` equal steps.

    Args:
        initial: Log-density that ``position`` was drawn from.
        final: Log-density of the target.
        position: Exact draws of ``initial`` (chains, \\*event).
        sampler: Run once (``sampler.sample``) at every intermediate rung. It must leave its target
            invariant, as MALA and HMC do.
        num_rungs: Number of steps; 1 is plain importance sampling.
        generator: Source of randomness.

    Returns:
        Positions (chains, \\*event) and their ``log_weight`` (chains,) for ``final``, with
        ``E[exp(log_weight)] = Z_final / Z_initial``. A chain that has visited a point where the
        final density is zero has the log-weight -inf.

    Raises:
        ValueError: For ``num_rungs < 1``.
        FloatingPointError: For a log-weight that is NaN or +inf.
    """
    check_position(position)
    check_counts("annealed_importance", num_rungs=num_rungs)
    log_weight = log_ratio(initial, final, position) / num_rungs
    for k in range(1, num_rungs):
        rung, alive = Interpolated(initial, final, k / num_rungs), log_weight > -math.inf
        if is_readable(alive) and not bool(alive.all()):
            rung = Living(rung, initial, alive)
        position = sampler.sample(rung, position, generator=generator)
        log_weight = log_weight + log_ratio(initial, final, position) / num_rungs
    check_finite(
        "log_weight",
        log_weight.clamp(min=0),
        "initial must be finite at its draws, and final below +inf",
    )
    return position.detach(), log_weight


def log_z_bracket(
    initial: LogDensity,
    final: LogDensity,
    initial_draws: Tensor,
    final_draws: Tensor,
    sampler: Sampler,
    num_rungs: int,
    *,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """Stochastic ``(lower, upper)`` bounds of ``log Z_final / Z_initial``, pooled over chains
    (arXiv:1511.02543).

    ``initial_draws`` and ``final_draws`` (chains, \\*event) must be exact draws of either end. The
    bounds then hold in expectation, and with high probability by Markov's inequality. If
    ``final_draws`` are not exact (a short chain), the upper value is not a bound. For bounds per
    datum, call ``annealed_importance`` on grouped chains, then ``log_mean_exp``.
    """
    _, forth = annealed_importance(
        initial, final, initial_draws, sampler, num_rungs, generator=generator
    )
    _, back = annealed_importance(
        final, initial, final_draws, sampler, num_rungs, generator=generator
    )
    return log_mean_exp(forth).item(), -log_mean_exp(back).item()
