r"""Posteriors: ways to draw ``z`` given ``x``.

Short chains on ``model.log_posterior(x)`` are *short-run inference*: a chain of 20 steps of .005
travels for a time of .1 and does not reach the posterior. It gets closer if it starts where the
chain of the same datum ended last time, or at the draw of an encoder. Neither mends the shares of
several modes: a chain stays in the mode where it starts. ``Restarts`` does. Samplers with a ladder
(``Annealed``, ``ParallelTempering``) do so in long chains alone. Posteriors compose:
``MCMCPosterior(sampler, start=Restarts(...))`` keeps one of many starts by weight and moves it on.
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
from samplers import LogDensity, PersistentChains, Sampler, annealed_importance
from samplers.base import normal_like
from samplers.checks import check_counts, check_kind
from samplers.importance import check_invariant, check_some_weight


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
    named by ``index``. Another posterior, such as an ``AmortizedPosterior``, starts the chains at
    its draws.
    """

    def __init__(
        self,
        sampler: Sampler,
        start: PersistentChains | Posterior | Literal["cold", "zero"] = "cold",
    ) -> None:
        super().__init__()
        check_kind(self, Sampler, sampler=sampler)
        named = isinstance(start, str) and start in ("cold", "zero")
        if not named and not isinstance(start, PersistentChains | Posterior):
            raise ValueError(
                f'start must be "cold", "zero", PersistentChains or a posterior, got {start!r}'
            )
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
        if isinstance(self.start, Posterior):
            z = self.start.sample(model, x, index=index, generator=generator)
        else:
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


class Restarts(Posterior):
    """Several chains per datum, of which one is kept in proportion to its weight.

    ``num_starts`` draws per datum are annealed from the distribution q of the starts to ``p(x,
    z)`` (Neal 2001, arXiv:physics/9803008), and one is resampled by its importance weight. With
    many starts the draw is exact, the shares of its modes included, whatever the number of rungs;
    rungs make fewer starts do. With one rung the weight is ``p(x, z) / q(z)`` and no chain runs.

    Args:
        sampler: Moves the starts at the ``num_rungs - 1`` inner rungs: MALA or HMC, which leave
            their target invariant.
        num_starts: How many starts each datum has.
        num_rungs: Steps of the annealing.
        start: Where starts come from: "cold" draws from the prior's base, and an
            ``AmortizedPosterior`` from ``q(z|x)``, which should be wider than the posterior.

    Raises:
        ValueError: For a count below 1, another ``start``, or another sampler.
    """

    def __init__(
        self,
        sampler: Sampler,
        num_starts: int,
        num_rungs: int = 1,
        start: AmortizedPosterior | Literal["cold"] = "cold",
    ) -> None:
        super().__init__()
        check_invariant(sampler)
        check_counts(self, num_starts=num_starts, num_rungs=num_rungs)
        if start != "cold" and not isinstance(start, AmortizedPosterior):
            raise ValueError(f'start must be "cold" or an AmortizedPosterior, got {start!r}')
        self.sampler, self.start = sampler, start
        self.num_starts, self.num_rungs = num_starts, num_rungs

    def sample(
        self,
        model: LatentModel,
        x: Tensor,
        *,
        index: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        q, z = self.starts(model, x, generator)
        z, log_weight = annealed_importance(
            q, model.log_posterior(x), z, self.sampler, self.num_rungs, generator=generator
        )
        by_datum = log_weight.view(self.num_starts, len(x))
        if len(x):
            check_some_weight(by_datum, 0)
        kept = torch.multinomial(by_datum.softmax(0).mT, 1, generator=generator)[:, 0]
        return z[kept * len(x) + torch.arange(len(x), device=z.device)]

    def starts(
        self, model: LatentModel, x: Tensor, generator: torch.Generator | None
    ) -> tuple[LogDensity, Tensor]:
        """The log-density of the starts, and the starts (num_starts * batch, dim): start ``c``
        belongs to row ``c % batch``.
        """
        if not isinstance(self.start, AmortizedPosterior):
            base = model.prior.base
            return base, base.sample(self.num_starts * len(x), generator=generator)
        shape = self.num_starts, len(x)
        with torch.no_grad():
            q = self.start(x)
        noise = normal_like(q.mean.expand(self.num_starts, *q.mean.shape), generator)
        z = q.mean + q.stddev * noise
        return lambda z: q.log_prob(z.unflatten(0, shape)).flatten(), z.flatten(0, 1)


class PosteriorLatents(LatentSpace):
    """The latents of a model, drawn by a posterior: a space for a diffusion model to learn in.

    Source: Vahdat et al. 2021, arXiv:2106.05931.

    Args:
        model: Decodes latents.
        posterior: Draws the latents of training rows under ``model``.
        inference: Draws those of other rows, which have no index; by default ``posterior``.

    Raises:
        ValueError: For a ``posterior`` with a chain per training row, without ``inference``.
    """

    def __init__(
        self, model: LatentModel, posterior: Posterior, inference: Posterior | None = None
    ) -> None:
        super().__init__()
        check_kind(self, LatentModel, model=model)
        check_kind(self, Posterior, posterior=posterior, inference=inference or posterior)
        if inference is None and any(isinstance(m, PersistentChains) for m in posterior.modules()):
            raise ValueError(
                "inference must draw the latents of other rows than those of training, for which "
                "posterior has persistent chains, got None"
            )
        self.model, self.posterior, self.inference = model, posterior, inference

    def encode(
        self,
        x: Tensor,
        index: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        posterior = self.posterior if index is not None else self.inference or self.posterior
        return posterior.sample(self.model, x, index=index, generator=generator)

    def decode(self, z: Tensor) -> Tensor:
        return self.model.decode(z)
