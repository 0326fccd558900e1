"""Distances between sets of samples, and scores of reconstructions and detectors.

A sample-based metric compares the empirical measures of two sets, so what it can see is decided by
what it measures: the Frechet distance sees two moments, precision and recall (and their robust
forms density and coverage) see supports through k-nearest-neighbour balls and separate bad samples
from missing modes, MMD sees every moment weighted by a kernel, and the k-NN divergence estimates
KL(p||q) itself from the ratio of neighbour distances. In two dimensions the KL of two densities
needs no samples: a grid normalises both. Everything is computed in float64, without gradients.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from samplers import LogDensity
from samplers.checks import check_counts, check_kind

BLOCK_ROWS = 128
GRID_ROWS = 16384
MEDIAN_ROWS = 2048
MEDIAN_MULTIPLES = (0.25, 0.5, 1.0, 2.0, 4.0)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Frechet distance of the Gaussians fitted to two feature sets (Heusel et al.,
    arXiv:1706.08500).

    `|mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2)` with unbiased covariances `A`, `B`.
    With `A = R_a' R_a` (the QR factor of the centred rows) the last trace is the nuclear norm of
    `R_a R_b'`: real, without a matrix square root, and accurate for singular covariances too.

    Args:
        a: first set, shape (n, d), n >= 2.
        b: second set, shape (m, d), m >= 2.

    Raises:
        ValueError: a set is not a finite real matrix, has fewer than two rows, or the widths
            differ.
    """
    a, b = _pair("a", a, "b", b, min_rows=2)
    root_a, root_b = _covariance_factor(a), _covariance_factor(b)
    mean_term = (a.mean(0) - b.mean(0)).square().sum()
    trace_term = root_a.square().sum() + root_b.square().sum()
    cross_term = torch.linalg.matrix_norm(root_a @ root_b.mT, ord="nuc")
    return max(0.0, float(mean_term + trace_term - 2 * cross_term))


def prdc(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, float]:
    """Precision and recall (arXiv:1904.06991), density and coverage (arXiv:2002.09797), over
    closed k-NN balls.

    Precision: share of fakes inside some real ball. Recall: share of reals inside some fake ball.
    Density: mean number of real balls that hold a fake, over k (1 in expectation for equal laws;
    may exceed 1). Coverage: share of real balls that hold a fake; `1 - prod_i (n - i) / (n + m -
    i)`, i = 1..k, in expectation for equal laws.

    Args:
        real: reference samples, shape (n, d), n >= k + 1.
        fake: model samples, shape (m, d), m >= k + 1.
        k: the neighbour, itself excluded, that sets a ball's radius; at least 1.

    Raises:
        ValueError: k < 1, or a set is not a finite real matrix, is too short, or the widths
            differ.
    """
    check_counts("prdc", k=k)
    real, fake = _pair("real", real, "fake", fake, min_rows=k + 1)
    real_radius, fake_radius = _knn_radius(real, k), _knn_radius(fake, k)
    balls_per_fake = torch.zeros(len(fake), dtype=torch.int64, device=fake.device)
    recalled, covered = [], []
    for rows, distance in _distance_blocks(real, fake):
        in_real_ball = distance <= real_radius[rows, None]
        balls_per_fake += in_real_ball.sum(0)
        covered.append(in_real_ball.any(1))
        recalled.append((distance <= fake_radius).any(1))
    return {
        "precision": float((balls_per_fake > 0).double().mean()),
        "recall": float(torch.cat(recalled).double().mean()),
        "density": float(balls_per_fake.double().mean() / k),
        "coverage": float(torch.cat(covered).double().mean()),
    }


