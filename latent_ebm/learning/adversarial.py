r"""What diffusion GANs share: a generator and a critic that meet at every one of T large steps of
a noise schedule.

If a step is large, ``p(x_0 | x_t)`` has many modes. A denoiser is the mean of this distribution
and cannot draw from it. A generator can learn to, from a critic that distinguishes its draws from
the data. ``x_k`` is the data under the noise of time k / T. Both ends are exact: ``x_0`` is the
data and ``x_T`` is pure noise, so generation starts from the distribution that the generator was
trained on.
"""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from latent_ebm.autoencoders import LatentSpace
from latent_ebm.conditions import BatchLike, Condition, Conditioner, conditioner_or_none
from latent_ebm.learning.base import LearningRule, OptimizerCallable, SchedulerCallable, total_loss
from latent_ebm.objectives import gradient_penalty, noise_contrastive, non_saturating
from samplers.base import normal_like
from samplers.checks import as_shape, check_counts, check_numbers
from samplers.schedules import Schedule, broadcast


class Meeting(NamedTuple):
    """Where generator and critic meet: what the critic receives of the data, ``real``, and of the
    model, ``fake``. First are rows (batch, \\*shape) under noise, then what it is told of them.
    Further ``losses`` of the generator have names.
    """

    real: tuple[Tensor, ...]
    fake: tuple[Tensor, ...]
    losses: dict[str, Tensor]


