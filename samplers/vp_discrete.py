"""The noise schedule of networks trained at discrete steps, as those of ``diffusers`` are."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from samplers.checks import check_fields
from samplers.schedules import Schedule, check_order

BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS = ("leading", "trailing")  # of training steps, by their names in ``diffusers``


@dataclass(frozen=True)
class VPDiscrete(Schedule):
    """Variance preserving, from ``num_train_steps`` betas: ``alpha_i^2 = prod_{j <= i} (1 -
    beta_j)`` at ``t = i / (n - 1)``.

    Between training steps the log-SNR is linear in t. Source: Ho et al. 2020, arXiv:2006.11239;
    Nichol & Dhariwal 2021, arXiv:2102.09672.

    Args:
        num_train_steps: The number n of training steps.
        beta_start: The first beta.
        beta_end: The last beta.
        betas: What lies between, by its name in ``diffusers``: "linear", "scaled_linear" (linear
            in the square root), or "squaredcos_cap_v2" (a cosine with every beta at most .999,
            which does not look at the ends).

    Raises:
        ValueError: For another name, fewer than two steps or more than a million, or ends that are
            not ``0 < beta_start < beta_end < 1``.
    """

    num_train_steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    betas: str = "linear"

    def __post_init__(self) -> None:
        check_fields(self, num_train_steps="count", beta_start="positive", beta_end="positive")
        check_order("1", 1, "num_train_steps", self.num_train_steps)
        check_order("num_train_steps", self.num_train_steps, "1,000,001", 1_000_001)
        check_order("beta_start", self.beta_start, "beta_end", self.beta_end)
        check_order("beta_end", self.beta_end, "1", 1)
        if self.betas not in BETAS:
            raise ValueError(f"betas must be one of {', '.join(BETAS)}, got {self.betas!r}")

    @cached_property
    def _log_snrs(self) -> Tensor:
        """Log-SNR of every training step (num_train_steps,), decreasing."""
        num, here = self.num_train_steps, {"dtype": torch.float64, "device": "cpu"}
        if self.betas == "squaredcos_cap_v2":
            u = torch.linspace(0, 1, num + 1, **here)
            square = ((u + 0.008) / 1.008 * math.pi / 2).cos() ** 2
            betas = (1 - square[1:] / square[:-1]).clamp(max=0.999)
        else:
            power = 0.5 if self.betas == "scaled_linear" else 1.0
            betas = torch.linspace(self.beta_start**power, self.beta_end**power, num, **here) ** (
                1 / power
            )
        log_square = (-betas).log1p().cumsum(0)
        return log_square - (-torch.expm1(log_square)).log()

    def log_snr(self, t: Tensor) -> Tensor:
        values, position = self._log_snrs.to(t.device), t.double() * (self.num_train_steps - 1)
        i = position.floor().long().clamp(0, self.num_train_steps - 2)
        return torch.lerp(values[i], values[i + 1], position - i)

    def position(self, log_snr: Tensor) -> Tensor:
        """Training step at ``log_snr``, fractional in [0, num_train_steps - 1];
        ``.round().long()`` is the nearest one.
        """
        values, log_snr = self._log_snrs.to(log_snr.device), log_snr.double()
        i = (torch.searchsorted(-values, -log_snr.contiguous()) - 1).clamp(
            0, self.num_train_steps - 2
        )
        return i + (log_snr - values[i]) / (values[i + 1] - values[i])

    def time(self, log_snr: Tensor) -> Tensor:
        return self.position(log_snr) / (self.num_train_steps - 1)

    def visited(self, num_steps: int, spacing: str) -> Tensor:
        """Times (num_steps + 1,) that decrease to 0, float64, on the CPU.

        All but the last are those of training steps with equal distances d, as schedulers of
        ``diffusers`` visit them: ``1, 1 + d, ...`` if ``spacing`` is "leading", and ``..., n - 1 -
        d, n - 1`` if it is "trailing". Raises ``ValueError`` for more steps than n / 2.
        """
        num = self.num_train_steps
        if num_steps > num // 2:
            raise ValueError(
                f"num_steps must be at most {num // 2} on the grid {spacing!r}, got {num_steps}"
            )
        count = torch.arange(num_steps, dtype=torch.float64, device="cpu")
        if spacing == "leading":
            steps = 1 + (num // num_steps) * count.flip(0)
        else:
            steps = (num - num / num_steps * count).round() - 1
        return torch.cat([steps, steps.new_zeros(1)]) / (num - 1)
