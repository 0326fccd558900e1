r"""What learning rules of latent models share: they draw latents and take steps on pure losses.

This is EM by sampling. The E-step infers ``z`` from ``x`` with a posterior sampler, and the M-step
is a gradient step on the losses at these samples. Samples are constants, and prior and likelihood
share no parameters, so one optimiser minimises the sum of the losses.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from latent_ebm.blocks import in_blocks
from latent_ebm.conditions import (
    Batch,
    BatchLike,
    Condition,
    Conditioner,
    conditioner_or_none,
)
from latent_ebm.learning.base import LearningRule, OptimizerCallable, SchedulerCallable
from latent_ebm.metrics import reconstruction_mse
from latent_ebm.model import EnergyTerms, LatentModel
from latent_ebm.posteriors import MCMCPosterior, Posterior
from latent_ebm.priors import Prior, RatioPrior
from samplers import LogDensity, Sampler
from samplers.checks import check_kind, check_numbers


def acceptance(
    name: str, sampler: Sampler, log_density: LogDensity, z: Tensor
) -> dict[str, Tensor]:
    """Mean acceptance probability of one more step from z (batch, dim); empty if the sampler has
    no Metropolis test.

    The step uses its own random stream, so that logging does not change the training.
    """
    if not sampler.is_adjusted:
        return {}
    generator = torch.Generator(z.device).manual_seed(0)
    state = sampler.init(log_density, z, generator=generator)
    _, info = sampler.step(log_density, state, generator=generator)
    return {f"acceptance/{name}": info.accept_prob.mean()}


def energies(prior: Prior, z_data: Tensor, z_model: Tensor) -> dict[str, Tensor]:
    """Mean energies of posterior and prior draws (batch, dim)."""
    with torch.no_grad():
        return {
            f"energy/{name}": -prior.tilt(z).mean()
            for name, z in {"data": z_data, "model": z_model}.items()
        }


@runtime_checkable
class Sampled(Protocol):
    """A prior whose draws come from a ``sampler``, by chains that may start anywhere."""

    @property
    def sampler(self) -> Sampler:
        """The sampler that moves the chains."""
        ...


def is_trainable(module: nn.Module) -> bool:
    """Whether ``module`` has a parameter to train."""
    return any(p.requires_grad for p in module.parameters())


def check_no_stages(rule: object, model: LatentModel) -> None:
    """Raise ``ValueError`` for a prior that learns in stages, under a ``rule`` without stages."""
    if isinstance(model.prior, RatioPrior):
        raise ValueError(
            f"{type(rule).__name__}: model.prior must learn without stages, got a RatioPrior, "
            "which MultiStageRatio trains"
        )


class LatentRule(LearningRule):
    """A ``model`` that learns from posterior draws. A rule defines ``losses``; the rest follows.

    Args:
        model: The latent model.
        inference: Draws latents of held-out data, also in ``predict_step``.
        optimizer: Makes the optimiser from groups of parameters.
        prior_lr: The learning rate of the prior, if it differs from the optimiser's.
        conditioner: Turns what a batch carries (labels, token ids) into the condition of prior or
            likelihood.
        dropout: The share of training rows whose condition is left out, so that the model also
            learns to do without one.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.

    Raises:
        ValueError: For a conditional model without a ``conditioner``, or the reverse.
    """

    def __init__(
        self,
        model: LatentModel,
        inference: Posterior,
        optimizer: OptimizerCallable,
        *,
        prior_lr: float | None = None,
        conditioner: Conditioner | None = None,
        dropout: float = 0.1,
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        check_kind(self, LatentModel, model=model)
        check_numbers(self, "non-negative", prior_lr=0 if prior_lr is None else prior_lr)
        check_numbers(self, "in [0, 1]", dropout=dropout)
        if model.is_conditional != (conditioner is not None):
            what = "given for a " if model.is_conditional else "left out for an un"
            raise ValueError(f"conditioner must be {what}conditional model, got {conditioner}")
        self.model, self.inference, self.prior_lr = model, inference, prior_lr
        self.conditioner, self.dropout = conditioner_or_none(conditioner), dropout

    @property
    def learner(self) -> nn.Module:
        """The module that learns the prior. Its parameters have the learning rate ``prior_lr``."""
        return self.model.prior

    def watch_posterior(
        self, posterior: Posterior, model: LatentModel, x: Tensor, z: Tensor
    ) -> dict[str, Tensor]:
        """The acceptance of posterior chains of ``model`` at x (batch, \\*event) and z (batch,
        dim).
        """
        if not isinstance(posterior, MCMCPosterior):
            return {}
        return acceptance("posterior", posterior.sampler, model.log_posterior(x), z)

    @torch.no_grad()
    def generate(
        self,
        num: int,
        condition: Condition | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Prior draws ``z`` (num, dim), ``x = E[x|z]``, and the ``condition`` if there is one."""
        told = self.conditioner.request(num, condition)
        z = self.model.given(told).prior.sample(num, generator=generator)
        x = in_blocks(lambda z, told: self.model.given(told).decode(z), z, told)
        return {**(condition or {}), "x": x, "z": z}

    def told(self, batch: Batch) -> LatentModel:
        """The model given the condition of the rows of ``batch``. In training mode, a share
        ``dropout`` of the rows loses it.
        """
        told = self.conditioner(batch.condition)
        return self.model.given(told.drop(self.dropout if self.training else 0))

    def held_out_latents(self, model: LatentModel, batch: Batch, dataloader_idx: int) -> Tensor:
        """Latents (rows, dim) of the rows of a validation set."""
        return self.inference.sample(model, batch.x)

    def validation_step(self, batch: BatchLike, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Log held-out metrics, and return their latents for callbacks."""
        rows = self.unpack(batch)
        model = self.told(rows)
        z = self.held_out_latents(model, rows, dataloader_idx)
        self.log_held_out("val", metrics_at(model, rows.x, z), batch, dataloader_idx)
        return z

    def held_out(self, batch: BatchLike) -> dict[str, Tensor]:
        rows = self.unpack(batch)
        model = self.told(rows)
        return metrics_at(model, rows.x, self.inference.sample(model, rows.x))

    def predict_step(self, batch: BatchLike, batch_idx: int = 0) -> EnergyTerms:
        """Energy terms (batch,) at inferred latents. Rows without a condition count as unknown."""
        rows = self.unpack(batch)
        unknown = self.conditioner.unknown(len(rows.x))
        model = self.told(rows) if rows.condition else self.model.given(unknown)
        return model.energy_terms(rows.x, self.inference.sample(model, rows.x))

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        prior = [p for p in self.learner.parameters() if p.requires_grad]
        taken = {id(p) for p in prior}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in taken]
        group = (
            {"params": prior} if self.prior_lr is None else {"params": prior, "lr": self.prior_lr}
        )
        return [self.optimizer([g for g in (group, {"params": rest}) if g["params"]])]


def metrics_at(model: LatentModel, x: Tensor, z: Tensor) -> dict[str, Tensor]:
    """Reconstruction error and mean energy of x (batch, \\*event) at latents z (batch, dim)."""
    joint = model.energy_terms(x, z).joint.mean()
    error = joint.new_tensor(reconstruction_mse(x, model.decode(z)))
    return {"reconstruction_mse": error, "joint": joint}