class AdversarialRule(LearningRule):
    """Trains ``generator`` and ``critic`` at the ``num_steps`` T steps of a ``schedule``; a rule
    says how they ``meet``.

    At every batch first the critic and then the generator takes a step, each with its own
    optimiser. A batch therefore counts as two of ``trainer.global_step``, and several processes
    need Lightning's strategy "ddp_find_unused_parameters_true". Average weights with Lightning's
    ``EMAWeightAveraging``; its ``update_every_n_steps`` counts these steps and must be odd.

    Args:
        generator: The network that guesses x_0.
        critic: The network that distinguishes noised guesses from noised data.
        schedule: The noise.
        shape: The shape of an event.
        optimizer: Makes the optimiser from the trainable parameters.
        num_steps: The number T of steps of noise.
        penalty: The weight g of ``g / 2 E|grad f|^2`` at real x in the critic's loss (R1,
            arXiv:1801.04406).
        penalty_every: The penalty is computed once in this many batches, and multiplied by their
            number (arXiv:1912.04958).
        critic_lr: The learning rate of the critic, if it differs from the optimiser's.
        conditioner: Turns what a batch carries (labels, token ids) into keywords of generator and
            critic; its parameters are trained with the generator; null: no condition.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.
        latents: What encodes the rows of a batch and decodes samples, held fixed; null: the rule
            works on data.

    Raises:
        ValueError: For numbers out of range, or in training for an even ``update_every_n_steps``.
    """

    PARTS = ("critic", "generator")

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
        conditioner: Conditioner | None = None,
        scheduler: SchedulerCallable | None = None,
        latents: LatentSpace | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler, latents)
        self.automatic_optimization = False
        check_counts(self, num_steps=num_steps, penalty_every=penalty_every)
        check_numbers(self, "non-negative", penalty=penalty, critic_lr=critic_lr or 0)
        self.generator, self.critic, self.schedule = generator, critic, schedule
        self.shape = as_shape(self, shape=shape)
        self.num_steps, self.critic_lr = num_steps, critic_lr
        self.penalty, self.penalty_every = penalty, penalty_every
        self.conditioner = conditioner_or_none(conditioner)

    @abstractmethod
    def meet(self, x: Tensor, condition: Condition) -> Meeting:
        """Draws of the model next to draws of the data x (batch, \\*shape) under noise. Both have
        the ``condition`` of their row.
        """

    @abstractmethod
    def denoise(
        self,
        x_k: Tensor,
        k: Tensor,
        condition: Condition,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The generator's guess of x_0, from ``x_k`` (batch, \\*shape) after ``k`` (batch,) of T
        steps of noise.
        """

    def draw_steps(self, x: Tensor) -> Tensor:
        """Uniform k in 1..T (batch,), one for every row of ``x``."""
        return torch.randint(1, self.num_steps + 1, (len(x),), device=x.device)

    def time(self, k: Tensor, x: Tensor) -> Tensor:
        """Times ``k / T`` (batch,) in the dtype of ``x``."""
        return (k / self.num_steps).to(x.dtype)

    def coefficients(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """``(alpha, sigma)`` (batch,) after k steps, float64: (1, 0) for k = 0, and alpha = 0 for
        k = T.
        """
        alpha, sigma = self.schedule(k.double() / self.num_steps)
        return alpha.masked_fill(k == 0, 1).masked_fill(k == self.num_steps, 0), sigma.masked_fill(
            k == 0, 0
        )

    def diffuse(self, x: Tensor, k: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_k ~ q(x_k | x_0 = x)``, like x."""
        alpha, sigma = (broadcast(a, x) for a in self.coefficients(k))
        return alpha * x + sigma * normal_like(x, generator)

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        x, condition, _ = self.unpack(batch)
        return {**self.critic_losses(x, condition), **self.generator_losses(x, condition)}

    def critic_losses(self, x: Tensor, condition: Condition) -> dict[str, Tensor]:
        """Losses of the critic with the generator held fixed, at rows x (batch, \\*shape) and
        their ``condition`` as the batch carries it.
        """
        with torch.no_grad():
            told = self.conditioner(condition)
            (real, *context), fake, _ = self.meet(x, told)
        judge = partial(self.critic, **told)
        losses = {"critic": noise_contrastive(judge(real, *context), judge(*fake))}
        if self.penalty and self.training and self.batches_seen % self.penalty_every == 0:
            slope = gradient_penalty(lambda x: judge(x, *context), real)
            losses["penalty"] = 0.5 * self.penalty * self.penalty_every * slope
        return losses

    def generator_losses(self, x: Tensor, condition: Condition) -> dict[str, Tensor]:
        """Losses of the generator with the critic held fixed, as ``critic_losses``."""
        told = self.conditioner(condition)
        _, fake, more = self.meet(x, told)
        fixed = {name: parameter.detach() for name, parameter in self.critic.named_parameters()}
        held = {name: value.detach() for name, value in told.items()}
        logit = torch.func.functional_call(self.critic, fixed, fake, held)
        return {"generator": non_saturating(logit), **more}

    @property
    def batches_seen(self) -> int:
        """Number of training batches so far; each takes two optimiser steps."""
        return self.global_step // 2

    def on_fit_start(self) -> None:
        """Raises ``ValueError`` for an average of weights that no batch would update: Lightning
        looks after the second step of a batch, whose number from 0 is odd.
        """
        super().on_fit_start()
        for part in self.trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(part, EMAWeightAveraging) and part.update_every_n_steps % 2 == 0:
                raise ValueError(
                    "update_every_n_steps of EMAWeightAveraging must be odd, because every batch "
                    f"takes two steps, got {part.update_every_n_steps}"
                )

    def training_step(self, batch: BatchLike, batch_idx: int) -> None:
        x, condition, _ = self.unpack(batch)
        due = self.logs_now
        critic, generator = self.optimizers()  # pyright: ignore[reportGeneralTypeIssues]
        seen = self.move(critic, self.critic_losses(x, condition))
        seen |= self.move(generator, self.generator_losses(x, condition))
        if due:
            self.log_losses(seen)

    def move(self, optimizer: LightningOptimizer, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take a step that lowers the sum of ``losses``, and return them without their graph."""
        optimizer.zero_grad()
        self.manual_backward(total_loss(losses))
        optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def on_train_epoch_end(self) -> None:
        """Step the schedulers. Lightning does not do so for rules that step their optimisers
        themselves.
        """
        for scheduler in self.trainer.lr_scheduler_configs:
            scheduler.scheduler.step()  # pyright: ignore[reportCallIssue]

    def start(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``num`` draws of ``x_T`` (num, \\*shape)."""
        like = next(self.generator.parameters())
        k = torch.full((num,), self.num_steps, device=like.device)
        return self.diffuse(like.new_zeros(num, *self.shape), k, generator=generator)

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        critic, generator, conditioner = (
            [p for p in part.parameters() if p.requires_grad]
            for part in (self.critic, self.generator, self.conditioner)
        )
        group = (
            {"params": critic}
            if self.critic_lr is None
            else {"params": critic, "lr": self.critic_lr}
        )
        return [self.optimizer([group]), self.optimizer(generator + conditioner)]
