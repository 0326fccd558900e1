r"""What diffusion GANs share: a generator and a critic that meet at every one of T large steps of a noise schedule.

Where a step is large, ``p(x_0 | x_t)`` has many modes, and no denoiser, which is its mean, can draw from it. A generator can, if
a critic tells its draws from the data. ``x_k`` is the data under the noise of time k / T; its ends are exact, ``x_0`` is the data
and ``x_T`` is noise alone, so that generation starts from the law that the generator was trained on.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latent_ebm.learning.base import LearningRule, OptimizerCallable
from latent_ebm.objectives import gradient_penalty, noise_contrastive, non_saturating
from samplers.base import normal_like
from samplers.schedules import Schedule, broadcast

CHUNK = 500  # samples that are drawn at once


class AdversarialRule(LearningRule):
    """Trains ``generator`` and ``critic`` at ``num_steps`` T steps of ``schedule``. A rule defines ``losses`` and ``denoise``.

    Events have the given ``shape``. Both networks move at every step, each by its own losses, under one optimiser with two
    groups; ``critic_lr`` is the learning rate of the critic, if it differs. ``penalty`` g adds ``g / 2 E|grad f|^2`` at real
    x to the critic's loss (R1, Mescheder et al. 2018, arXiv:1801.04406), at every ``penalty_every``-th step and as many times
    larger (Karras et al. 2020, arXiv:1912.04958). Average weights with Lightning's ``EMAWeightAveraging``.

    Raises ``ValueError`` for numbers out of range.
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        schedule: Schedule,
        shape: Sequence[int],
        optimizer: OptimizerCallable,
        num_steps: int = 4,
        penalty: float = 0.05,
        penalty_every: int = 1,
        critic_lr: float | None = None,
    ) -> None:
        super().__init__(optimizer)
        for name, count in (("num_steps", num_steps), ("penalty_every", penalty_every)):
            if count < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {count}")
        if not penalty >= 0:
            raise ValueError(f"penalty must be non-negative, got {penalty}")
        self.generator, self.critic, self.schedule, self.shape = generator, critic, schedule, tuple(shape)
        self.num_steps, self.critic_lr = num_steps, critic_lr
        self.penalty, self.penalty_every = penalty, penalty_every

    @abstractmethod
    def denoise(self, x_k: Tensor, k: Tensor) -> Tensor:
        """A guess at x_0 like ``x_k`` (batch, \\*shape), by the generator, after ``k`` (batch,) of T steps of noise."""

    def draw_steps(self, x: Tensor) -> Tensor:
        """Uniform k in 1..T (batch,), one for every row of ``x``."""
        return torch.randint(1, self.num_steps + 1, (len(x),), device=x.device)

    def time(self, k: Tensor, x: Tensor) -> Tensor:
        """Times ``k / T`` (batch,) in the dtype of ``x``."""
        return (k / self.num_steps).to(x.dtype)

    def coefficients(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """``(alpha, sigma)`` (batch,) after k steps, float64: (1, 0) for k = 0, and alpha = 0 for k = T."""
        alpha, sigma = self.schedule(k.double() / self.num_steps)
        return alpha.masked_fill(k == 0, 1).masked_fill(k == self.num_steps, 0), sigma.masked_fill(k == 0, 0)

    def diffuse(self, x: Tensor, k: Tensor) -> Tensor:
        """``x_k ~ q(x_k | x_0 = x)``, like x."""
        alpha, sigma = (broadcast(a, x) for a in self.coefficients(k))
        return alpha * x + sigma * normal_like(x, None)

    def play(self, real: Tensor, fake: Tensor, *context: Tensor) -> dict[str, Tensor]:
        """Losses of critic and generator at ``real`` and ``fake`` (batch, \\*shape), each with the ``context`` of its row.

        The critic takes the fake for fixed and the generator the critic, so that the losses may be summed.
        """
        logit_real, logit_fake = self.critic(real, *context), self.critic(fake.detach(), *context)
        losses = {"critic": noise_contrastive(logit_real, logit_fake)}
        if self.penalty and self.training and self.global_step % self.penalty_every == 0:
            slope = gradient_penalty(lambda x: self.critic(x, *context), real)
            losses["penalty"] = 0.5 * self.penalty * self.penalty_every * slope
        fixed = {name: parameter.detach() for name, parameter in self.critic.named_parameters()}
        losses["generator"] = non_saturating(torch.func.functional_call(self.critic, fixed, (fake, *context)))
        return losses

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        with torch.no_grad():
            held_out = {f"val/{name}": loss for name, loss in self.losses(batch).items()}
        self.log_dict(held_out, batch_size=len(self.unpack(batch)[0]), sync_dist=True)

    @torch.no_grad()
    def generate(self, num: int) -> dict[str, Tensor]:
        """Samples ``x`` (num, \\*shape)."""
        k = torch.full((num,), self.num_steps, device=self.device)
        start = torch.empty(num, *self.shape, device=self.device, dtype=next(self.generator.parameters()).dtype)
        x_T = self.diffuse(torch.zeros_like(start), k)
        return {"x": torch.cat([self.walk(part) for part in x_T.split(CHUNK)])}

    @abstractmethod
    def walk(self, x_T: Tensor) -> Tensor:
        """From noise ``x_T`` (batch, \\*shape) to samples like it."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        generator, critic = ([p for p in m.parameters() if p.requires_grad] for m in (self.generator, self.critic))
        group = {"params": critic} if self.critic_lr is None else {"params": critic, "lr": self.critic_lr}
        return self.optimizer([{"params": generator}, group])
