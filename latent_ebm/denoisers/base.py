"""The denoiser contract: what a diffusion model is to the rest of the library."""

from abc import ABC, abstractmethod

from torch import Tensor

from latent_ebm.artefacts import Artefact
from samplers.schedules import Schedule, broadcast


class Denoiser(Artefact, ABC):
    """``D(x_t, t) = E[x_0 | x_t]`` for ``x_t = alpha_t x_0 + sigma_t eps`` of ``schedule``.

    The score of x_t follows from it (Tweedie), ``grad log q(x_t) = (alpha D - x_t) / sigma^2``,
    and so do all reverse samplers. Conditions are keyword arguments with one entry per row
    (``denoiser(x_t, t, **condition)`` of a ``Condition``); without them a denoiser is
    unconditional.
    """

    schedule: Schedule

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """``E[x_0 | x_t]`` like ``x_t`` (batch, \\*event), at times ``t`` in [0, 1], a scalar or
        (batch,).
        """

    def at_rows(self, index: slice, num: int) -> "Denoiser":
        """The denoiser of the rows at ``index`` of ``num`` rows: another one if it holds an entry
        for each of them.
        """
        return self

    def score(self, x_t: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """``grad log q(x_t)`` like ``x_t`` (batch, \\*event), at times ``t``, a scalar or
        (batch,).
        """
        alpha, sigma = (broadcast(a, x_t) for a in self.schedule(t))
        return (alpha * self(x_t, t, **condition) - x_t) / sigma**2
