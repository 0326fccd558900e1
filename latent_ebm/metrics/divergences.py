"""The KL divergence between two distributions, from samples or from densities in the plane."""

import math
from collections.abc import Sequence

import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from latent_ebm.metrics.checks import as_pair
from samplers import LogDensity
from samplers.checks import check_counts

GRID_ROWS = 16384  # points at which densities are evaluated at once


def knn_kl(p_draws: Tensor, q_draws: Tensor, k: int = 5) -> float:
    """k-NN estimate of KL(p||q) in nats (Wang, Kulkarni, Verdu, IEEE Trans. Inf. Theory 55, 2009).

    `(d / n) sum_i log(nu_i / rho_i) + log(m / (n - 1))`, where rho_i and nu_i are the distances
    from the i-th draw of p to its k-th neighbour among the other draws of p and among the draws of
    q. The estimate is consistent. It is too small where p has mass that hardly any draw of q
    reaches, more so in high dimension: read it as a lower bound there.

    Args:
        p_draws: independent draws of p, shape (n, d), n >= k + 1.
        q_draws: independent draws of q, shape (m, d), m >= k + 1.
        k: which neighbour to use, at least 1; a larger k lowers variance and raises bias.

    Raises:
        ValueError: k < 1, a set is not a finite real matrix, is too short, the widths differ, or
            more than k draws coincide (as rejected Metropolis moves do), where the estimator is
            undefined.
    """
    check_counts("knn_kl", k=k)
    p, q = as_pair("p_draws", p_draws, "q_draws", q_draws, min_rows=k + 1)
    log_rho = _log_knn_distance("p_draws", p, None, k)
    log_nu = _log_knn_distance("q_draws", q, p, k)
    return float(p.shape[1] * (log_nu - log_rho).mean() + math.log(len(q) / (len(p) - 1)))


def grid_kl(
    p_log_prob: LogDensity,
    q_log_prob: LogDensity,
    lower: float | Sequence[float] | Tensor,
    upper: float | Sequence[float] | Tensor,
    num: int = 400,
) -> float:
    """KL(p||q) in nats of two densities on a rectangle of the plane, by the midpoint rule;
    infinite if q is zero where p is not.

    Both log-densities are normalised over the rectangle, so either may be known up to a constant,
    and the rectangle must hold nearly all mass of both. They are called on (rows, 2) points with
    the dtype and device of the corners.

    Args:
        p_log_prob: log-density (rows, 2) -> (rows,), up to a constant.
        q_log_prob: log-density (rows, 2) -> (rows,), up to a constant.
        lower: lower corner, one number for both axes or shape (2,).
        upper: upper corner of the same form, above `lower`.
        num: cells per axis, at least 2.

    Raises:
        ValueError: num < 2, the corners are not ordered and finite, or a log-density returns a
            wrong shape, NaN, +inf or -inf everywhere.
    """
    check_counts("grid_kl", least=2, num=num)
    low, high = ((torch.as_tensor(corner) * 1.0).expand(2) for corner in (lower, upper))
    if not bool((low < high).all() and (high - low).isfinite().all()):
        raise ValueError(
            f"upper must be finite and above lower, got lower {low.tolist()} and upper "
            f"{high.tolist()}"
        )
    unit = (torch.arange(num, dtype=low.dtype, device=low.device) + 0.5) / num
    points = low + (high - low) * torch.cartesian_prod(unit, unit)
    log_p = _grid_log_mass("p_log_prob", p_log_prob, points)
    log_q = _grid_log_mass("q_log_prob", q_log_prob, points)
    # Where p has no mass the integrand is zero, also where log_p - log_q is inf - inf.
    return float(torch.where(log_p > -math.inf, log_p.exp() * (log_p - log_q), 0.0).sum())


def _log_knn_distance(name: str, draws: Tensor, query: Tensor | None, k: int) -> Tensor:
    """Log distance from every query to its k-th neighbour among the draws; without queries, from
    every draw to its k-th neighbour among the other draws.
    """
    neighbors = NearestNeighbors(n_neighbors=k).fit(draws.cpu().numpy())
    distance, _ = neighbors.kneighbors(None if query is None else query.cpu().numpy())
    radius = torch.from_numpy(distance[:, -1])
    if bool((radius == 0).any()):
        raise ValueError(
            f"{name} must not hold {k} draws at a draw of p, got {int((radius == 0).sum())} such "
            "points"
        )
    return radius.log()


def _grid_log_mass(name: str, log_prob: LogDensity, points: Tensor) -> Tensor:
    value = torch.cat([log_prob(block).detach() for block in points.split(GRID_ROWS)])
    if value.shape != points.shape[:1]:
        raise ValueError(
            f"{name} must map (rows, 2) to (rows,), got {tuple(value.shape)} for "
            f"{tuple(points.shape)}"
        )
    if bool(value.isnan().any()) or not bool(value.max().isfinite()):
        raise ValueError(
            f"{name} must be below +inf, not NaN and somewhere finite, got maximum "
            f"{float(value.max())}"
        )
    return value.double().log_softmax(0)
