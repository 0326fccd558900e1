r"""Noise schedules: ``x_t = alpha_t x_0 + sigma_t eps`` for a time t in [0, 1], clean at 0 and
noise at 1.

Up to a scale of x, all that a schedule says about t is the log-signal-to-noise ratio ``lambda =
log(alpha^2 / sigma^2)``, strictly decreasing in t and finite at both ends. A schedule is thus a
*speed* ``t -> lambda`` and a *frame* ``lambda -> (alpha, sigma)``: variance preserving (``alpha^2
+ sigma^2 = 1``), variance exploding (``alpha = 1``) or rectified (``alpha + sigma = 1``).
``ve_sigma = sigma / alpha = exp(-lambda / 2)`` is the noise in units of x_0, the same in every
frame.

All is computed in float64, whatever the dtype of t: single precision loses ``1 - alpha^2`` at the
clean end. Source: Kingma et al. 2021, arXiv:2107.00630; Karras et al. 2022, arXiv:2206.00364.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import softplus

from samplers.checks import check_fields


def broadcast(coefficient: Tensor, x: Tensor) -> Tensor:
    """``coefficient``, a scalar or (batch,), with the dtype, device and number of axes of ``x``
    (batch, \\*event).

    Raises ``ValueError`` for other shapes.
    """
    if coefficient.ndim and coefficient.shape != x.shape[:1]:
        raise ValueError(
            f"times must be a scalar or of shape {tuple(x.shape[:1])}, got "
            f"{tuple(coefficient.shape)}"
        )
    return (
        coefficient.to(x)
        if coefficient.ndim == 0
        else coefficient.to(x).view(-1, *[1] * (x.ndim - 1))
    )


class Schedule(ABC):
    """``t -> (alpha_t, sigma_t)``; subclasses are frozen dataclasses of plain numbers and define
    ``log_snr`` and ``time``.

    All methods map tensors of any shape to float64 tensors of that shape. Times lie in [0, 1] and
    log-SNRs in ``log_snr_range``; this is not checked.
    """

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """``lambda = log(alpha^2 / sigma^2)`` at ``t``, strictly decreasing."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """The t at which ``log_snr`` is reached: the inverse of the method ``log_snr``."""

    def frame(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """``(alpha, sigma)`` at ``log_snr``; variance preserving unless a schedule says
        otherwise.
        """
        log_snr = log_snr.double()
        return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``(alpha_t, sigma_t)``, like ``t`` but float64."""
        return self.frame(self.log_snr(t))

    def ve_sigma(self, t: Tensor) -> Tensor:
        """``sigma_t / alpha_t``; its inverse is ``time(-2 log sigma)``."""
        return (-0.5 * self.log_snr(t)).exp()

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """Least (t = 1) and greatest (t = 0) log-SNR."""
        greatest, least = self.log_snr(torch.tensor([0.0, 1.0], device="cpu")).tolist()
        return least, greatest


