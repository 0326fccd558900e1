r"""Densities with known exact draws, mean, covariance and log Z, for tests and benchmarks.

Each target is a log-density ``(num, dim) -> (num,)``; ``log_z`` is the log-integral of its
exponential, so that ``target(x) - target.log_z`` is the normalised ``log_prob``. ``Gaussian`` and
``Banana`` are unnormalised, as energies in practice are; ``GaussianMixture`` is normalised when
its weights sum to one. Tensors stay on the device of the arguments.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from samplers.checks import check_counts, check_numbers
from samplers.densities import Density
from samplers.run_checks import is_readable


def as_tensor(value: object) -> Tensor:
    """``value`` as a tensor. A tensor stays on its device; ``torch.as_tensor`` would move it to
    the default device.
    """
    return value if isinstance(value, Tensor) else torch.as_tensor(value)


def as_floating(**values: object) -> Tensor:
    """The one value given by name, as a floating-point tensor. Raises ``ValueError`` unless its
    entries are real and finite.
    """
    ((name, value),) = values.items()
    tensor = as_tensor(value)
    if tensor.is_complex():
        raise ValueError(f"{name} must be real, got {tensor.dtype}")
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.get_default_dtype())
    if is_readable(tensor) and not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} must be finite, got {tensor.tolist()}")
    return tensor


def check_points(x: Tensor, dim: int) -> None:
    """Raise ``ValueError`` unless ``x`` has shape (num, dim)."""
    if x.ndim != 2 or x.shape[1] != dim:
        raise ValueError(f"x must have shape (num, {dim}), got {tuple(x.shape)}")


def log_sum_exp(terms: Tensor, dim: int) -> Tensor:
    """``log sum exp(terms)`` along ``dim``, whose gradient is ``softmax(terms)``.

    The gradient of ``torch.logsumexp`` is ``exp(terms - value)``. Far from 0 the value is rounded
    to the largest term, and that gradient then no longer sums to 1.
    """
    top = terms.detach().amax(dim, keepdim=True)
    top = top.masked_fill(top == -math.inf, 0.0)  # no term counts
    return (terms - top).exp().sum(dim).log() + top.squeeze(dim)


class Gaussian(Density):
    """Unnormalised ``-(x - mean)^T covariance^-1 (x - mean) / 2``; ``log_z = log det(2 pi
    covariance) / 2``.

    Args:
        mean: Mean (dim,).
        covariance: Covariance (dim, dim).

    Raises:
        ValueError: Unless the covariance is symmetric, positive definite and of the size of the
            mean.
    """

    def __init__(
        self, mean: Tensor | Sequence[float], covariance: Tensor | Sequence[Sequence[float]]
    ) -> None:
        self.mean, self.covariance = as_floating(mean=mean), as_floating(covariance=covariance)
        if self.mean.ndim != 1 or self.covariance.shape != 2 * self.mean.shape:
            wanted, got = tuple(2 * self.mean.shape), tuple(self.covariance.shape)
            raise ValueError(f"covariance must have shape {wanted} for a mean (dim,), got {got}")
        self.scale_tril, failed = torch.linalg.cholesky_ex(self.covariance)
        known = not self.covariance.is_meta
        if known and (bool(failed) or not torch.allclose(self.covariance, self.covariance.mT)):
            raise ValueError(
                "covariance must be symmetric and positive definite, got "
                f"{self.covariance.tolist()}"
            )
        self.precision = torch.cholesky_inverse(self.scale_tril)
        self.log_z = self.scale_tril.diagonal().log().sum() + len(self.mean) / 2 * math.log(
            2 * math.pi
        )

    def __call__(self, x: Tensor) -> Tensor:
        check_points(x, len(self.mean))
        d = x - self.mean
        return -0.5 * (d * (d @ self.precision)).sum(1)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Value (num,) and gradient (num, dim) at ``x`` (num, dim)."""
        check_points(x, len(self.mean))
        d = x - self.mean
        grad = -(d @ self.precision)
        return 0.5 * (d * grad).sum(1), grad

    def gradient(self, x: Tensor) -> Tensor:
        """The gradient (num, dim) at ``x`` (num, dim)."""
        return (self.mean - x) @ self.precision

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Exact draws (num, dim)."""
        check_counts(self, least=0, num=num)
        noise = self.mean.new_empty(num, len(self.mean)).normal_(generator=generator)
        return self.mean + noise @ self.scale_tril.mT


class GaussianMixture(Density):
    """``log sum_k weights_k N(x; means_k, diag(scales_k)^2)``; ``log_z = log sum_k weights_k``, 0
    if they sum to one.

    Args:
        weights: Positive weights (K,) of the components.
        means: Means (K, dim).
        scales: Positive standard deviations (K,) or (K, dim).

    Raises:
        ValueError: For shapes that do not match, or a weight or scale that is not positive.
    """

    def __init__(
        self,
        weights: Tensor | Sequence[float],
        means: Tensor | Sequence[Sequence[float]],
        scales: Tensor | Sequence[float],
    ) -> None:
        self.weights, self.means = as_floating(weights=weights), as_floating(means=means)
        self.scales = as_floating(scales=scales)
        if self.means.ndim != 2 or self.weights.shape != self.means.shape[:1]:
            shapes = tuple(self.weights.shape), tuple(self.means.shape)
            raise ValueError(
                f"weights (K,) and means (K, dim) must agree in K, got shapes {shapes[0]} and "
                f"{shapes[1]}"
            )
        if self.scales.shape not in (self.means.shape[:1], self.means.shape):
            raise ValueError(
                f"scales must have shape (K,) or (K, dim), got {tuple(self.scales.shape)}"
            )
        for name, value in (("weights", self.weights), ("scales", self.scales)):
            if not value.is_meta and not bool((value > 0).all()):
                raise ValueError(f"{name} must be positive, got {value.tolist()}")
        self.log_z = self.weights.sum().log()
        share = self.weights / self.weights.sum()
        self.mean = share @ self.means
        self._scales = self.scales.view(len(self.means), -1).expand_as(self.means)
        self._offsets = self.means - self.mean  # centred entries lose fewer digits in products
        self._precisions = self._scales**-2
        self._constants = (
            self.weights.log()
            - self._scales.log().sum(1)
            - self._offsets.shape[1] / 2 * math.log(2 * math.pi)
        )
        self.covariance = (
            torch.diag(share @ self._scales**2) + (self._offsets.mT * share) @ self._offsets
        )

    def _terms(self, d: Tensor) -> Tensor:
        """Logarithms of the weighted component densities (K, num) at ``mean + d``. K comes first
        because sums over the first axis are faster.
        """
        pull = self._offsets * self._precisions
        level = self._constants - 0.5 * (self._offsets * pull).sum(1)
        return level[:, None] + pull @ d.mT - 0.5 * (self._precisions @ d.square().mT)

    def __call__(self, x: Tensor) -> Tensor:
        check_points(x, len(self.mean))
        return log_sum_exp(self._terms(x - self.mean), 0)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Value (num,) and gradient ``sum_k p(k|x) (means_k - x) / scales_k^2`` (num, dim) at
        ``x`` (num, dim).
        """
        check_points(x, len(self.mean))
        d = x - self.mean
        terms = self._terms(d)
        value, share = log_sum_exp(terms, 0), terms.softmax(0)
        grad = (self._offsets * self._precisions).mT @ share - d.mT * (self._precisions.mT @ share)
        return value, grad.mT.contiguous()

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Exact draws (num, dim)."""
        check_counts(self, least=0, num=num)
        k = torch.multinomial(self.weights, max(num, 1), replacement=True, generator=generator)[
            :num
        ]
        noise = self.means.new_empty(num, self.means.shape[1]).normal_(generator=generator)
        return self.means[k] + self._scales[k] * noise


class Banana(Density):
    """A bent Gaussian: ``u = (x1, x2 - curvature (x1^2 - s1^2))`` is ``N(0, diag(s1, s2)^2)``
    (Haario et al. 1999).

    The log-density is ``-|u / scales|^2 / 2``, unnormalised. The map has a Jacobian of 1, so
    ``log_z = log(2 pi s1 s2)``. The mean is 0 and the covariance diag(s1^2, s2^2 + 2 curvature^2
    s1^4).

    Args:
        curvature: How far the Gaussian is bent; 0 leaves it straight.
        scales: Standard deviations (s1, s2), which also give dtype and device.

    Raises:
        ValueError: Unless ``scales`` are two positive numbers and the curvature is finite.
    """

    def __init__(
        self, curvature: float = 1.0, scales: Tensor | Sequence[float] = (1.0, 0.5)
    ) -> None:
        check_numbers(self, "finite", curvature=curvature)
        self.curvature, self.scales = curvature, as_floating(scales=scales)
        if self.scales.shape != (2,):
            raise ValueError(f"scales must have shape (2,), got {tuple(self.scales.shape)}")
        if not self.scales.is_meta and not bool((self.scales > 0).all()):
            raise ValueError(f"scales must be positive, got {self.scales.tolist()}")
        self.mean = torch.zeros_like(self.scales)
        variance = self.scales**2
        self.covariance = torch.diag(
            variance + torch.stack([self.mean[0], 2 * curvature**2 * variance[0] ** 2])
        )
        self.log_z = self.scales.log().sum() + math.log(2 * math.pi)

    def _bend(self, x1: Tensor) -> Tensor:
        return self.curvature * (x1**2 - self.scales[0] ** 2)

    def unbend(self, x: Tensor) -> Tensor:
        """The standard normal points (num, 2) that are bent into ``x`` (num, 2)."""
        check_points(x, 2)
        return torch.stack([x[:, 0], x[:, 1] - self._bend(x[:, 0])], 1) / self.scales

    def __call__(self, x: Tensor) -> Tensor:
        return -0.5 * self.unbend(x).square().sum(1)

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Exact draws (num, 2)."""
        check_counts(self, least=0, num=num)
        u = self.scales * self.scales.new_empty(num, 2).normal_(generator=generator)
        return torch.stack([u[:, 0], u[:, 1] + self._bend(u[:, 0])], 1)
