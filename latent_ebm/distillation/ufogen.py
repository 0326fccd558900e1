r"""UFOGen: a diffusion model and a GAN in one, for one step or a few (Xu et al. 2023,
arXiv:2311.09257).

The generator is a denoiser, ``x_0 = G(x_k, t)``, started from the teacher's weights. Its guess is
noised afresh, ``x_{k-1} ~ q(x_{k-1} | x_0)``, without regard to x_k, and the critic sees only
x_{k-1} and its time. Noised distributions agree only if the clean ones do, so in principle one
step from k = T is a complete generator. In practice a critic cannot see what the noise at k = T -
1 hides. Where x_k still says something about x_0, a regression of G on the data keeps G near the
teacher.

*Independent noise levels.* If guesses are noised to a level that is drawn apart from k, the critic
also sees those of k = T with little noise or none. Samples of one step are then sharper. But the
critic compares the data with guesses of all k together, so those of one k may lack modes. This is
how MobileDiffusion makes its model of one step (Zhao et al. 2023, arXiv:2311.16567).
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from latent_ebm.artefacts import Artefact
from latent_ebm.autoencoders import LatentSpace
from latent_ebm.conditions import Condition, Conditioner
from latent_ebm.denoisers import Denoiser, generate
from latent_ebm.learning.adversarial import AdversarialRule, Meeting
from latent_ebm.learning.base import OptimizerCallable, SchedulerCallable
from latent_ebm.objectives import regression
from samplers.checks import as_shape, check_counts, check_kind, check_numbers
from samplers.renoising import Renoising
from samplers.schedules import broadcast


class UFOGen(AdversarialRule):
    """Trains a copy of ``teacher`` against a critic of noised rows; see ``AdversarialRule``.

    The critic is ``critic(x_{k-1}, t) -> logit`` (batch,). The rows x may be samples of the
    teacher or the data that it was trained on. Source: arXiv:2311.09257.

    Args:
        teacher: The denoiser that the student starts from.
        critic: The network that distinguishes noised guesses from noised data; null: a
            ``DenoiserCritic`` of the teacher.
        shape: The shape of an event.
        optimizer: Makes the optimiser from the trainable parameters.
        reconstruction: The weight of ``E[KL(q(x_k | x_{k-1}) || q(x_k | x'_{k-1}))] / dim``, where
            x_{k-1} and x'_{k-1} are x_0 and the guess with the same noise added. This is
            ``alpha_k^2 / 2 v_k`` times the squared error of the guess.
        num_steps: The number T of steps of noise.
        independent: Whether the data and the guesses are noised to levels of their own, each
            uniform in 0, ..., T - 1, rather than to k - 1: sharper in one step, but with the risk
            of fewer modes.
        penalty: The weight g of ``g / 2 E|grad f|^2`` at real x in the critic's loss (R1,
            arXiv:1801.04406).
        penalty_every: The penalty is computed once in this many batches, and multiplied by their
            number (arXiv:1912.04958).
        critic_lr: The learning rate of the critic, if it differs from the optimiser's.
        conditioner: Turns what a batch carries (labels, token ids) into keywords of generator and
            critic, and is held fixed; null: no condition.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.
        latents: An autoencoder, held fixed, in whose latents teacher and student work: rows x of a
            batch are encoded, and samples decoded; null: they work on data.

    Raises:
        ValueError: For a teacher without parameters, or numbers out of range.
    """

    def __init__(
        self,
        teacher: Denoiser,
        critic: nn.Module | None,
        shape: Sequence[int],
        optimizer: OptimizerCallable,
        num_steps: int = 4,
        independent: bool = False,
        reconstruction: float = 1.0,
        penalty: float = 0.05,
        penalty_every: int = 1,
        critic_lr: float | None = None,
        conditioner: Conditioner | None = None,
        scheduler: SchedulerCallable | None = None,
        latents: LatentSpace | None = None,
    ) -> None:
        check_kind("UFOGen", Denoiser, teacher=teacher)
        if not any(True for _ in teacher.parameters()):
            raise ValueError(
                "teacher must have parameters to start the student from, got "
                f"{type(teacher).__name__}"
            )
        check_numbers("UFOGen", "non-negative", reconstruction=reconstruction)
        check_kind("UFOGen", bool, independent=independent)
        shape = as_shape("UFOGen", shape=shape)
        student = deepcopy(teacher).requires_grad_()
        critic = DenoiserCritic(teacher, shape) if critic is None else critic
        check_kind("UFOGen", nn.Module, critic=critic)
        super().__init__(
            student,
            critic,
            teacher.schedule,
            shape,
            optimizer,
            num_steps=num_steps,
            penalty=penalty,
            penalty_every=penalty_every,
            critic_lr=critic_lr,
            conditioner=conditioner,
            scheduler=scheduler,
            latents=latents,
        )
        self.generator = student
        self.conditioner.requires_grad_(False)
        self.reconstruction, self.independent = reconstruction, independent

    def on_train_start(self) -> None:
        """Switch the conditioner to evaluation mode, so that it uses no dropout."""
        super().on_train_start()
        self.conditioner.eval()

    def meet(self, x: Tensor, condition: Condition) -> Meeting:
        k = self.draw_steps(x)
        guess = self.denoise(self.diffuse(x, k), k, condition)
        near = regression(guess, x, self.weight(k)) / x[0].numel()
        levels = [self.draw_steps(x) - 1 if self.independent else k - 1 for _ in range(2)]
        real, fake = (
            (self.diffuse(rows, level), self.time(level, x))
            for rows, level in zip((x, guess), levels, strict=True)
        )
        return Meeting(real, fake, {"reconstruction": self.reconstruction * near})

    def weight(self, k: Tensor) -> Tensor:
        """``alpha_k^2 / v_k`` (batch,), with the variance v_k of ``q(x_k | x_{k-1})``: 0 where x_k
        is noise alone.
        """
        (alpha, sigma), (alpha_before, sigma_before) = (
            self.coefficients(k),
            self.coefficients(k - 1),
        )
        return alpha**2 / (sigma**2 - (alpha / alpha_before * sigma_before) ** 2)

    def denoise(
        self,
        x_k: Tensor,
        k: Tensor,
        condition: Condition,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return self.generator(x_k, self.time(k, x_k), **condition)

    @torch.no_grad()
    def generate(
        self,
        num: int,
        condition: Condition | None = None,
        *,
        num_steps: int = 1,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Samples ``x`` (num, \\*shape) in ``num_steps`` steps of ``Renoising``: the first is
        ``G(x_T, 1)``; each further step adds noise to the last guess and guesses again.

        Raises:
            ValueError: For a ``num_steps`` that does not divide T, as the generator has not been
                trained at the times between.
        """
        check_counts(self, num_steps=num_steps)
        if self.num_steps % num_steps:
            raise ValueError(f"num_steps must divide {self.num_steps}, got {num_steps}")
        sampler, told = (
            Renoising(self.schedule, num_steps),
            self.conditioner.request(num, condition),
        )
        x = generate(self.generator, sampler, self.shape, num, told, generator=generator)
        return {**(condition or {}), **self.decoded(x)}


class DenoiserCritic(Artefact):
    """Logit (batch,) that is affine in the guess ``D(x, t)`` of x_0 and the guess ``(x - alpha D)
    / sigma`` of the noise; it starts at zero.

    D is a trainable copy of ``denoiser``. Both guesses enter, because at the clean end the first
    is x whatever the network says, and at the noisy end the second is. The source uses one of
    them: Xu et al. 2023, arXiv:2311.09257.

    Args:
        denoiser: The denoiser that is copied.
        shape: The shape of an event.
    """

    def __init__(self, denoiser: Denoiser, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.denoiser = deepcopy(denoiser).requires_grad_()
        self.head = nn.Linear(2 * torch.Size(shape).numel(), 1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        alpha, sigma = (broadcast(a, x) for a in self.denoiser.schedule(t))
        guess = self.denoiser(x, t, **condition)
        return self.head(torch.cat([guess, (x - alpha * guess) / sigma], 1).flatten(1)).squeeze(1)
