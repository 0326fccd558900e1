r"""Denoising diffusion GANs: few, large, multi-modal steps of denoising (Xiao, Kreis, Vahdat 2022, arXiv:2112.07804).

The generator guesses ``x_0 = G(x_k, t, z)`` and the guess is noised to ``x_{k-1} ~ q(x_{k-1} | x_k, x_0)``, which is Gaussian and known.
The critic sees ``(x_{k-1}, t, x_k)`` and so compares the law of the *pair* with that of the data under noise: a generator that has
learnt every step has learnt the data. Its latent z is what makes a step multi-modal. With T = 1 and a critic that does not
look at x_k, noise alone, all this is a generative adversarial network (Goodfellow et al. 2014, arXiv:1406.2661).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latent_ebm.learning.adversarial import AdversarialRule
from latent_ebm.learning.base import OptimizerCallable
from samplers.base import normal_like
from samplers.schedules import Schedule, broadcast


class DiffusionGAN(AdversarialRule):
    """Trains ``generator(x_k, t, z) -> x_0`` against ``critic(x_{k-1}, t, x_k) -> logit`` (batch,); see ``AdversarialRule``.

    ``t = k / T`` (batch,), and z (batch, \\*latent_shape) ~ N(0, I) is drawn anew for every step. Source: arXiv:2112.07804.
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
    ) -> None:
        super().__init__(generator, critic, schedule, shape, optimizer, num_steps, penalty, penalty_every, critic_lr)
        self.latent_shape = tuple(latent_shape)

    def losses(self, batch: Any) -> dict[str, Tensor]:
        x, _ = self.unpack(batch)
        k = self.draw_steps(x)
        real, x_k = self.diffuse_pair(x, k)
        return self.play(real, self.step(x_k, k), self.time(k, x), x_k)

    def diffuse_pair(self, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """``(x_{k-1}, x_k) ~ q(. | x_0 = x)``, each like x."""
        ratio, variance = self.transition(k)
        before = self.diffuse(x, k - 1)
        return before, broadcast(ratio, x) * before + broadcast(variance.sqrt(), x) * normal_like(x, None)

    def transition(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """Ratio r and variance v (batch,) of ``q(x_k | x_{k-1}) = N(r x_{k-1}, v I)``."""
        (alpha, sigma), (alpha_before, sigma_before) = self.coefficients(k), self.coefficients(k - 1)
        ratio = alpha / alpha_before
        return ratio, sigma**2 - (ratio * sigma_before) ** 2

    def posterior(self, x_k: Tensor, x_0: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of ``q(x_{k-1} | x_k, x_0)``: Bayes' rule for two Gaussians, exactly x_0 at k = 1."""
        ratio, variance = self.transition(k)
        (_, sigma), (alpha_before, sigma_before) = self.coefficients(k), self.coefficients(k - 1)
        of_x_k, of_x_0 = ratio * (sigma_before / sigma) ** 2, alpha_before * (variance / sigma**2)
        mean = broadcast(of_x_k, x_k) * x_k + broadcast(of_x_0, x_k) * x_0
        return mean, broadcast(variance.sqrt() * sigma_before / sigma, x_k)

    def denoise(self, x_k: Tensor, k: Tensor) -> Tensor:
        z = torch.empty(len(x_k), *self.latent_shape, dtype=x_k.dtype, device=x_k.device).normal_()
        return self.generator(x_k, self.time(k, x_k), z)

    def step(self, x_k: Tensor, k: Tensor) -> Tensor:
        """``x_{k-1}`` of the model, given ``x_k`` (batch, \\*shape)."""
        mean, deviation = self.posterior(x_k, self.denoise(x_k, k), k)
        return mean + deviation * normal_like(x_k, None)

    def walk(self, x_T: Tensor) -> Tensor:
        x = x_T
        for k in range(self.num_steps, 0, -1):
            x = self.step(x, torch.full((len(x),), k, device=x.device))
        return x
