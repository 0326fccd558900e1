r"""A latent model ``p(x, z) = p(z) p(x|z)``. Its ``log_posterior(x)`` is the only bridge to the samplers."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from latent_ebm.likelihoods import Likelihood
from latent_ebm.priors import Prior
from samplers import LogDensity


class EnergyTerms(NamedTuple):
    """Terms (batch,) of the joint energy ``-log p(x, z)``, up to the prior's ``log Z``; high is unusual.

    ``reconstruction`` = -log p(x|z), ``tilt`` = the learned energy of the prior, ``base`` = -log p_0(z).
    """

    reconstruction: Tensor
    tilt: Tensor
    base: Tensor

    @property
    def joint(self) -> Tensor:
        """Their sum (batch,)."""
        return self.reconstruction + self.tilt + self.base


class LatentModel(nn.Module):
    """``p(x, z) = p(z) p(x|z)`` from a ``prior`` and a ``likelihood``; z (batch, dim), x (batch, \\*event)."""

    def __init__(self, prior: Prior, likelihood: Likelihood) -> None:
        super().__init__()
        self.prior, self.likelihood = prior, likelihood

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """``log p(z) + log p(x|z)`` (batch,), up to the prior's constant. Raises ``ValueError`` on a shape mismatch."""
        conditional = self.likelihood(z)
        if x.shape != conditional.batch_shape + conditional.event_shape:
            wanted = tuple(conditional.batch_shape + conditional.event_shape)
            raise ValueError(f"x must have the shape {wanted} of the likelihood at z, got {tuple(x.shape)}")
        return self.prior.log_density(z) + conditional.log_prob(x)

    def log_posterior(self, x: Tensor) -> LogDensity:
        """``z -> log p(x, z)``: the log-density in z of the posterior given ``x``, one chain per row of x.

        With a multiple of ``len(x)`` chains, chain ``c`` belongs to row ``c % len(x)``.
        """

        def log_density(z: Tensor) -> Tensor:
            copies = max(1, len(z) // len(x))
            return self.log_joint(x.repeat(copies, *[1] * (x.ndim - 1)) if copies > 1 else x, z)

        return log_density

    def energy_terms(self, x: Tensor, z: Tensor) -> EnergyTerms:
        """The parts (batch,) of the energy of ``(x, z)``."""
        return EnergyTerms(-self.likelihood(z).log_prob(x), -self.prior.tilt(z), -self.prior.base.log_density(z))

    def decode(self, z: Tensor) -> Tensor:
        """``E[x|z]`` (batch, \\*event)."""
        return self.likelihood(z).mean

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``E[x|z]`` (num, \\*event) at prior draws: samples without the observation noise, as in the papers."""
        return self.decode(self.prior.sample(num, generator=generator))
