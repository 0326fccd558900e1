r"""Variational learning: an encoder ``q(z|x)`` in place of posterior chains (Kingma & Welling
2014, arXiv:1312.6114).

The evidence lower bound ``E_q[log p(x|z) + log p(z) - log q(z|x)]`` holds for every prior. The
constant ``log Z`` of an energy prior is unknown, but draws of the prior estimate its gradient
``-E_p[dE]``. The stages of a ratio prior learn from draws of the encoder. One ratio on a trained
VAE is the NCP-VAE (Aneja et al. 2020, arXiv:2010.02917).
"""

from lightning.pytorch import Callback
from torch import Tensor, nn

from latent_ebm.conditions import Batch, BatchLike, Conditioner
from latent_ebm.learning.base import OptimizerCallable, SchedulerCallable
from latent_ebm.learning.latent import LatentRule, check_no_stages, energies, is_trainable
from latent_ebm.learning.stages import RatioStages
from latent_ebm.learning.trigger import StageTrigger
from latent_ebm.model import LatentModel
from latent_ebm.objectives import divergence, negative_log_likelihood
from latent_ebm.posteriors import AmortizedPosterior, WarmStart
from samplers import Sampler


class Variational(LatentRule):
    """Trains a ``model`` and the encoder of its ``posterior`` by the evidence lower bound.

    The prior may be a Gaussian, an energy prior or a ratio prior. A ``RatioPrior`` learns in
    ``stages`` from the encoder's draws. For NCP-VAE, give the trained posterior and likelihood to
    ``MultiStageRatio(train_likelihood=False)`` with one stage.

    Args:
        model: The latent model.
        posterior: The encoder.
        optimizer: Makes the optimiser from groups of parameters.
        stages: The open stage of a ratio prior: its classifier and its pool.
        refine: Refines held-out latents by a chain from the encoder's mean; by default they are
            draws of the encoder.
        prior_lr: The learning rate of the prior, if it differs from the optimiser's.
        conditioner: Turns what a batch carries (labels, token ids) into the condition of prior or
            likelihood.
        dropout: The share of training rows whose condition is left out, so that the model also
            learns to do without one.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.

    Raises:
        ValueError: For a ratio prior without ``stages``, ``stages`` of another prior, or a
            ``conditioner`` that does not fit the model.
    """

    def __init__(
        self,
        model: LatentModel,
        posterior: AmortizedPosterior,
        optimizer: OptimizerCallable,
        stages: RatioStages | None = None,
        refine: Sampler | None = None,
        prior_lr: float | None = None,
        conditioner: Conditioner | None = None,
        dropout: float = 0.1,
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        inference = posterior if refine is None else WarmStart(posterior, refine)
        super().__init__(
            model,
            inference,
            optimizer,
            prior_lr=prior_lr,
            conditioner=conditioner,
            dropout=dropout,
            scheduler=scheduler,
        )
        if stages is None:
            check_no_stages(self, model)
        self.posterior, self.stages = posterior, stages
        self.trigger = None if stages is None else StageTrigger(model, stages)

    @property
    def learner(self) -> nn.Module:
        return self.model.prior if self.stages is None else self.stages.ratio

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        rows = self.unpack(batch)
        model, x = self.told(rows), rows.x
        model.likelihood.check(x)
        q = self.posterior(x)
        z = q.rsample()
        losses = {
            "likelihood": negative_log_likelihood(model.likelihood(z), x),
            "divergence": divergence(q, model.prior, z),
        }
        if is_trainable(model.prior):
            z_model = model.prior.sample(len(x))
            losses["prior"] = model.prior.log_density(z_model).mean()
            self.drawn = (model.prior, z.detach(), z_model)
        if self.trigger is not None:
            losses["ratio"] = self.trigger.loss(z.detach())
        return losses

    def watch(self) -> dict[str, Tensor]:
        return energies(*self.drawn) if is_trainable(self.model.prior) else {}

    def held_out_latents(self, model: LatentModel, batch: Batch, dataloader_idx: int) -> Tensor:
        """Draws of the encoder, as in training; stages are checked on them too."""
        return self.posterior.sample(model, batch.x)

    def configure_callbacks(self) -> list[Callback]:
        return [] if self.trigger is None else [self.trigger]
