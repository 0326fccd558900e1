r"""Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598)."""

from typing import Any

from torch import Tensor

from latent_ebm.denoisers import Denoiser
from samplers.checks import check_numbers


class ClassifierFree(Denoiser):
    """``D_w(x_t | c) = D(x_t) + w (D(x_t | c) - D(x_t))``: the score of ``q(x_t) q(c | x_t)^w``,
    at each noise level alone.

    ``denoiser`` knows conditions and can do without them; ``weight`` w is 1 for its own
    conditional law, and more for samples that are more typical of the condition and less varied.
    There is no diffusion whose scores these are, so that reverse samplers do not sample from the
    tilted law of clean data. Raises ``ValueError`` for a ``weight`` that is not finite.
    """

    def __init__(self, denoiser: Denoiser, weight: float) -> None:
        super().__init__()
        check_numbers(self, "finite", weight=weight)
        self.denoiser, self.schedule, self.weight = denoiser, denoiser.schedule, weight

    def forward(self, x_t: Tensor, t: Tensor, **condition: Any) -> Tensor:
        marginal = self.denoiser(x_t, t)
        return marginal + self.weight * (self.denoiser(x_t, t, **condition) - marginal)
