r"""The exact teacher: a Gaussian mixture stays a Gaussian mixture at every noise level, so
everything that a diffusion model learns is known.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from latent_ebm.conditions import UNKNOWN
from latent_ebm.denoisers.base import Denoiser
from samplers.checks import check_counts, check_kind
from samplers.schedules import Schedule, broadcast
from samplers.targets import as_tensor, log_sum_exp


class GaussianMixtureDenoiser(Denoiser):
    """Data ``sum_k weights_k N(means_k, C_k)``; at noise ``(alpha, sigma)`` component k is
    ``N(alpha means_k, alpha^2 C_k + sigma^2 I)``, and ``D = sum_k p(k|x_t) (means_k + alpha C_k
    (alpha^2 C_k + sigma^2 I)^-1 (x_t - alpha means_k))``.

    The condition ``label`` (batch,) restricts a row to the components of this label; -1 means
    unknown. A call needs memory for (batch, K, dim) entries, where dim is the number of entries of
    an event.

    Args:
        weights: Weights (K,) of the components, positive; they are normalised to sum to one.
        means: Means (K, \\*event), whose dtype and device the others take.
        scales: Standard deviations (K,), standard deviations along the axes (K, dim), or
            covariances (K, dim, dim).
        schedule: The noise.
        labels: The label (K,) of every component; null: its index.

    Raises:
        ValueError: For shapes that do not match, weights or scales that are not positive,
            covariances that are not symmetric and positive definite, or a ``label`` that no
            component has.
    """

    log_weights: Tensor
    means: Tensor
    variances: Tensor
    axes: Tensor | None
    labels: Tensor

    def __init__(
        self,
        weights: Tensor | Sequence[float],
        means: Tensor | Sequence[Any],
        scales: Tensor | Sequence[Any],
        schedule: Schedule,
        labels: Tensor | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_kind(self, Schedule, schedule=schedule)
        self.schedule = schedule
        means = 1.0 * as_tensor(means)
        weights, scales = (as_tensor(a).to(means) for a in (weights, scales))
        if labels is None:
            labels = torch.arange(len(means), device=means.device)
        labels = as_tensor(labels).to(means.device)
        if labels.is_floating_point():
            raise ValueError(f"labels must be integers, got {labels.tolist()}")
        if (
            means.ndim < 2
            or means.numel() == 0
            or weights.shape != means.shape[:1]
            or labels.shape != weights.shape
        ):
            raise ValueError(
                "means (K, *event), weights (K,) and labels (K,) must agree in K, got shapes "
                f"{tuple(means.shape)}, {tuple(weights.shape)} and {tuple(labels.shape)}"
            )
        variances, axes = principal_axes(scales, means.flatten(1))
        for name, value in (("weights", weights), ("scales", variances)):
            if not value.is_meta and not bool(((value > 0) & value.isfinite()).all()):
                raise ValueError(f"{name} must be positive, got {value.tolist()}")
        if not means.is_meta and not bool(means.isfinite().all()):
            raise ValueError(f"means must be finite, got {means.tolist()}")
        buffers = {
            "log_weights": weights.log().log_softmax(0),
            "means": means,
            "labels": labels.to(means.device),
        }
        for name, value in {**buffers, "variances": variances, "axes": axes}.items():
            self.register_buffer(name, value)

    @property
    def weights(self) -> Tensor:
        """Weights (K,) of the components."""
        return self.log_weights.exp()

    @property
    def scales(self) -> Tensor:
        """Standard deviations (K, dim) along the axes of x, or covariances (K, dim, dim)."""
        if self.axes is None:
            return self.variances.sqrt()
        covariances = (self.axes * self.variances[:, None]) @ self.axes.mT
        return (covariances + covariances.mT) / 2

    def forward(
        self, x_t: Tensor, t: Tensor, *, label: Tensor | None = None, **other: Tensor
    ) -> Tensor:
        check_names(other)
        offset, alpha, variance, share = self._responsibilities(x_t, t, label)
        inner = self._rotate(
            alpha * self.variances / variance * offset, back=True
        ) + self.means.flatten(1)
        return (share.softmax(1)[:, None] @ inner).view_as(x_t)

    def score(
        self, x_t: Tensor, t: Tensor, *, label: Tensor | None = None, **other: Tensor
    ) -> Tensor:
        """Like ``Denoiser.score``, but without loss of digits at the clean end."""
        check_names(other)
        offset, _, variance, share = self._responsibilities(x_t, t, label)
        return -(share.softmax(1)[:, None] @ self._rotate(offset / variance, back=True)).view_as(
            x_t
        )

    def log_prob(self, x_t: Tensor, t: Tensor, *, label: Tensor | None = None) -> Tensor:
        """Normalised log-density (batch,) of the noised data at ``x_t`` (batch, \\*event)."""
        return log_sum_exp(self._responsibilities(x_t, t, label)[3], 1)

    def sample(
        self, num: int, *, label: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Exact draws (num, \\*event) of clean data, of class ``label`` (num,) if given."""
        check_counts(self, least=0, num=num)
        check_label(label, num)
        weights = self._log_weights(label).exp().expand(num, -1)
        k = torch.multinomial(weights, 1, generator=generator)[:, 0]
        noise = self.means.new_empty(num, self.variances.shape[1]).normal_(generator=generator)
        noise = noise * self.variances[k].sqrt()
        if self.axes is not None:
            noise = (self.axes[k] @ noise[..., None])[..., 0]
        return self.means[k] + noise.view(num, *self.means.shape[1:])

    def _responsibilities(
        self, x: Tensor, t: Tensor, label: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Offsets (batch, K, dim) from the means along the axes, alpha, the variances along the
        axes, and joint log-densities (batch, K).
        """
        if x.shape[1:] != self.means.shape[1:]:
            raise ValueError(
                f"x_t must have events of shape {tuple(self.means.shape[1:])}, got "
                f"{tuple(x.shape[1:])}"
            )
        check_label(label, x.shape[0])
        dim = self.variances.shape[1]
        flat = x.flatten(1)[:, None]
        alpha, sigma = (broadcast(a, flat) for a in self.schedule(t))
        offset = self._rotate(flat - alpha * self.means.flatten(1))
        variance = alpha**2 * self.variances + sigma**2
        log_det = variance.log().sum(-1) + dim * math.log(2 * math.pi)
        square = (offset**2 / variance).sum(-1)
        return offset, alpha, variance, self._log_weights(label) - 0.5 * (square + log_det)

    def _rotate(self, offset: Tensor, *, back: bool = False) -> Tensor:
        """Rotate into the principal axes of every component, or ``back``."""
        if self.axes is None:
            return offset
        return torch.einsum("bki,kji->bkj" if back else "bkj,kji->bki", offset, self.axes)

    def _log_weights(self, label: Tensor | None) -> Tensor:
        """Log-weights (1 or batch, K) of the components, given ``label``."""
        if label is None:
            return self.log_weights[None]
        mine = (label[:, None] == self.labels) | (label[:, None] == UNKNOWN)
        if not label.is_meta and not bool(mine.any(1).all()):
            raise ValueError(
                f"label must be one of {sorted(set(self.labels.tolist()))}, got {label.tolist()}"
            )
        return self.log_weights.masked_fill(~mine, -math.inf).log_softmax(1)


def check_names(condition: Mapping[str, Tensor]) -> None:
    """Raise ``ValueError`` for a ``condition`` with other names than the label."""
    if condition:
        raise ValueError(f"a mixture's condition must be a label, got {', '.join(condition)}")


def check_label(label: Tensor | None, num: int) -> None:
    """Raise ``ValueError`` unless ``label`` is None, or holds an integer for each of ``num`` rows
    or one for all.
    """
    if label is not None and (label.shape not in ((num,), (1,)) or label.is_floating_point()):
        got = f"{label.dtype} of shape {tuple(label.shape)}"
        raise ValueError(f"label must hold integers of shape ({num},), got {got}")


def principal_axes(scales: Tensor, means: Tensor) -> tuple[Tensor, Tensor | None]:
    """Variances (K, dim) and principal axes (K, dim, dim) of every component; the axes are None if
    they are those of x.
    """
    num, dim = means.shape
    if scales.ndim < 3 and not scales.is_meta and not bool((scales > 0).all()):
        raise ValueError(f"scales must be positive, got {scales.tolist()}")
    if scales.shape in ((num,), (num, dim)):
        return (scales**2).view(num, -1).expand(num, dim).contiguous(), None
    if scales.shape != (num, dim, dim):
        raise ValueError(
            f"scales must have shape ({num},), ({num}, {dim}) or ({num}, {dim}, {dim}), got "
            f"{tuple(scales.shape)}"
        )
    if not scales.is_meta and not torch.allclose(scales, scales.mT):
        raise ValueError(
            f"scales must be symmetric if they are covariances, got {scales.tolist()}"
        )
    variances, axes = torch.linalg.eigh(scales)
    return variances, axes
