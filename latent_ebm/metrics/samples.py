"""Distances between two sets of samples."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from latent_ebm.metrics.checks import as_pair
from samplers.checks import check_counts

BLOCK_ROWS = 128  # rows whose distances to all others are computed at once
MEDIAN_ROWS = 2048  # enough for the median of distances
MEDIAN_MULTIPLES = (0.25, 0.5, 1.0, 2.0, 4.0)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Frechet distance between Gaussians fitted to two feature sets (Heusel et al.,
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
    a, b = as_pair("a", a, "b", b, min_rows=2)
    root_a, root_b = _covariance_factor(a), _covariance_factor(b)
    mean_term = (a.mean(0) - b.mean(0)).square().sum()
    trace_term = root_a.square().sum() + root_b.square().sum()
    cross_term = torch.linalg.matrix_norm(root_a @ root_b.mT, ord="nuc")
    return max(0.0, float(mean_term + trace_term - 2 * cross_term))


def prdc(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, float]:
    """Precision and recall (arXiv:1904.06991), density and coverage (arXiv:2002.09797), over
    closed k-NN balls.

    Precision: share of fakes inside some real ball. Recall: share of reals inside some fake ball.
    Density: mean number of real balls around a fake, divided by k; it may exceed 1. Coverage:
    share of real balls that hold a fake. For equal distributions, the expected density is 1, and
    the expected coverage is `1 - prod_i (n - i) / (n + m - i)`, i = 1..k.

    Args:
        real: reference samples, shape (n, d), n >= k + 1.
        fake: model samples, shape (m, d), m >= k + 1.
        k: a ball reaches to the k-th nearest neighbour of its centre; at least 1.

    Raises:
        ValueError: k < 1, or a set is not a finite real matrix, is too short, or the widths
            differ.
    """
    check_counts("prdc", k=k)
    real, fake = as_pair("real", real, "fake", fake, min_rows=k + 1)
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

    It is zero in expectation for equal distributions, so it can be negative.

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
    a, b = as_pair("a", a, "b", b, min_rows=2)
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


def _covariance_factor(a: Tensor) -> Tensor:
    """R with R' R the unbiased covariance of the rows of a."""
    _, root = torch.linalg.qr((a - a.mean(0)) / math.sqrt(len(a) - 1), mode="r")
    return root


def _distance_blocks(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances of some rows of a to all rows of b, block by block. A matrix product
    would be faster, but its rounding blurs distances near zero.
    """
    for start in range(0, len(a), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        yield rows, torch.cdist(a[rows], b, compute_mode="donot_use_mm_for_euclid_dist")


def _knn_radius(a: Tensor, k: int) -> Tensor:
    """Distance from every row to its k-th neighbour among the other rows (the row itself is first,
    at distance zero).
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
