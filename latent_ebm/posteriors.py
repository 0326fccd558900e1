r"""Posteriors: ways to draw ``z`` given ``x``.

Short chains on ``model.log_posterior(x)`` are *short-run inference*: a chain of 20 steps of .005
travels for a time of .1 and does not reach the posterior. It gets closer if it starts where the
chain of the same datum ended last time, or at the guess of an encoder.
"""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from latent_ebm.artefacts import Artefact
from latent_ebm.autoencoders import LatentSpace
from latent_ebm.likelihoods import per_row
from latent_ebm.model import LatentModel
from samplers import PersistentChains, Sampler
from samplers.base import normal_like
from samplers.checks import check_kind


class Posterior(Artefact, ABC):
    """Draws of ``z`` given ``x`` under a model."""

    @abstractmethod
    def sample(
        self,
        model: LatentModel,
        x: Tensor,
        *,
        index: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Detached draws z (batch, dim) for x (batch, \\*event); ``index`` (batch,) tells which
        data the rows are.
        """


class MCMCPosterior(Posterior):
    """A Markov chain per datum on ``model.log_posterior(x)``.

    ``start``: "cold" draws from the prior's base, "zero" starts at the origin (with
    ``Langevin(temperature=0)`` the result is deterministic and does not depend on the other rows),
    and ``PersistentChains(num_data, dim)`` continues the chain of each datum, which then must be
    named by ``index``.
    """

    def __init__(
        self, sampler: Sampler, start: PersistentChains | Literal["cold", "zero"] = "cold"
    ) -> None:
        super().__init__()
        check_kind(self, Sampler, sampler=sampler)
        if not isinstance(start, PersistentChains) and start not in ("cold", "zero"):
            raise ValueError(f'start must be "cold", "zero" or PersistentChains, got {start!r}')
        self.sampler, self.start = sampler, start

    def sample(
        self,
        model: LatentModel,
        x: Tensor,
        *,
        index: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        log_posterior = model.log_posterior(x)
        if isinstance(self.start, PersistentChains):
            if index is None:
                raise ValueError(
                    "index must name the data of x, since this posterior keeps one chain per datum"
                )
            return self.start.advance(self.sampler, log_posterior, index, generator=generator)
        z = model.prior.base.sample(len(x), generator=generator)
        if self.start == "zero":
            z = torch.zeros_like(z)
        return self.sampler.sample(log_posterior, z, generator=generator)


class AmortizedPosterior(Posterior):
    """``q(z|x) = N(mean(x), std(x)^2)``, whose ``encoder`` maps x (batch, \\*event) to (batch, 2
    dim): mean, log std.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Independent:
        """The distribution ``q(z|x)`` with batch shape (batch,)."""
        parts = self.encoder(x).to(x.dtype)  # chains need more than autocast's precision
        if parts.ndim != 2 or parts.shape[1] % 2:
            raise ValueError(
                "encoder must return shape (batch, 2 dim), mean and log std, got "
                f"{tuple(parts.shape)}"
            )
        mean, log_std = parts.chunk(2, dim=-1)
        return per_row(Normal(mean, log_std.exp(), validate_args=False))

    def sample(
        self,
        model: LatentModel,
        x: Tensor,
        *,
        index: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        model.likelihood.check(x)
        with torch.no_grad():
            q = self(x)
            return q.mean + q.stddev * normal_like(q.mean, generator)


class WarmStart(Posterior):
    """Chains on ``model.log_posterior(x)`` that start at the mean of an ``amortized`` posterior.

    With ``Langevin(temperature=0)`` the result is deterministic and does not depend on the other
    rows.
    """

    def __init__(self, amortized: AmortizedPosterior, sampler: Sampler) -> None:
        super().__init__()
        check_kind(self, AmortizedPosterior, amortized=amortized)
        check_kind(self, Sampler, sampler=sampler)
        self.amortized, self.sampler = amortized, sampler

    def sample(
        self,
        model: LatentModel,
        x: Tensor,
        *,
        index: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        with torch.no_grad():
            z = self.amortized(x).mean
        return self.sampler.sample(model.log_posterior(x), z, generator=generator)


class PosteriorLatents(LatentSpace):
    """The latents of a model, drawn by a posterior: a space for a diffusion model to learn in.

    Source: Vahdat et al. 2021, arXiv:2106.05931.

    Args:
        model: Decodes latents.
        posterior: Draws the latents of data under ``model``.
    """

    def __init__(self, model: LatentModel, posterior: Posterior) -> None:
        super().__init__()
        check_kind(self, LatentModel, model=model)
        check_kind(self, Posterior, posterior=posterior)
        self.model, self.posterior = model, posterior

    def encode(
        self,
        x: Tensor,
        index: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return self.posterior.sample(self.model, x, index=index, generator=generator)

    def decode(self, z: Tensor) -> Tensor:
        return self.model.decode(z)
