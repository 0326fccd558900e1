r"""A student of one step as a denoiser, for reverse samplers that start at t = 1."""

import torch
from torch import Tensor

from latent_ebm.denoisers.base import Denoiser
from samplers.checks import check_kind, check_numbers
from samplers.schedules import Schedule, broadcast

SLACK = 1e-6  # the ends of a schedule are known up to rounding


class FromNoise(Denoiser):
    """``denoiser``, for which whatever is noisier than ``log_snr`` is noise and nothing else.

    At such a time t it returns ``D(x_t sigma / sigma_t, start)``, with the time ``start`` and the
    noise sigma of ``log_snr``; elsewhere ``D(x_t, t)``. At t = 1 it is the map ``z -> D(sigma z,
    start)`` of a student of one step, ``OneStep``.

    Args:
        denoiser: The denoiser that a student of one step has trained.
        log_snr: The log-SNR at which the student starts.

    Raises:
        ValueError: For a log-SNR outside the denoiser's schedule.
    """

    start: Tensor

    def __init__(self, denoiser: Denoiser, log_snr: float) -> None:
        super().__init__()
        check_kind(self, Denoiser, denoiser=denoiser)
        check_log_snr("log_snr", log_snr, denoiser.schedule)
        self.denoiser, self.schedule, self.log_snr = denoiser, denoiser.schedule, log_snr
        self.register_buffer("start", self.schedule.time(torch.tensor(log_snr)))

    def forward(self, x_t: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        time = torch.minimum(t.to(self.start), self.start)
        (_, sigma), (_, sigma_t) = self.schedule(time), self.schedule(t)
        return self.denoiser(broadcast(sigma / sigma_t, x_t) * x_t, time, **condition)


def check_log_snr(name: str, value: float, schedule: Schedule) -> None:
    """Raise ``ValueError`` unless ``value`` is a log-SNR that ``schedule`` reaches."""
    check_numbers("denoiser", "finite", **{name: value})
    least, greatest = schedule.log_snr_range
    if not least - SLACK <= value <= greatest + SLACK:
        raise ValueError(
            f"{name} must lie in [{least:.4g}, {greatest:.4g}], the schedule's log-SNRs, got "
            f"{value}"
        )
