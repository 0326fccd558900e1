r"""Learning rules of latent models: the wiring of a sampled posterior and pure losses.

EM by sampling: infer ``z`` from ``x`` with a posterior sampler (E), then take a gradient step of
the losses at the samples (M). Samples are constants, prior and likelihood share no parameters, so
the losses are summed under one optimiser.
"""

from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor

from latent_ebm.conditions import Condition, check_unconditional
from latent_ebm.learning.base import LearningRule, OptimizerCallable, SchedulerCallable
from latent_ebm.learning.stages import RatioStages
from latent_ebm.learning.trigger import StageTrigger, staged_prior
from latent_ebm.metrics import reconstruction_mse
from latent_ebm.model import EnergyTerms, LatentModel
from latent_ebm.posteriors import MCMCPosterior, Posterior
from latent_ebm.priors import EnergyPrior
from samplers import HMC, MALA, LogDensity, Sampler
from samplers.checks import check_kind, check_numbers


def acceptance(
    name: str, sampler: Sampler, log_density: LogDensity, z: Tensor
) -> dict[str, Tensor]:
    """Mean acceptance probability of one more step from z (batch, dim), for a sampler with a
    Metropolis test; else nothing.

    The step has noise of its own, so that to look at it does not change a training.
    """
    if not isinstance(sampler, (MALA, HMC)):
        return {}
    generator = torch.Generator(z.device).manual_seed(0)
    _, info = sampler.step(log_density, sampler.init(log_density, z), generator=generator)
    return {f"acceptance/{name}": info.accept_prob.mean()}


def energies(prior: EnergyPrior, z_data: Tensor, z_model: Tensor) -> dict[str, Tensor]:
    """Mean energies of posterior and prior draws (batch, dim)."""
    with torch.no_grad():
        return {
            f"energy/{name}": prior.network(z).mean()
            for name, z in {"data": z_data, "model": z_model}.items()
        }


class LatentRule(LearningRule):
    """A ``model`` and the way it learns from posterior draws. A rule defines ``losses``; held-out
    figures follow.

    ``optimizer`` makes the optimiser from parameter groups; ``prior_lr`` is the learning rate of
    the prior's group, if it differs. ``inference`` draws held-out latents and those of
    ``predict_step``; ``validation``, if given, those of the validation set in its place, and may
    keep a chain for each of its data. In a batch (x, label, index) the ``index`` names the data
    for posteriors that keep a chain per datum. ``stages`` train a ratio prior, which the model's
    must then be, and they alone are the prior's parameters.
    """

    def __init__(
        self,
        model: LatentModel,
        inference: Posterior,
        optimizer: OptimizerCallable,
        prior_lr: float | None = None,
        stages: RatioStages | None = None,
        validation: Posterior | None = None,
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.model, self.inference, self.validation, self.stages = (
            model,
            inference,
            validation,
            stages,
        )
        self.prior_lr = prior_lr
        check_kind(self, LatentModel, model=model)
        check_numbers(self, "non-negative", prior_lr=0 if prior_lr is None else prior_lr)
        self.trigger = None if stages is None else StageTrigger(staged_prior(model), stages)

    def stage_loss(self, z_data: Tensor) -> Tensor:
        """Classifier loss of the open stage at posterior draws ``z_data`` (batch, dim)."""
        if self.stages is None:
            raise ValueError("stages must be given to train a ratio prior, got None")
        return self.stages.loss(staged_prior(self.model), z_data)

    def watch_posterior(self, posterior: Posterior, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        """The acceptance of posterior chains at x (batch, \\*event) and z (batch, dim)."""
        if not isinstance(posterior, MCMCPosterior):
            return {}
        return acceptance("posterior", posterior.sampler, self.model.log_posterior(x), z)

    def generate(
        self,
        num: int,
        condition: Condition | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Prior draws ``z`` (num, dim) and ``x = E[x|z]``."""
        check_unconditional(condition)
        z = self.model.prior.sample(num, generator=generator)
        return {"x": torch.cat([self.model.decode(part) for part in z.split(500)]), "z": z}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Log held-out figures; return the held-out latents. Chains of ``validation`` are of the
        data of the first loader.
        """
        x, _, index = self.unpack(batch)
        if self.validation is None or dataloader_idx > 0:
            z = self.inference.sample(self.model, x)
        else:
            z = self.validation.sample(self.model, x, index=index)
        self.log_held_out("val", self.figures_at(x, z), batch, dataloader_idx)
        return z

    def held_out(self, batch: Any) -> dict[str, Tensor]:
        x = self.unpack(batch).x
        return self.figures_at(x, self.inference.sample(self.model, x))

    def figures_at(self, x: Tensor, z: Tensor) -> dict[str, Any]:
        """Reconstruction error and mean energy of x (batch, \\*event) at latents z (batch,
        dim).
        """
        joint = self.model.energy_terms(x, z).joint.mean()
        return {"reconstruction_mse": reconstruction_mse(x, self.model.decode(z)), "joint": joint}

    def predict_step(self, batch: Any, batch_idx: int = 0) -> EnergyTerms:
        """Energy terms (batch,) at inferred latents."""
        x = self.unpack(batch).x
        return self.model.energy_terms(x, self.inference.sample(self.model, x))

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        learner = self.model.prior if self.stages is None else self.stages.ratio
        prior = [p for p in learner.parameters() if p.requires_grad]
        taken = {id(p) for p in prior}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in taken]
        group = (
            {"params": prior} if self.prior_lr is None else {"params": prior, "lr": self.prior_lr}
        )
        return [self.optimizer([g for g in (group, {"params": rest}) if g["params"]])]

    def configure_callbacks(self) -> list[Callback]:
        return [] if self.trigger is None else [self.trigger]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.trigger is not None:
            state, stages = checkpoint["state_dict"], "model.prior.stages."
            num_stages = len(state["model.prior.weights"])
            num_stored = len({name.split(".")[3] for name in state if name.startswith(stages)})
            if num_stages != num_stored:
                raise ValueError(
                    f"model.prior.weights must have an entry a stage, of {num_stored}, got "
                    f"{num_stages}"
                )
            self.trigger.grow(num_stages)
