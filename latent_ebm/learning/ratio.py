r"""Adaptive multi-stage density-ratio estimation of a latent prior (Xiao & Han 2022,
arXiv:2209.08739).

While one classifier after another carries the prior towards the aggregate posterior (see
``stages``), the likelihood learns all along from the posterior samples, under the product of the
stages closed so far.
"""

from lightning.pytorch import Callback
from torch import Tensor, nn

from latent_ebm.conditions import BatchLike
from latent_ebm.learning.base import OptimizerCallable, SchedulerCallable
from latent_ebm.learning.latent import LatentRule, acceptance
from latent_ebm.learning.stages import RatioStages
from latent_ebm.learning.trigger import StageTrigger
from latent_ebm.model import LatentModel
from latent_ebm.objectives import negative_log_likelihood
from latent_ebm.posteriors import Posterior


class MultiStageRatio(LatentRule):
    """Trains a ``model`` with a ``RatioPrior`` by the ``stages`` of density-ratio estimation.

    Set the trainer's ``val_check_interval``: stages are closed at validations. Source:
    arXiv:2209.08739.

    Args:
        model: The latent model, with a ratio prior.
        posterior: Draws z+ in training.
        stages: The open stage: its classifier and its pool.
        optimizer: Makes the optimiser from groups of parameters.
        inference: Draws latents of held-out data; the posterior, if left out.
        prior_lr: The learning rate of the classifier, if it differs.
        train_likelihood: False if only the prior is to learn.
        validation: Draws latents of the validation set, on which it is decided when a stage is
            closed; ``inference``, if left out. Its draws should be as close to the posterior as
            those of training: a chain for each datum is a cheap way.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.

    Raises:
        ValueError: For another prior, or a negative ``prior_lr``.
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
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            model, inference or posterior, optimizer, prior_lr=prior_lr, scheduler=scheduler
        )
        self.validation, self.stages = validation, stages
        self.posterior, self.train_likelihood = posterior.requires_grad_(False), train_likelihood
        self.trigger = StageTrigger(model, stages)
        model.likelihood.requires_grad_(train_likelihood)

    @property
    def learner(self) -> nn.Module:
        return self.stages.ratio

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        x, _, index = self.unpack(batch)
        z_data = self.posterior.sample(self.model, x, index=index)
        losses = {"ratio": self.trigger.loss(z_data)}
        self.drawn = (x, z_data)
        if self.train_likelihood:
            losses["likelihood"] = negative_log_likelihood(self.model.likelihood(z_data), x)
        return losses

    def watch(self) -> dict[str, Tensor]:
        x, z_data = self.drawn
        prior, pool = self.trigger.prior, self.stages.pool.particles[: len(x)]
        return acceptance("prior", prior.sampler, prior, pool) | self.watch_posterior(
            self.posterior, x, z_data
        )

    def held_out_latents(self, x: Tensor, index: Tensor | None, dataloader_idx: int) -> Tensor:
        """Those of ``validation``, whose chains are of the data of the first loader."""
        if self.validation is None or dataloader_idx > 0:
            return super().held_out_latents(x, index, dataloader_idx)
        return self.validation.sample(self.model, x, index=index)

    def configure_callbacks(self) -> list[Callback]:
        return [self.trigger]
