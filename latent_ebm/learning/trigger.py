r"""Closes the stages of a ratio prior during training, depending on validation metrics."""

import copy

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from latent_ebm.learning.checkpoint_io import check_saved_after_epochs
from latent_ebm.learning.stages import RatioStages
from latent_ebm.model import LatentModel
from latent_ebm.priors import RatioPrior


def staged_prior(model: LatentModel) -> RatioPrior:
    """The model's prior. Raises ``ValueError`` unless it is a ``RatioPrior``."""
    if not isinstance(model.prior, RatioPrior):
        raise ValueError(
            "model.prior must be a RatioPrior to be trained in stages, got "
            f"{type(model.prior).__name__}"
        )
    return model.prior


def check_validation(trainer: Trainer) -> None:
    """Raise ``ValueError`` if training would end without a validation, so that no stage would ever
    be closed.
    """
    if not trainer.enable_validation:
        raise ValueError(
            "limit_val_batches must leave batches of a validation set, which decide when a stage "
            f"is closed, got {trainer.limit_val_batches}"
        )
    every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    if every is not None and epochs is not None and 0 < epochs < every:
        raise ValueError(
            f"check_val_every_n_epoch must be at most max_epochs = {epochs}, because stages are "
            f"closed at validations, got {every}"
        )


class StageTrigger(Callback):
    """Trains the open stage of a model's ratio prior. It checks the stage on the latents of each
    validation, and closes it when it is done or when training ends.

    In several processes the first one decides for all. A state that is loaded into the prior sets
    the number of stages.
    """

    def __init__(self, model: LatentModel, stages: RatioStages) -> None:
        self.prior, self.stages = staged_prior(model), stages
        self.held_out: list[Tensor] = []
        self.prior.register_load_state_dict_pre_hook(self.grow)

    def loss(self, z_data: Tensor) -> Tensor:
        """Classifier loss of the open stage at posterior draws ``z_data`` (batch, dim)."""
        return self.stages.loss(self.prior, z_data)

    def grow(self, _: nn.Module, state: dict[str, Tensor], prefix: str, *__: object) -> None:
        """Give the prior as many stages as ``state`` has, which is about to be loaded.

        Raises:
            ValueError: If the state has more or fewer weights than stages.
        """
        stages, num_weights = f"{prefix}stages.", len(state[f"{prefix}weights"])
        stored = {name[len(stages) :].split(".")[0] for name in state if name.startswith(stages)}
        if num_weights != len(stored):
            raise ValueError(
                f"{prefix}weights must have an entry per stage, of {len(stored)} stages, got "
                f"{num_weights}"
            )
        while len(self.prior.stages) < num_weights:
            self.prior.append(copy.deepcopy(self.stages.ratio))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        averaging = (StochasticWeightAveraging, WeightAveraging)
        if any(isinstance(c, averaging) for c in trainer.callbacks):  # pyright: ignore[reportAttributeAccessIssue]
            raise ValueError(
                "callbacks must not average weights while a ratio prior grows: stages would be "
                "averaged away"
            )
        check_validation(trainer)
        check_saved_after_epochs(trainer, "the last stage is closed")
        self.stages.start(self.prior)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if dataloader_idx == 0 and isinstance(outputs, Tensor):
            self.held_out.append(outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        z, self.held_out = torch.cat(self.held_out), []
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        metrics = trainer.strategy.broadcast(self.stages.check(z))
        self.stages.record(metrics)
        pl_module.log_dict(
            {f"ratio/{name}": value for name, value in metrics.items()}, sync_dist=True
        )
        if self.stages.is_done(self.prior):
            self.close(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        is_over = trainer.should_stop or trainer.global_step >= trainer.estimated_stepping_batches
        if is_over and self.stages.is_worth_adding(self.prior):
            self.close(trainer, pl_module)

    def close(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the open stage, discard the optimiser's moments of its classifier, and log the
        weight, log Z and the number of stages.
        """
        step = trainer.strategy.broadcast(self.stages.measure())
        self.stages.close(self.prior, **step)
        for parameter in self.stages.ratio.parameters():
            trainer.optimizers[0].state.pop(parameter, None)
        added = {
            "weight": step["weight"],
            "log_z": self.prior.log_z.item(),
            "num_stages": float(len(self.prior.stages)),
        }
        pl_module.log_dict(
            {f"ratio/{name}": value for name, value in added.items()}, sync_dist=True
        )
