r"""Denoising diffusion GANs: few, large, multi-modal steps of denoising (Xiao, Kreis, Vahdat 2022,
arXiv:2112.07804).

The generator guesses ``x_0 = G(x_k, t, z)``, and the guess is noised to ``x_{k-1} ~ q(x_{k-1} |
x_k, x_0)``, which is known. The critic sees ``(x_{k-1}, t, x_k)``. It compares the distribution of
the *pair* with that of noised data, which are drawn in the same way from the true x_0. A generator
that has learnt every step has learnt the data. Its latent z makes a step multi-modal. With T = 1
x_k is pure noise; if the critic also ignores it, this is a generative adversarial network
(Goodfellow et al. 2014, arXiv:1406.2661).
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from latent_ebm.blocks import in_blocks
from latent_ebm.conditions import Condition, Conditioner
from latent_ebm.learning.adversarial import AdversarialRule, Meeting
from latent_ebm.learning.base import OptimizerCallable, SchedulerCallable
from samplers.checks import as_shape
from samplers.reverse import bridge
from samplers.schedules import Schedule, broadcast


class DiffusionGAN(AdversarialRule):
    """Trains a generator of few denoising steps against a critic; see ``AdversarialRule``.

    They are ``generator(x_k, t, z) -> x_0`` and ``critic(x_{k-1}, t, x_k) -> logit`` (batch,).
    ``t = k / T`` (batch,), and z (batch, \\*latent_shape) ~ N(0, I) is drawn anew for every step.
    Source: arXiv:2112.07804.

    Args:
        generator: The network that guesses x_0.
        critic: The network that distinguishes steps to guesses from steps to data.
        schedule: The noise.
        shape: The shape of an event.
        latent_shape: The shape of z.
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
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        schedule: Schedule,
        shape: Sequence[int],
        latent_shape: Sequence[int],
        optimizer: OptimizerCallable,
        num_steps: int = 4,
        penalty: float = 0.05,
        penalty_every: int = 1,
        critic_lr: float | None = None,
        conditioner: Conditioner | None = None,
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            generator,
            critic,
            schedule,
            shape,
            optimizer,
            num_steps=num_steps,
            penalty=penalty,
            penalty_every=penalty_every,
            critic_lr=critic_lr,
            conditioner=conditioner,
            scheduler=scheduler,
        )
        self.latent_shape = as_shape(self, latent_shape=latent_shape)

    def meet(self, x: Tensor, condition: Condition) -> Meeting:
        k = self.draw_steps(x)
        x_k = self.diffuse(x, k)
        real, fake = self.back(x, x_k, k), self.back(self.denoise(x_k, k, condition), x_k, k)
        context = (self.time(k, x), x_k)
        return Meeting((real, *context), (fake, *context), {})

    def back(
        self, x_0: Tensor, x_k: Tensor, k: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """``x_{k-1} ~ q(. | x_k, x_0)`` like ``x_k`` (batch, \\*shape); at k = 1 that is
        ``x_0``.
        """
        t, s = (i.double() / self.num_steps for i in (k, k - 1))
        x_s = bridge(self.schedule, x_0, x_k, t, s, generator=generator)
        return torch.where(broadcast(k, x_k) == 1, x_0, x_s)

    def denoise(
        self,
        x_k: Tensor,
        k: Tensor,
        condition: Condition,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        z = x_k.new_empty(len(x_k), *self.latent_shape).normal_(generator=generator)
        return self.generator(x_k, self.time(k, x_k), z, **condition)

    @torch.no_grad()
    def generate(
        self,
        num: int,
        condition: Condition | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Samples ``x`` (num, \\*shape) of T steps, and the condition."""
        told = self.conditioner.request(num, condition)
        x_T = self.start(num, generator=generator)
        x = in_blocks(partial(self.walk, generator=generator), x_T, told.to(x_T.device))
        return {**(condition or {}), "x": x}

    def walk(
        self, x_T: Tensor, condition: Condition, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Go from noise ``x_T`` (batch, \\*shape) to samples of the same shape."""
        x = x_T
        for step in range(self.num_steps, 0, -1):
            k = torch.full((len(x),), step, device=x.device)
            x = self.back(self.denoise(x, k, condition, generator=generator), x, k, generator)
        return x
