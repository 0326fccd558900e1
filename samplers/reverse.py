r"""Reverse diffusion: draws of data from noise, by a denoiser ``D(x_t, t) = E[x_0 | x_t]``.

A step from time t to a cleaner s < t replaces the unknown x_0 by D. Given x_0, a whole family
of distributions of x_s has the right marginal (Song, Meng, Ermon 2020, arXiv:2010.02502):

    x_s = alpha_s x_0 + sigma_s (sqrt(1 - c^2) eps + c n),    eps = (x_t - alpha_t x_0) / sigma_t,
    n ~ N(0, I);

``c^2 = 1 - SNR_t / SNR_s`` is the forward diffusion read backwards (``Ancestral``), ``c = 0``
the deterministic *probability-flow* equation (``DDIM``; ``Heun`` and ``ProbabilityFlow`` solve
it to higher order). In the frame y = x / sqrt(alpha^2 + sigma^2), where ``a = alpha /
sqrt(alpha^2 + sigma^2)``, it reads

    dy / d log(sigma / alpha) = a (a y - D),

in which nothing is divided by. Every sampler ends at t = 0, that is at data blurred by the
little noise ``sigma_0``.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplers.bridges import bridge
from samplers.checks import check_fields, check_kind
from samplers.reverse_checks import (
    check_arrival,
    check_estimate,
    check_grid,
    check_invertible,
    check_schedule,
)
from samplers.run_checks import check_position
from samplers.schedules import Schedule, broadcast
from samplers.vp_discrete import SPACINGS, VPDiscrete

Denoise = Callable[[Tensor, Tensor], Tensor]  # (x_t, t) -> x_0
Steps = Iterator[tuple[Tensor, Tensor, Tensor]]  # (t, s, x_s)
RHO = 7.0


class ReverseSampler(ABC):
    """Steps from t = 1 to t = 0; subclasses are frozen dataclasses of a schedule and plain
    numbers, and define ``step``.

    Every one has the fields ``schedule``, that of the denoiser, ``num_steps``, and ``grid``, the
    scale on which the steps are equal: "time", "log_snr" or "karras", ``(sigma / alpha)^(1/7)``
    (Karras et al. 2022, arXiv:2206.00364). With a schedule ``VPDiscrete`` it may also be "leading"
    or "trailing": training steps alone, as schedulers of ``diffusers`` choose them.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]  # what dataclasses.replace asks for
    schedule: Schedule
    num_steps: int
    grid: str

    def __post_init__(self) -> None:
        check_kind(self, Schedule, schedule=self.schedule)
        check_fields(self, num_steps="count")
        check_grid(self.schedule, self.num_steps, self.grid)

    def times(self, like: Tensor) -> Tensor:
        """Times (num_steps + 1,) from 1 down to 0, float64, on the device of ``like``; "leading"
        begins a little below 1.
        """
        if isinstance(self.schedule, VPDiscrete) and self.grid in SPACINGS:
            return self.schedule.visited(self.num_steps, self.grid).to(like.device)
        share = torch.linspace(0, 1, self.num_steps + 1, dtype=torch.float64, device=like.device)
        if self.grid == "time":
            return 1 - share
        least, greatest = self.schedule.log_snr_range
        if self.grid == "log_snr":
            log_snr = torch.lerp(share.new_tensor(least), share.new_tensor(greatest), share)
        else:
            start, end = (share.new_tensor(-0.5 * a / RHO).exp() for a in (least, greatest))
            log_snr = -2 * RHO * torch.lerp(start, end, share).log()
        between = self.schedule.time(log_snr[1:-1])
        return torch.cat([share.new_ones(1), between, share.new_zeros(1)])

    def at_rows(self, index: slice, num: int) -> "ReverseSampler":
        """The sampler of rows at ``index`` of ``num``: another one if it has an entry for each."""
        return self

    def estimate(self, denoise: Denoise, x_t: Tensor, t: Tensor) -> Tensor:
        """``denoise(x_t, t)``, an x_0 like ``x_t`` (batch, \\*event).

        Raises ``ValueError`` for a denoiser of another schedule, and for an x_0 of another shape
        or of a wider dtype.
        """
        check_schedule(self.schedule, denoise)
        x_0 = denoise(x_t, t)
        check_estimate(x_0, x_t)
        return x_0

    @property
    def is_deterministic(self) -> bool:
        """Whether a step draws no noise, so that it may also lead to a noisier time."""
        return False

    @abstractmethod
    def step(
        self,
        denoise: Denoise,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``x_s`` like ``x_t`` (batch, \\*event), from time ``t`` to ``s``, scalars or (batch,).

        Raises ``ValueError`` for an s noisier than t, unless the sampler ``is_deterministic``.
        """

    def run(
        self, denoise: Denoise, x_T: Tensor, *, generator: torch.Generator | None = None
    ) -> Steps:
        """Yield ``(t, s, x)`` after each of ``num_steps`` steps from t to s: the times, scalars,
        and ``x`` at s, like ``x_T`` (batch, \\*event), which is noise of scale ``sigma_1``.

        ``denoise`` maps x_t (batch, \\*event) and a scalar t to x_0. Gradients are recorded unless
        the caller says ``torch.no_grad``. Raises ``ValueError`` for an ``x_T`` that is not
        floating and finite, and for what ``estimate`` refuses; at the end ``FloatingPointError``
        if a sample diverged.
        """
        check_position(x_T, "x_T")
        yield from self._follow(denoise, x_T, self.times(x_T), "x_T", generator)

    def invert(
        self, denoise: Denoise, x_0: Tensor, *, generator: torch.Generator | None = None
    ) -> Steps:
        """The reverse of ``run``, from t = 0 to t = 1: yield ``(t, s, x)`` after each of
        ``num_steps`` steps from t to a noisier s. The last x is the noise from which ``sample``
        draws ``x_0`` (batch, \\*event) again, up to the errors of both ways.

        Raises ``ValueError`` for a sampler that draws noise, and as ``run`` does. Source: Song,
        Meng, Ermon 2020, arXiv:2010.02502, section 4.3.
        """
        check_invertible(self, self.is_deterministic)
        check_position(x_0, "x_0")
        yield from self._follow(denoise, x_0, self.times(x_0).flip(0), "x_0", generator)

    def _follow(
        self,
        denoise: Denoise,
        start: Tensor,
        times: Tensor,
        name: str,
        generator: torch.Generator | None,
    ) -> Steps:
        """Yield ``(t, s, x)`` after each step along ``times``; ``name`` is that of ``start``."""
        x = start
        for t, s in itertools.pairwise(times):
            x = self.step(denoise, x, t, s, generator=generator)
            yield t, s, x
        check_arrival(self, name, start, x)

    @torch.no_grad()
    def sample(
        self, denoise: Denoise, x_T: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The last x of ``run``: data like ``x_T`` (batch, \\*event). Raises as ``run`` does."""
        x = x_T
        for _, _, x_s in self.run(denoise, x_T, generator=generator):
            x = x_s
        return x


@dataclass(frozen=True)
class Ancestral(ReverseSampler):
    """Draws of ``q(x_s | x_t, x_0 = D)``: the forward diffusion reversed, as in DDPM.

    Exact in the limit of small steps. Source: Ho et al. 2020, arXiv:2006.11239.

    Args:
        schedule: The noise, that of the denoiser.
        num_steps: The number of steps.
        grid: The scale on which the steps are equal: "time", "log_snr" or "karras"; or training
            steps of ``VPDiscrete``: "leading" or "trailing".

    Raises:
        ValueError: For a non-positive ``num_steps`` or an unknown ``grid``.
    """

    schedule: Schedule
    num_steps: int
    grid: str = "time"

    def step(
        self,
        denoise: Denoise,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return bridge(
            self.schedule, self.estimate(denoise, x_t, t), x_t, t, s, generator=generator
        )


@dataclass(frozen=True)
class DDIM(ReverseSampler):
    """The step above with ``c = eta sqrt(1 - SNR_t / SNR_s)``: deterministic at ``eta`` 0,
    ancestral at 1.

    It is of order 1. At ``eta`` 0 ``step`` also leads to noisier times, as ``invert`` needs.
    Source: Song, Meng, Ermon 2020, arXiv:2010.02502.

    Args:
        schedule: The noise, that of the denoiser.
        num_steps: The number of steps.
        eta: The share of fresh noise, in [0, 1].
        grid: The scale on which the steps are equal: "time", "log_snr" or "karras"; or training
            steps of ``VPDiscrete``: "leading" or "trailing".

    Raises:
        ValueError: For a non-positive ``num_steps``, an ``eta`` outside [0, 1] or an unknown
            ``grid``.
    """

    schedule: Schedule
    num_steps: int
    eta: float = 0.0
    grid: str = "time"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, eta="in [0, 1]")

    @property
    def is_deterministic(self) -> bool:
        return self.eta == 0

    def step(
        self,
        denoise: Denoise,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return bridge(
            self.schedule, self.estimate(denoise, x_t, t), x_t, t, s, self.eta, generator=generator
        )


@dataclass(frozen=True)
class Heun(ReverseSampler):
    """A DDIM step, corrected by the denoiser at its end: two denoisings a step, order 2.

    With ``h = log(SNR_s / SNR_t) / 2`` the flow from t to s is ``x_s = (sigma_s / sigma_t) x_t +
    alpha_s int_0^h exp(u - h) D du`` exactly. DDIM keeps D at its first value; here D is linear
    between its values at both ends. The mean of eps over both ends, as in EDM (Karras et al. 2022,
    arXiv:2206.00364), has the same order but multiplies errors by ``exp(h)``, which has no bound
    where steps are few. For the same reason ``invert`` wants steps that are short in log-SNR:
    take the grid "log_snr", or many steps. Source: Lu et al. 2022, arXiv:2211.01095.

    Args:
        schedule: The noise, that of the denoiser.
        num_steps: The number of steps.
        grid: The scale on which the steps are equal: "time", "log_snr" or "karras"; or training
            steps of ``VPDiscrete``: "leading" or "trailing".

    Raises:
        ValueError: For a non-positive ``num_steps`` or an unknown ``grid``.
    """

    schedule: Schedule
    num_steps: int
    grid: str = "karras"

    @property
    def is_deterministic(self) -> bool:
        return True

    def step(
        self,
        denoise: Denoise,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        x_0 = self.estimate(denoise, x_t, t)
        x_s = bridge(self.schedule, x_0, x_t, t, s, eta=0.0)
        alpha_s = self.schedule(s)[0]
        h = 0.5 * (self.schedule.log_snr(s) - self.schedule.log_snr(t))
        share = (1 + torch.expm1(-h) / h).where(h != 0, 0.0)  # int_0^h exp(u - h) u / h du
        return x_s + broadcast(alpha_s * share, x_t) * (self.estimate(denoise, x_s, s) - x_0)
