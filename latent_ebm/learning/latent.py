r"""Learning rules of latent models: the wiring of a sampled posterior and pure losses.

EM by sampling: infer ``z`` from ``x`` with a posterior sampler (E), then take a gradient step of
the losses at the samples (M). Samples are constants, prior and likelihood share no parameters, so
the losses are summed under one optimiser.
"""

import torch
from torch import Tensor, nn

from latent_ebm.conditions import BatchLike, Condition, check_unconditional
from latent_ebm.learning.base import LearningRule, OptimizerCallable, SchedulerCallable
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
    """A ``model`` that learns from posterior draws. A rule defines ``losses``; the rest follows.

    Args:
        model: The latent model.
        inference: Draws latents of held-out data, and those of ``predict_step``.
        optimizer: Makes the optimiser from groups of parameters.
        prior_lr: The learning rate of what learns the prior, if it differs.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.
    """

    def __init__(
        self,
        model: LatentModel,
        inference: Posterior,
        optimizer: OptimizerCallable,
        *,
        prior_lr: float | None = None,
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        check_kind(self, LatentModel, model=model)
        check_numbers(self, "non-negative", prior_lr=0 if prior_lr is None else prior_lr)
        self.model, self.inference, self.prior_lr = model, inference, prior_lr

    @property
    def learner(self) -> nn.Module:
        """What learns the prior: its parameters take the rate ``prior_lr``."""
        return self.model.prior

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

    def held_out_latents(self, x: Tensor, index: Tensor | None, dataloader_idx: int) -> Tensor:
        """Latents (batch, dim) of rows x (batch, \\*event) of a validation set."""
        return self.inference.sample(self.model, x)

    def validation_step(self, batch: BatchLike, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Log held-out metrics, and return the latents that they are of, for callbacks."""
        x, _, index = self.unpack(batch)
        z = self.held_out_latents(x, index, dataloader_idx)
        self.log_held_out("val", self.metrics_at(x, z), batch, dataloader_idx)
        return z

    def held_out(self, batch: BatchLike) -> dict[str, Tensor]:
        x = self.unpack(batch).x
        return self.metrics_at(x, self.inference.sample(self.model, x))

    def metrics_at(self, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Reconstruction error and mean energy of x (batch, \\*event) at latents z (batch,
        dim).
        """
        joint = self.model.energy_terms(x, z).joint.mean()
        error = joint.new_tensor(reconstruction_mse(x, self.model.decode(z)))
        return {"reconstruction_mse": error, "joint": joint}

    def predict_step(self, batch: BatchLike, batch_idx: int = 0) -> EnergyTerms:
        """Energy terms (batch,) at inferred latents."""
        x = self.unpack(batch).x
        return self.model.energy_terms(x, self.inference.sample(self.model, x))

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        prior = [p for p in self.learner.parameters() if p.requires_grad]
        taken = {id(p) for p in prior}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in taken]
        group = (
            {"params": prior} if self.prior_lr is None else {"params": prior, "lr": self.prior_lr}
        )
        return [self.optimizer([g for g in (group, {"params": rest}) if g["params"]])]