@dataclass(frozen=True)
class VPLinear(Schedule):
    """Variance preserving, ``beta(u) = beta_min + u (beta_max - beta_min)`` and ``alpha =
    exp(-int_0^u beta / 2)``.

    u is linear in t: it starts, at t = 0, where the log-SNR is ``log_snr_max``, and ends at 1.
    Source: Ho et al. 2020, arXiv:2006.11239; Song et al. 2021, arXiv:2011.13456.

    Args:
        beta_min: The rate of noise at u = 0.
        beta_max: The rate of noise at u = 1.
        log_snr_max: The log-SNR at t = 0.

    Raises:
        ValueError: Unless ``0 < beta_min < beta_max``, or if ``log_snr_max`` is below the log-SNR
            at u = 1.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    log_snr_max: float = 13.0

    def __post_init__(self) -> None:
        check_fields(self, beta_min="positive", beta_max="positive", log_snr_max="finite")
        check_order("beta_min", self.beta_min, "beta_max", self.beta_max)
        least = -math.log(math.expm1((self.beta_min + self.beta_max) / 2))
        check_order("the log-SNR at the noisy end", least, "log_snr_max", self.log_snr_max)

    def _natural(self, log_snr: Tensor) -> Tensor:
        integral, slope = softplus(-log_snr.double()), self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + (self.beta_min**2 + 2 * slope * integral).sqrt())

    @cached_property
    def _start(self) -> float:
        return float(
            self._natural(torch.tensor(self.log_snr_max, dtype=torch.float64, device="cpu"))
        )

    def log_snr(self, t: Tensor) -> Tensor:
        u = self._start + (1 - self._start) * t.double()
        return -torch.expm1(u * (self.beta_min + 0.5 * u * (self.beta_max - self.beta_min))).log()

    def time(self, log_snr: Tensor) -> Tensor:
        return (self._natural(log_snr) - self._start) / (1 - self._start)


@dataclass(frozen=True)
class VPCosine(Schedule):
    """Variance preserving, ``alpha = cos(pi u / 2)``, ``sigma = sin(pi u / 2)``, u linear in t.

    Source: Nichol & Dhariwal 2021, arXiv:2102.09672.

    Args:
        log_snr_min: The log-SNR at t = 1.
        log_snr_max: The log-SNR at t = 0.

    Raises:
        ValueError: Unless ``log_snr_min < log_snr_max``.
    """

    log_snr_min: float = -15.0
    log_snr_max: float = 15.0

    def __post_init__(self) -> None:
        check_fields(self, log_snr_min="finite", log_snr_max="finite")
        check_order("log_snr_min", self.log_snr_min, "log_snr_max", self.log_snr_max)

    @property
    def log_snr_range(self) -> tuple[float, float]:
        return float(self.log_snr_min), float(self.log_snr_max)

    def _angle(self, log_snr: float) -> float:
        return math.atan(math.exp(-log_snr / 2))

    def log_snr(self, t: Tensor) -> Tensor:
        start, end = self._angle(self.log_snr_max), self._angle(self.log_snr_min)
        return -2 * (start + (end - start) * t.double()).tan().log()

    def time(self, log_snr: Tensor) -> Tensor:
        start, end = self._angle(self.log_snr_max), self._angle(self.log_snr_min)
        return ((-0.5 * log_snr.double()).exp().atan() - start) / (end - start)


def exploding(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """The variance exploding frame, ``alpha = 1`` and ``sigma = exp(-lambda / 2)``."""
    sigma = (-0.5 * log_snr.double()).exp()
    return torch.ones_like(sigma), sigma


@dataclass(frozen=True)
class VE(Schedule):
    """Variance exploding, ``sigma = sigma_min (sigma_max / sigma_min)^t``: log-SNR linear in t.

    Source: Song et al. 2021, arXiv:2011.13456.

    Args:
        sigma_min: The noise at t = 0.
        sigma_max: The noise at t = 1.

    Raises:
        ValueError: Unless ``0 < sigma_min < sigma_max``.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        check_fields(self, sigma_min="positive", sigma_max="positive")
        check_order("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    def frame(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return exploding(log_snr)

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * (
            math.log(self.sigma_min) + t.double() * math.log(self.sigma_max / self.sigma_min)
        )

    def time(self, log_snr: Tensor) -> Tensor:
        return (-0.5 * log_snr.double() - math.log(self.sigma_min)) / math.log(
            self.sigma_max / self.sigma_min
        )


@dataclass(frozen=True)
class Karras(Schedule):
    """Variance exploding, ``sigma^(1 / rho)`` linear in t from ``sigma_min`` to ``sigma_max``
    (EDM).

    Source: Karras et al. 2022, arXiv:2206.00364.

    Args:
        sigma_min: The noise at t = 0.
        sigma_max: The noise at t = 1.
        rho: The power: the larger, the more of the times are spent on little noise.

    Raises:
        ValueError: Unless ``0 < sigma_min < sigma_max`` and ``rho > 0``.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        check_fields(self, sigma_min="positive", sigma_max="positive", rho="positive")
        check_order("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    def frame(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return exploding(log_snr)

    def log_snr(self, t: Tensor) -> Tensor:
        start, end = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return -2 * self.rho * (start + (end - start) * t.double()).log()

    def time(self, log_snr: Tensor) -> Tensor:
        start, end = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return ((-0.5 / self.rho * log_snr.double()).exp() - start) / (end - start)


@dataclass(frozen=True)
class Rectified(Schedule):
    """``alpha = 1 - u``, ``sigma = u``, u linear in t: rectified flow, flow matching.

    u almost equals t: by default it runs from 1e-4 to 1 - 1e-4, so that log-SNRs are finite.
    Source: Liu et al. 2022, arXiv:2209.03003; Lipman et al. 2022, arXiv:2210.02747.

    Args:
        log_snr_min: The log-SNR at t = 1.
        log_snr_max: The log-SNR at t = 0.

    Raises:
        ValueError: Unless ``log_snr_min < log_snr_max``.
    """

    log_snr_min: float = -2 * math.log(1e4 - 1)
    log_snr_max: float = 2 * math.log(1e4 - 1)

    def __post_init__(self) -> None:
        check_fields(self, log_snr_min="finite", log_snr_max="finite")
        check_order("log_snr_min", self.log_snr_min, "log_snr_max", self.log_snr_max)

    def frame(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        half = 0.5 * log_snr.double()
        return half.sigmoid(), (-half).sigmoid()

    def _ends(self) -> tuple[float, float]:
        return 1 / (1 + math.exp(self.log_snr_max / 2)), 1 / (1 + math.exp(self.log_snr_min / 2))

    def log_snr(self, t: Tensor) -> Tensor:
        start, end = self._ends()
        return -2 * torch.logit(start + (end - start) * t.double())

    def time(self, log_snr: Tensor) -> Tensor:
        start, end = self._ends()
        return ((-0.5 * log_snr.double()).sigmoid() - start) / (end - start)


def check_order(low_name: str, low: float, high_name: str, high: float) -> None:
    """Raise ``ValueError`` unless ``low < high``."""
    if not low < high:
        raise ValueError(f"{low_name} must be finite and below {high_name}, got {low} and {high}")
