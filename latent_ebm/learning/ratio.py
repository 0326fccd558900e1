r"""Adaptive multi-stage density-ratio estimation of a latent prior (Xiao & Han 2022,
arXiv:2209.08739).

One classifier after another brings the prior closer to the aggregate posterior (see ``stages``).
Meanwhile the likelihood learns from posterior samples, under the prior that is the product of the
stages closed so far.
"""

from lightning.pytorch import Callback
from torch import Tensor, nn

from latent_ebm.conditions import Batch, BatchLike, Conditioner
from latent_ebm.learning.base import OptimizerCallable, SchedulerCallable
from latent_ebm.learning.latent import LatentRule, acceptance
from latent_ebm.learning.stages import RatioStages
from latent_ebm.learning.trigger import StageTrigger
from latent_ebm.model import LatentModel
from latent_ebm.objectives import negative_log_likelihood
from latent_ebm.posteriors import Posterior


class MultiStageRatio(LatentRule):
    """Trains a ``model`` with a ``RatioPrior`` by the ``stages`` of density-ratio estimation.

    Stages are closed at validations, and the last one at the end of training. With a trainer's
    ``val_check_interval``, keep checkpoints by ``ModelCheckpoint(save_on_train_epoch_end=True)``;
    by default they would be saved at validations. Source: arXiv:2209.08739.

    Args:
        model: The latent model, with a ratio prior.
        posterior: Draws the latents z+ of a batch in training.
        stages: The open stage: its classifier and its pool.
        optimizer: Makes the optimiser from groups of parameters.
        inference: Draws the latents of held-out data; by default ``posterior``.
        prior_lr: The learning rate of the classifier, if it differs from the optimiser's.
        train_likelihood: Whether the likelihood learns too.
        validation: Draws the latents of the validation set, which decide when a stage is closed;
            by default ``inference``. These draws should be as close to the posterior as those of
            training. One persistent chain per row of the set is a cheap way.
        conditioner: Turns what a batch carries (labels, token ids) into the condition of the
            likelihood.
        dropout: The share of training rows whose condition is left out, so that the model also
            learns to do without one.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.

    Raises:
        ValueError: For another prior, a negative ``prior_lr``, or a ``conditioner`` that does not
            fit the model.
    """

    def __init__(
        self,
        model: LatentModel,
        posterior: Posterior,
        stages: RatioStages,
        optimizer: OptimizerCallable,
        inference: Posterior | None = None,
        prior_lr: float | None = None,
        train_likelihood: bool = True,
        validation: Posterior | None = None,
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
        self.validation, self.stages = validation, stages
        self.posterior, self.train_likelihood = posterior.requires_grad_(False), train_likelihood
        self.trigger = StageTrigger(model, stages)
        model.likelihood.requires_grad_(train_likelihood)

    @property
    def learner(self) -> nn.Module:
        return self.stages.ratio

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        rows = self.unpack(batch)
        model = self.told(rows)
        z_data = self.posterior.sample(model, rows.x, index=rows.index)
        losses = {"ratio": self.trigger.loss(z_data)}
        self.drawn = (model, rows.x, z_data)
        if self.train_likelihood:
            losses["likelihood"] = negative_log_likelihood(model.likelihood(z_data), rows.x)
        return losses

    def watch(self) -> dict[str, Tensor]:
        model, x, z_data = self.drawn
        prior, pool = self.trigger.prior, self.stages.pool.particles[: len(x)]
        return acceptance("prior", prior.sampler, prior, pool) | self.watch_posterior(
            self.posterior, model, x, z_data
        )

    def held_out_latents(self, model: LatentModel, batch: Batch, dataloader_idx: int) -> Tensor:
        """Latents (rows, dim) drawn by ``validation`` for the first loader, to whose rows its
        chains belong; by ``inference`` for the others.
        """
        if self.validation is None or dataloader_idx > 0:
            return super().held_out_latents(model, batch, dataloader_idx)
        return self.validation.sample(model, batch.x, index=batch.index)

    def configure_callbacks(self) -> list[Callback]:
        return [self.trigger]
