r"""Few steps of a one-step generator: guess x_0, add noise to the guess, and guess again.

A denoiser guesses the mean of x_0 given x_t, and a reverse step keeps a share of the noise of x_t.
A *generator* ``G(x_t, t)`` guesses x_0 as a draw, and nothing of x_t need be kept: ``x_s = alpha_s
G(x_t, t) + sigma_s n`` with fresh n ~ N(0, I). If G drew from ``q(x_0 | x_t)`` exactly, every x_s
would have the marginal ``q(x_s)``, whatever the number of steps. Other errors of one step shrink
where x_s still says something about x_0. Source: Song et al. 2023, arXiv:2303.01469, algorithm 1;
Xu et al. 2023, arXiv:2311.09257.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.base import normal_like
from samplers.reverse import Denoise, ReverseSampler
from samplers.reverse_checks import check_cleaner
from samplers.schedules import Schedule, broadcast


@dataclass(frozen=True)
class Renoising(ReverseSampler):
    """``x_s ~ q(x_s | x_0 = G(x_t, t))``, and at the end the guess itself.

    For students that draw images in one step, such as those of UFOGen, EM Distillation and
    distribution matching. Of a denoiser, which guesses a mean, the samples would be blurred; and
    ``DDIM`` with ``eta`` 1 is another sampler, which keeps a share of the noise of x_t. Source:
    Song et al. 2023, arXiv:2303.01469.

    Args:
        schedule: The noise, that of the generator.
        num_steps: The number of steps, and of guesses.
        grid: The scale on which the steps are equal: "time", "log_snr" or "karras".

    Raises:
        ValueError: For a non-positive ``num_steps`` or an unknown ``grid``.
    """

    schedule: Schedule
    num_steps: int = 1
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
        check_cleaner(self.schedule.log_snr(t), self.schedule.log_snr(s))
        x_0 = self.estimate(denoise, x_t, t)
        alpha, sigma = (broadcast(a, x_t) for a in self.schedule(s))
        x_s = alpha * x_0 + sigma * normal_like(x_t, generator)
        return torch.where(broadcast(s, x_t) > 0, x_s, x_0)