def mmd(a: Tensor, b: Tensor, bandwidths: Sequence[float] | None = None) -> float:
    """Unbiased squared maximum mean discrepancy (Gretton et al., JMLR 13, 2012).

    Zero in expectation for equal laws, so it falls below zero too.

    The kernel is the sum over bandwidths s of `exp(-|x - y|^2 / (2 s^2))`.

    Args:
        a: first set, shape (n, d), n >= 2.
        b: second set, shape (m, d), m >= 2.
        bandwidths: positive kernel widths in units of the data. Default: the median distance of
            the pooled rows (of an even subset when they are many) times 1/4, 1/2, 1, 2, 4. Pass
            them to compare values across sets.

    Raises:
        ValueError: a set is not a finite real matrix, has fewer than two rows, the widths differ,
            or a bandwidth is not positive (the median of rows that mostly coincide is zero).
    """
    a, b = _pair("a", a, "b", b, min_rows=2)
    if bandwidths is None:
        bandwidths = [
            multiple * _median_distance(torch.cat([a, b])) for multiple in MEDIAN_MULTIPLES
        ]
    if not bandwidths or not all(0 < s < math.inf for s in bandwidths):
        raise ValueError(
            f"bandwidths must be positive finite numbers, at least one, got {list(bandwidths)}"
        )
    n, m, diagonal = len(a), len(b), len(bandwidths)
    within_a = (_kernel_sum(a, a, bandwidths) - n * diagonal) / (n * (n - 1))
    within_b = (_kernel_sum(b, b, bandwidths) - m * diagonal) / (m * (m - 1))
    return within_a + within_b - 2 * _kernel_sum(a, b, bandwidths) / (n * m)


def knn_kl(p_draws: Tensor, q_draws: Tensor, k: int = 5) -> float:
    """k-NN estimate of KL(p||q) in nats (Wang, Kulkarni, Verdu, IEEE Trans. Inf. Theory 55, 2009).

    `(d / n) sum_i log(nu_i / rho_i) + log(m / (n - 1))`, where rho_i and nu_i are the distances
    from the i-th draw of p to its k-th neighbour among the other draws of p and among the draws of
    q. Consistent. It falls short where p has mass that hardly any draw of q reaches, and the more
    so in high dimension: a lower bar then.

    Args:
        p_draws: independent draws of p, shape (n, d), n >= k + 1.
        q_draws: independent draws of q, shape (m, d), m >= k + 1.
        k: neighbour; larger trades variance for bias; at least 1.

    Raises:
        ValueError: k < 1, a set is not a finite real matrix, is too short, the widths differ, or
            more than k draws coincide (as rejected Metropolis moves do), where the estimator is
            undefined.
    """
    check_counts("knn_kl", k=k)
    p, q = _pair("p_draws", p_draws, "q_draws", q_draws, min_rows=k + 1)
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
    infinite if q misses p.

    Both log-densities are normalised over the rectangle, so either may be known up to a constant,
    and the rectangle must hold nearly all mass of both. They are called on (rows, 2) points with
    the dtype and device of the corners.

    Args:
        p_log_prob: log-density (rows, 2) -> (rows,), up to a constant.
        q_log_prob: log-density (rows, 2) -> (rows,), up to a constant.
        lower: lower corner, a number for both axes or shape (2,).
        upper: upper corner, likewise, above `lower`.
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


def reconstruction_mse(x: Tensor, x_hat: Tensor) -> float:
    """Mean squared error per pixel (per entry), over everything.

    Args:
        x: data, any shape, not empty.
        x_hat: reconstructions, the shape of x.

    Raises:
        ValueError: the shapes differ, x is empty, or an entry is not finite.
    """
    check_kind("reconstruction_mse", Tensor, x=x, x_hat=x_hat)
    if x.shape != x_hat.shape or x.numel() == 0:
        raise ValueError(
            f"x_hat must have the shape of a non-empty x, got {tuple(x_hat.shape)} for "
            f"{tuple(x.shape)}"
        )
    _finite("x", x)
    _finite("x_hat", x_hat)
    return float((x.detach().double() - x_hat.detach().double()).square().mean())


