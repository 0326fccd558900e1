r"""What every learning rule shares: the wiring of a sampled posterior and pure losses to Lightning.

EM by sampling: infer ``z`` from ``x`` with a posterior sampler (E), then take a gradient step of the losses at the samples
(M). Samples are constants, prior and likelihood share no parameters, so the losses are summed under one optimiser.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor

from latent_ebm.learning.stages import RatioStages
from latent_ebm.learning.trigger import StageTrigger, staged_prior
from latent_ebm.metrics import reconstruction_mse
from latent_ebm.model import EnergyTerms, LatentModel
from latent_ebm.posteriors import Posterior
from samplers import PersistentChains
from samplers.base import check_finite

OptimizerCallable = Callable[[Iterable], torch.optim.Optimizer]


class LearningRule(LightningModule, ABC):
    """A ``model`` and the way it learns. A rule defines ``losses``; training, held-out figures and resuming follow.

    ``optimizer`` makes the optimiser from parameter groups; ``prior_lr`` is the learning rate of the prior's group, if
    it differs. ``inference`` draws held-out latents and those of ``predict_step``; ``validation``, if given, those of the
    validation set in its place, and may keep a chain for each of its data. A batch is a tensor x, or a tuple
    (x, label, index) whose ``index`` names the data for posteriors that keep a chain per datum. ``stages`` train a ratio
    prior, which the model's must then be, and they alone are the prior's parameters.
    """

    def __init__(
        self,
        model: LatentModel,
        inference: Posterior,
        optimizer: OptimizerCallable,
        prior_lr: float | None = None,
        stages: RatioStages | None = None,
        validation: Posterior | None = None,
    ) -> None:
        super().__init__()
        self.model, self.inference, self.validation, self.stages = model, inference, validation, stages
        self.optimizer, self.prior_lr = optimizer, prior_lr
        self.trigger = None if stages is None else StageTrigger(staged_prior(model), stages)
        self._rng: dict[str, Tensor] = {}

    @abstractmethod
    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Losses in nats per datum by name; their sum is minimised."""

    def stage_loss(self, z_data: Tensor) -> Tensor:
        """Classifier loss of the open stage at posterior draws ``z_data`` (batch, dim)."""
        if self.stages is None:
            raise ValueError("stages must be given to train a ratio prior, got None")
        return self.stages.loss(staged_prior(self.model), z_data)

    @staticmethod
    def unpack(batch: Any) -> tuple[Tensor, Tensor | None]:
        """``(x, index or None)`` of a batch. Raises ``FloatingPointError`` if x is not finite."""
        x, index = (batch, None) if isinstance(batch, Tensor) else (batch[0], batch[2] if len(batch) > 2 else None)
        check_finite("x", x, "remove or impute the offending rows")
        return x, index

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        losses = self.losses(batch)
        total = torch.stack(list(losses.values())).sum()
        check_finite("loss", total[None], "use a smaller learning rate or step_size")
        every = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if self.trainer.global_step % every == 0:
            self.log_dict({f"loss/{name}": loss.detach() for name, loss in losses.items()})
        return total

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Log held-out reconstruction and energy; return the held-out latents."""
        x, index = self.unpack(batch)
        if self.validation is None:
            z = self.inference.sample(self.model, x)
        else:
            z = self.validation.sample(self.model, x, index=index)
        terms = self.model.energy_terms(x, z)
        held_out = {"reconstruction_mse": reconstruction_mse(x, self.model.decode(z)), "joint": terms.joint.mean()}
        self.log_dict(
            {f"val/{name}": value for name, value in held_out.items()}, batch_size=len(x), sync_dist=True, prog_bar=True
        )
        return z

    def test_step(self, batch: Any, batch_idx: int) -> None:
        x, _ = self.unpack(batch)
        z = self.inference.sample(self.model, x)
        self.log("test/reconstruction_mse", reconstruction_mse(x, self.model.decode(z)), batch_size=len(x))
        self.log("test/joint", self.model.energy_terms(x, z).joint.mean(), batch_size=len(x))

    def predict_step(self, batch: Any, batch_idx: int = 0) -> EnergyTerms:
        """Energy terms (batch,) at inferred latents."""
        x, _ = self.unpack(batch)
        return self.model.energy_terms(x, self.inference.sample(self.model, x))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        learner = self.model.prior if self.stages is None else self.stages.ratio
        prior = [p for p in learner.parameters() if p.requires_grad]
        taken = {id(p) for p in prior}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in taken]
        group = {"params": prior} if self.prior_lr is None else {"params": prior, "lr": self.prior_lr}
        return self.optimizer([g for g in (group, {"params": rest}) if g["params"]])

    def configure_callbacks(self) -> list[Callback]:
        return [] if self.trigger is None else [self.trigger]

    def setup(self, stage: str) -> None:
        """Keep distributed training from overwriting the chains of other processes with those of the first."""
        chains = [name for name, module in self.named_modules() if isinstance(module, PersistentChains)]
        self._ddp_params_and_buffers_to_ignore = [f"{name}.particles" for name in chains]

    def on_fit_start(self) -> None:
        """Resume the random streams of a checkpoint; else give every process one of its own (Lightning seeds all alike)."""
        for name, module in self._random_modules():
            states = self._rng.get(name, torch.empty(0))
            if self.global_rank < len(states):
                module.set_rng_state(states[self.global_rank])
            elif self.global_rank > 0:
                module.manual_seed(torch.initial_seed() + self.global_rank)
        self._rng = {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        streams = {name: self.all_gather(module.get_rng_state()) for name, module in self._random_modules()}
        checkpoint["rng"] = {
            name: state.view(self.trainer.world_size, -1).cpu()
            for name, state in streams.items()
            if isinstance(state, Tensor)
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._rng = checkpoint.get("rng", {})
        if self.trigger is not None:
            self.trigger.grow(len(checkpoint["state_dict"]["model.prior.weights"]))

    def _random_modules(self) -> list[tuple[str, Any]]:
        """The modules that hold random streams: torch for the CPU, and that of the accelerator in use."""
        device = self.device.type
        return [("cpu", torch)] + ([] if device == "cpu" else [(device, torch.get_device_module(device))])
