r"""EM Distillation: maximum likelihood of a one-step student under a diffusion teacher, without
data.

At every noise level the student ``x_t = alpha g(z) + sigma eps`` is a latent variable model whose
decoder noise is the noise of the diffusion. Maximum likelihood under the teacher's ``q(x_t)`` is
EM: draw latents of the teacher's samples, ``(x_t, z) ~ q(x_t) p(z | x_t)`` (E), then fit g(z) to
``x_t / alpha`` (M). There are no teacher samples, so a short Langevin chain moves the student's
own pairs towards that distribution. In the coordinates (eps, z) the density of the pairs is
``[q / p](x_t) N(eps; 0, I) N(z; 0, I)``. With the gap ``d = D_q - D_p`` of the denoisers at x_t,
its score is

    grad_eps = (alpha / sigma) d - eps            grad_z = (alpha / sigma)^2 J_g(z)^T d - z .

*Noise cancellation.* The residual ``sigma eps / alpha`` is dominated by noise. Follow what the
noise alone would do, ``N <- (1 - h) N + sqrt(2 h) n`` from ``N = eps`` with the step h, and use
``eps - N`` in place of eps. The noise then drops out of the recursion. In units of x, ``r <- (1 -
h) r + h d`` from zero remains, an average of the gaps along the chain. With one step and z held
fixed that is ``h d``, distribution matching. When z moves, N correlates with it. Leaving N out
then biases the gradient by ``E[J_g(z)^T N] sigma / alpha``, which vanishes with the step of z.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from latent_ebm.autoencoders import LatentSpace
from latent_ebm.conditions import Condition, Conditioner
from latent_ebm.denoisers import Denoiser
from latent_ebm.distillation.base import Noise, ScoreDistiller
from latent_ebm.learning.base import OptimizerCallable, SchedulerCallable
from latent_ebm.objectives import regression
from samplers import Langevin, Score
from samplers.checks import check_kind, check_numbers
from samplers.derivatives import check_recording
from samplers.schedules import broadcast


class JointPosterior(Score):
    """The score of ``log q(x_t) - log p(x_t) + log N(eps) + log N(z)``; the value is unknown.

    Positions (batch, dim x + dim z) hold eps and u, where ``z = start + stretch u`` with
    ``stretch^2 = min(1, sigma^2 / alpha^2) z_step_size / step_size``. A sampler with steps of
    ``step_size`` then takes steps of ``z_step_size`` in z, and smaller ones where little noise
    makes z stiff. With a ``z_step_size`` of zero, z does not move, and the student is called once
    for the whole chain.

    A target serves one chain and records what the student learns from: every gradient enters
    ``shift``, the average gap of noise cancellation, and its norm is added to ``gaps``. The state
    of the chain cannot hold them: the end of the chain has no next step and would cost one more
    gradient.

    Args:
        student: Maps z to x.
        gap: Maps (x, noise) to ``D_q - D_p``.
        z: The latents (batch, \\*latent_shape) at the start.
        noise: The noise at the start.
        step_size: The step of eps.
        z_step_size: The step of z.
    """

    def __init__(
        self,
        student: Callable[[Tensor], Tensor],
        gap: Callable[[Tensor, Noise], Tensor],
        z: Tensor,
        noise: Noise,
        step_size: float,
        z_step_size: float,
    ) -> None:
        self.student, self.gap, self.noise, self.start, self.step_size = (
            student,
            gap,
            noise,
            z,
            step_size,
        )
        ratio = noise.alpha / noise.sigma
        self.ratio = broadcast(ratio, noise.eps)
        self.stretch = broadcast((1 / ratio).clamp(max=1) * math.sqrt(z_step_size / step_size), z)
        self.shift, self.gaps = torch.zeros_like(noise.eps), []
        with torch.no_grad():
            self.fixed = None if z_step_size else student(z)

    def join(self, eps: Tensor, z: Tensor) -> Tensor:
        """The position that holds ``eps``, shaped like x, and the displacement u, here ``z``."""
        return torch.cat([eps.flatten(1), z.flatten(1)], 1)

    def split(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """``(eps, z)`` at a position."""
        eps, u = position.split([self.shift[0].numel(), self.start[0].numel()], 1)
        return eps.view_as(self.shift), self.start + self.stretch * u.view_as(self.start)

    def gradient(self, position: Tensor) -> Tensor:
        """The gradient at ``position``, of the same shape. It is recorded in ``shift`` and
        ``gaps``.
        """
        check_recording()
        eps, z = self.split(position)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            x = self.student(z) if self.fixed is None else self.fixed
        gap = self.gap(x.detach().to(eps), self.noise._replace(eps=eps))
        self.shift = self.shift.lerp(gap, self.step_size)
        self.gaps.append(gap.flatten(1).norm(dim=1).mean())
        pull = torch.zeros_like(z)  # nothing moves a z that is fixed
        if self.fixed is None:
            (slope,) = torch.autograd.grad(x, z, (self.ratio**2 * gap).to(x.dtype))
            pull = self.stretch * (slope - z)
        return self.join(self.ratio * gap - eps, pull)


class EMDistillation(ScoreDistiller):
    """Minimises the forward KL divergence from the teacher's data to the student by EM.

    The divergence is integrated over noise levels; see ``ScoreDistiller``. With a ``weight_power``
    of 1, as in the paper, squared errors in x have the same weight at all noise levels. Source:
    Xie et al. 2024, arXiv:2405.16852.

    Args:
        teacher: The frozen denoiser of the data.
        student: Maps z ~ N(0, I) to x: ``OneStep`` of the teacher, or any other network that takes
            conditions as keywords.
        fake: A denoiser of the teacher's schedule that learns the student's samples; null: a copy
            of the teacher.
        latent_shape: The shape of z.
        optimizer: Makes the optimiser from groups of parameters.
        sampler: Runs the E-step. Its ``step_size`` is the step of eps, where curvatures are of
            order one at every noise level. Its ``num_steps`` K takes the student from mode seeking
            (K = 1) to maximum likelihood (large K). This is the number in names such as EMD-4: a
            student of EMD-4 draws in one step.
        z_step_size: The step of z. It must be small if g is steep: on toy data .03 was stable and
            .16 was not. With 0, z stays where it is, and a chain calls the student once.
        cancel_noise: Lowers the variance of the gradient, at the cost of a bias that grows with
            ``z_step_size``. Without it the E-step of a long chain is exact up to the bias of
            Langevin dynamics.
        log_snr: Noise levels are uniform in log-SNR between these.
        weight_power: The divergence at a noise level has the weight ``(sigma / alpha)^(2
            weight_power)``.
        fake_lr: The learning rate of ``fake``, if it differs from the optimiser's.
        student_every: ``fake`` is trained at every step, the student once in this many steps.
        conditioner: Turns what a batch carries (labels, token ids) into the condition of teacher,
            student and fake, and is held fixed; null: no condition.
        guidance: The weight of classifier-free guidance of the teacher, away from the null
            condition; 1 means no guidance.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.
        latents: An autoencoder, held fixed, in whose latents teacher and student work: rows x of a
            batch are encoded, and samples decoded; null: they work on data.

    Raises:
        ValueError: For numbers out of range.
        FloatingPointError: If a chain diverges.
    """

    def __init__(
        self,
        teacher: Denoiser,
        student: nn.Module,
        fake: Denoiser | None,
        latent_shape: int | Sequence[int],
        optimizer: OptimizerCallable,
        sampler: Langevin = Langevin(step_size=0.16, num_steps=16),  # noqa: B008  (frozen)
        z_step_size: float = 1.6e-5,
        cancel_noise: bool = True,
        log_snr: tuple[float, float] = (-6.0, 6.0),
        weight_power: float = 1.0,
        fake_lr: float | None = None,
        student_every: int = 1,
        conditioner: Conditioner | None = None,
        guidance: float = 1.0,
        scheduler: SchedulerCallable | None = None,
        latents: LatentSpace | None = None,
    ) -> None:
        super().__init__(
            teacher,
            student,
            fake,
            latent_shape,
            optimizer,
            log_snr=log_snr,
            weight_power=weight_power,
            fake_lr=fake_lr,
            student_every=student_every,
            conditioner=conditioner,
            guidance=guidance,
            scheduler=scheduler,
            latents=latents,
        )
        check_numbers(self, "non-negative", z_step_size=z_step_size)
        check_kind(self, Langevin, sampler=sampler)
        self.sampler, self.z_step_size, self.cancel_noise = sampler, z_step_size, cancel_noise

    def student_loss(self, z: Tensor, x: Tensor, condition: Condition) -> Tensor:
        noise = self.draw_noise(x)
        z, shift = self.infer(z, noise, condition)
        x = self.student(z, **condition)
        return regression(x, x.detach() + shift, self.weight(noise))

    def infer(self, z: Tensor, noise: Noise, condition: Condition) -> tuple[Tensor, Tensor]:
        """The E-step from latents z (batch, \\*latent_shape): the new z, and ``x_t / alpha -
        g(z)``, like x.
        """
        student, gap = partial(self.student, **condition), partial(self.gap, condition=condition)
        joint = JointPosterior(student, gap, z, noise, self.sampler.step_size, self.z_step_size)
        start = joint.join(noise.eps, torch.zeros_like(z))
        end = self.sampler.sample(joint, start)
        eps, z = joint.split(end)
        moved = (eps - noise.eps).flatten(1).norm(dim=1).mean()
        self.figures = {"moved": moved, "gap_first": joint.gaps[0], "gap_last": joint.gaps[-1]}
        return z, joint.shift if self.cancel_noise else eps / joint.ratio
