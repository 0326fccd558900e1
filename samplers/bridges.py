r"""A draw of x_s given x_0 and x_t: the step that reverse samplers are made of."""

import torch
from torch import Tensor

from samplers.base import normal_like
from samplers.reverse_checks import check_cleaner, check_estimate
from samplers.schedules import Schedule, broadcast


def bridge(
    schedule: Schedule,
    x_0: Tensor,
    x_t: Tensor,
    t: Tensor,
    s: Tensor,
    eta: float = 1.0,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A draw of x_s given x_0 and x_t (batch, \\*event), for times s <= t, scalars or (batch,).

    With ``eta`` 1 it follows the posterior of the forward diffusion, ``q(x_s | x_t, x_0)``; a
    smaller ``eta`` keeps the marginals and draws less fresh noise, down to none at 0:
    ``c = eta sqrt(1 - SNR_t / SNR_s)``. Without fresh noise s may be noisier than t. Raises
    ``ValueError`` for an s noisier than t otherwise, an ``eta`` outside [0, 1], or shapes that
    differ.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be in [0, 1], got {eta}")
    check_estimate(x_0, x_t)
    log_snr_t, log_snr_s = schedule.log_snr(t), schedule.log_snr(s)
    alpha_t, sigma_t = (broadcast(a, x_t) for a in schedule.frame(log_snr_t))
    alpha_s, sigma_s = schedule.frame(log_snr_s)
    mean, eps = broadcast(alpha_s, x_t) * x_0, (x_t - alpha_t * x_0) / sigma_t
    if eta == 0:
        return mean + broadcast(sigma_s, x_t) * eps
    check_cleaner(log_snr_t, log_snr_s)
    fresh = eta * (-torch.expm1(log_snr_t - log_snr_s)).sqrt()
    kept = broadcast(sigma_s * (1 - fresh**2).sqrt(), x_t) * eps
    return mean + kept + broadcast(sigma_s * fresh, x_t) * normal_like(x_t, generator)
