r"""Maximum likelihood by short-run MCMC (Pang et al. 2020, arXiv:2006.08205).

Take ``z+ ~ p(z|x)`` and ``z- ~ p(z)``. The gradient of ``log p(x)`` with respect to the
likelihood's parameters is the expected gradient of ``log p(x|z+)``. With respect to the energy's
parameters it is the expected gradient of ``E(z-) - E(z+)``. Short chains draw both latents.
"""

from typing import Literal

from torch import Tensor

from latent_ebm.conditions import BatchLike, Conditioner
from latent_ebm.learning.base import OptimizerCallable, SchedulerCallable
from latent_ebm.learning.latent import (
    LatentRule,
    Sampled,
    acceptance,
    check_no_stages,
    energies,
    is_trainable,
)
from latent_ebm.model import LatentModel
from latent_ebm.objectives import contrastive, negative_log_likelihood
from latent_ebm.posteriors import Posterior
from latent_ebm.priors import Prior
from samplers import PersistentChains


class ShortRunMLE(LatentRule):
    """Trains a ``model`` with an energy prior by maximum likelihood.

    A Gaussian prior works too; it has nothing to learn. Source: arXiv:2006.08205.

    Args:
        model: The latent model, with an energy prior or a Gaussian one.
        posterior: Draws the latents z+ of a batch in training.
        optimizer: Makes the optimiser from groups of parameters.
        prior_chains: Where the prior's chains for z- start: "cold" at draws of the base, "warm" at
            the posterior draws (contrastive divergence); ``PersistentChains`` continue from where
            they ended.
        inference: Draws the latents of held-out data; by default ``posterior``.
        prior_lr: The learning rate of the prior, if it differs from the optimiser's.
        conditioner: Turns what a batch carries (labels, token ids) into the condition of prior or
            likelihood.
        dropout: The share of training rows whose condition is left out, so that the model also
            learns to do without one.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.

    Raises:
        ValueError: For a ratio prior, ``prior_chains`` that the prior cannot run, or a
            ``conditioner`` that does not fit the model.
    """

    def __init__(
        self,
        model: LatentModel,
        posterior: Posterior,
        optimizer: OptimizerCallable,
        prior_chains: PersistentChains | Literal["cold", "warm"] = "cold",
        inference: Posterior | None = None,
        prior_lr: float | None = None,
        conditioner: Conditioner | None = None,
        dropout: float = 0.1,
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            model,
            inference or posterior,
            optimizer,
            prior_lr=prior_lr,
            conditioner=conditioner,
            dropout=dropout,
            scheduler=scheduler,
        )
        check_no_stages(self, model)
        check_chains(prior_chains, model.prior)
        self.posterior, self.prior_chains = posterior, prior_chains

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        rows = self.unpack(batch)
        model = self.told(rows)
        z_data = self.posterior.sample(model, rows.x, index=rows.index)
        losses = {}
        if is_trainable(model.likelihood):
            losses["likelihood"] = negative_log_likelihood(model.likelihood(z_data), rows.x)
        if is_trainable(model.prior):
            z_model = self.sample_prior(model.prior, z_data)
            losses["prior"] = contrastive(model.prior, z_data, z_model)
            self.drawn = (model, rows.x, z_data, z_model)
        return losses

    def watch(self) -> dict[str, Tensor]:
        if not is_trainable(self.model.prior):
            return {}
        model, x, z_data, z_model = self.drawn
        prior = model.prior
        chains = (
            acceptance("prior", prior.sampler, prior, z_model)
            if isinstance(prior, Sampled)
            else {}
        )
        return (
            energies(prior, z_data, z_model)
            | chains
            | self.watch_posterior(self.posterior, model, x, z_data)
        )

    def sample_prior(self, prior: Prior, z_data: Tensor) -> Tensor:
        """Negative samples z- (batch, dim), as many as ``z_data``."""
        if self.prior_chains == "cold" or not isinstance(prior, Sampled):
            return prior.sample(len(z_data))
        if isinstance(self.prior_chains, PersistentChains):
            index = self.prior_chains.pick(len(z_data))
            return self.prior_chains.advance(prior.sampler, prior, index)
        return prior.sampler.sample(prior, z_data)


def check_chains(prior_chains: object, prior: Prior) -> None:
    """Raise ``ValueError`` for ``prior_chains`` that are unknown or that ``prior`` cannot run."""
    persistent = isinstance(prior_chains, PersistentChains)
    if not persistent and prior_chains not in ("cold", "warm"):
        raise ValueError(
            f'prior_chains must be "cold", "warm" or PersistentChains, got {prior_chains!r}'
        )
    if prior_chains != "cold" and is_trainable(prior) and not isinstance(prior, Sampled):
        raise ValueError(
            f'prior_chains must be "cold" for a prior without a sampler, got {prior_chains!r}'
        )
    if persistent and prior.is_conditional:
        raise ValueError(
            'prior_chains must be "cold" or "warm" for a conditional prior, because a chain would '
            "go from one condition to another, got PersistentChains"
        )