def auroc_auprc(score_anomaly: Tensor, is_anomaly: Tensor) -> dict[str, float]:
    """Areas under the ROC curve and (as average precision) under the precision-recall curve of a
    detector.

    Chance is 0.5 for `auroc` and `prevalence`, the share of anomalies, for `auprc`.

    Args:
        score_anomaly: finite scores, shape (n,), larger means more anomalous.
        is_anomaly: labels, shape (n,), boolean or 0 and 1; both classes must occur.

    Raises:
        ValueError: shapes differ from (n,), a score is not finite, a label is not 0 or 1, or one
            class is missing.
    """
    check_kind("auroc_auprc", Tensor, score_anomaly=score_anomaly, is_anomaly=is_anomaly)
    if score_anomaly.ndim != 1 or score_anomaly.shape != is_anomaly.shape:
        raise ValueError(
            "score_anomaly and is_anomaly must both have shape (n,), "
            f"got {tuple(score_anomaly.shape)} and {tuple(is_anomaly.shape)}"
        )
    _finite("score_anomaly", score_anomaly)
    classes = is_anomaly.unique().tolist()
    if classes != [0, 1]:
        raise ValueError(
            "is_anomaly must hold both classes, 0 and 1, and nothing else, got values "
            f"{classes[:8]}"
        )
    label, score = is_anomaly.cpu().bool().numpy(), score_anomaly.detach().cpu().double().numpy()
    return {
        "auroc": float(roc_auc_score(label, score)),
        "auprc": float(average_precision_score(label, score)),
        "prevalence": float(label.mean()),
    }


def _finite(name: str, value: Tensor) -> None:
    if value.is_complex():
        raise ValueError(f"{name} must be real, got {value.dtype}")
    finite = value.isfinite()
    if not bool(finite.all()):
        raise ValueError(
            f"{name} must be finite, got {int((~finite).sum())} NaN or infinite entries"
        )


def _matrix(name: str, value: Tensor, min_rows: int) -> Tensor:
    """The float64 copy of a valid (n, d) set."""
    check_kind("metrics", Tensor, **{name: value})
    if value.ndim != 2 or value.shape[1] == 0 or value.is_complex():
        raise ValueError(
            f"{name} must be a real matrix (n, d), got shape {tuple(value.shape)} of {value.dtype}"
        )
    if len(value) < min_rows:
        raise ValueError(f"{name} must have at least {min_rows} rows, got {len(value)}")
    _finite(name, value)
    return value.detach().double()


def _pair(name_a: str, a: Tensor, name_b: str, b: Tensor, min_rows: int) -> tuple[Tensor, Tensor]:
    a, b = _matrix(name_a, a, min_rows), _matrix(name_b, b, min_rows)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{name_a} and {name_b} must have the same width, got {a.shape[1]} and {b.shape[1]}"
        )
    return a, b


def _covariance_factor(a: Tensor) -> Tensor:
    """R with R' R the unbiased covariance of the rows of a."""
    _, root = torch.linalg.qr((a - a.mean(0)) / math.sqrt(len(a) - 1), mode="r")
    return root


def _distance_blocks(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances of a few rows of a to all of b. No matrix product: its cancellation
    blurs zeros.
    """
    for start in range(0, len(a), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        yield rows, torch.cdist(a[rows], b, compute_mode="donot_use_mm_for_euclid_dist")


def _knn_radius(a: Tensor, k: int) -> Tensor:
    """Distance from every row to its k-th neighbour among the others: the row itself is the first,
    at zero.
    """
    return torch.cat(
        [distance.kthvalue(k + 1, dim=1).values for _, distance in _distance_blocks(a, a)]
    )


def _median_distance(a: Tensor) -> float:
    stride = math.ceil(len(a) / MEDIAN_ROWS)
    return float(torch.pdist(a[::stride]).median())


def _kernel_sum(a: Tensor, b: Tensor, bandwidths: Sequence[float]) -> float:
    total = 0.0
    for _, distance in _distance_blocks(a, b):
        squared = distance.square_()
        total += sum(float((squared * (-0.5 / s**2)).exp_().sum()) for s in bandwidths)
    return total


def _log_knn_distance(name: str, draws: Tensor, query: Tensor | None, k: int) -> Tensor:
    """Log distance from every query (None: from every draw to the others) to its k-th neighbour
    among the draws.
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
