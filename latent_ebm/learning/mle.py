r"""Maximum likelihood by short-run MCMC (Pang et al. 2020, arXiv:2006.08205).

With ``z+ ~ p(z|x)`` and ``z- ~ p(z)``, the gradient of ``log p(x)`` is that of ``log p(x|z+)`` in
the likelihood and of ``E(z-) - E(z+)`` in the energy. Both expectations come from short chains.
"""

from typing import Literal

from torch import Tensor

from latent_ebm.conditions import BatchLike
from latent_ebm.learning.base import OptimizerCallable, SchedulerCallable
from latent_ebm.learning.latent import LatentRule, acceptance, energies
from latent_ebm.model import LatentModel
from latent_ebm.objectives import contrastive, negative_log_likelihood
from latent_ebm.posteriors import Posterior
from latent_ebm.priors import EnergyPrior
from samplers import PersistentChains


class ShortRunMLE(LatentRule):
    """Trains a ``model`` with an energy prior (or with a Gaussian one, which has nothing to learn)
    by maximum likelihood.

    Source: arXiv:2006.08205.

    Args:
        model: The latent model, with an energy prior or a Gaussian one.
        posterior: Draws z+ in training.
        optimizer: Makes the optimiser from groups of parameters.
        prior_chains: The prior's chains for z- start "cold" at the base, "warm" at the posterior
            draws (contrastive divergence), or continue ``PersistentChains``.
        inference: Draws latents of held-out data; the posterior, if left out.
        prior_lr: The learning rate of the prior, if it differs.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.
    """

    def __init__(
        self,
        model: LatentModel,
        posterior: Posterior,
        optimizer: OptimizerCallable,
        prior_chains: PersistentChains | Literal["cold", "warm"] = "cold",
        inference: Posterior | None = None,
        prior_lr: float | None = None,
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            model, inference or posterior, optimizer, prior_lr=prior_lr, scheduler=scheduler
        )
        if not isinstance(prior_chains, PersistentChains) and prior_chains not in ("cold", "warm"):
            raise ValueError(
                f'prior_chains must be "cold", "warm" or PersistentChains, got {prior_chains!r}'
            )
        self.posterior, self.prior_chains = posterior, prior_chains

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        x, _, index = self.unpack(batch)
        z_data = self.posterior.sample(self.model, x, index=index)
        losses = {"likelihood": negative_log_likelihood(self.model.likelihood(z_data), x)}
        if isinstance(self.model.prior, EnergyPrior):
            z_model = self.sample_prior(self.model.prior, z_data)
            losses["prior"] = contrastive(self.model.prior, z_data, z_model)
            self.drawn = (x, z_data, z_model)
        return losses

    def watch(self) -> dict[str, Tensor]:
        prior = self.model.prior
        if not isinstance(prior, EnergyPrior):
            return {}
        x, z_data, z_model = self.drawn
        chains = acceptance("prior", prior.sampler, prior, z_model) | self.watch_posterior(
            self.posterior, x, z_data
        )
        return energies(prior, z_data, z_model) | chains

    def sample_prior(self, prior: EnergyPrior, z_data: Tensor) -> Tensor:
        """Negative samples z- (batch, dim), as many as ``z_data``."""
        if isinstance(self.prior_chains, PersistentChains):
            index = self.prior_chains.pick(len(z_data))
            return self.prior_chains.advance(prior.sampler, prior, index)
        if self.prior_chains == "warm":
            return prior.sampler.sample(prior, z_data)
        return prior.sample(len(z_data))
