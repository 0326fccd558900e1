"""What reverse samplers ask of denoisers and times."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from samplers.run_checks import check_finite, is_readable
from samplers.schedules import Schedule
from samplers.vp_discrete import SPACINGS, VPDiscrete

GRIDS = ("time", "log_snr", "karras")


def check_grid(schedule: Schedule, num_steps: int, grid: str) -> None:
    """Raise ``ValueError`` unless ``grid`` is one that ``num_steps`` on ``schedule`` can have."""
    if isinstance(schedule, VPDiscrete) and grid in SPACINGS:
        schedule.visited(num_steps, grid)
    elif grid not in GRIDS:
        raise ValueError(
            f"grid must be one of {', '.join(GRIDS)}, or with VPDiscrete one of "
            f"{', '.join(SPACINGS)}, got {grid!r}"
        )


def check_schedule(schedule: Schedule, denoise: Callable[..., object]) -> None:
    """Raise ``ValueError`` if ``denoise``, or what it is a ``partial`` of, has another
    ``schedule``.
    """
    while isinstance(denoise, partial):
        denoise = denoise.func
    known = getattr(denoise, "schedule", schedule)
    if known is not schedule and known != schedule:
        raise ValueError(f"schedule must be that of the denoiser, {known}, got {schedule}")


def check_cleaner(log_snr_t: Tensor, log_snr_s: Tensor) -> None:
    """Raise ``ValueError`` if the log-SNR at s is anywhere below that at t."""
    if is_readable(log_snr_s) and bool((log_snr_s < log_snr_t).any()):
        raise ValueError(
            "s must be at most t where fresh noise is drawn: only a deterministic step, such as "
            "that of DDIM with eta 0, leads to a noisier time, "
            f"got log-SNRs that fall by up to {float((log_snr_t - log_snr_s).max()):.3g}"
        )


def check_invertible(sampler: object, deterministic: bool) -> None:
    """Raise ``ValueError`` unless the ``sampler`` is ``deterministic``."""
    if not deterministic:
        raise ValueError(
            "invert needs a sampler that draws no noise, such as DDIM with eta 0 or Heun, got "
            f"{sampler}"
        )


def check_estimate(x_0: object, x_t: Tensor) -> None:
    """Raise ``ValueError`` unless ``x_0`` has the shape of ``x_t``, in a dtype that leaves that of
    ``x_t`` as it is.
    """
    known = isinstance(x_0, Tensor)
    if not (
        known and x_0.shape == x_t.shape and torch.promote_types(x_0.dtype, x_t.dtype) == x_t.dtype
    ):
        got = f"{x_0.dtype} of shape {tuple(x_0.shape)}" if known else type(x_0).__name__
        raise ValueError(
            f"x_0 must be like x_t, {x_t.dtype} of shape {tuple(x_t.shape)}, got {got}"
        )


def check_arrival(sampler: object, name: str, start: Tensor, x: Tensor) -> None:
    """Raise unless ``x`` (batch, \\*event), where ``sampler`` arrived, is finite: ``ValueError``
    if the ``start`` of this ``name`` was not, and ``FloatingPointError`` otherwise.
    """
    if is_readable(x) and not bool(x.isfinite().all()):
        if bad := int((~start.isfinite()).flatten(1).any(1).sum()):
            raise ValueError(f"{name} must be finite: {bad} of {len(start)} rows are not")
        hint = f"a sample of {type(sampler).__name__} diverged, or denoise is not finite"
        check_finite("x", x, hint)
