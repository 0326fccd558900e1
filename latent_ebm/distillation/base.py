r"""What distillers of a diffusion teacher into a one-step student share when they compare two
denoisers.

The teacher knows ``D_q = E[x_0 | x_t]`` of its data, and the network ``fake`` learns ``D_p``, the
same expectation for the student's samples. Their *gap* ``D_q - D_p = (sigma^2 / alpha) grad log (q
/ p)(x_t)`` says where a noised sample of the student should move. No data are needed: a batch only
sets the number of rows, and the condition if the teacher takes one.
"""

from abc import abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latent_ebm.autoencoders import LatentSpace
from latent_ebm.blocks import in_blocks
from latent_ebm.conditions import (
    BatchLike,
    Condition,
    Conditioner,
    as_batch,
    conditioner_or_none,
)
from latent_ebm.denoisers import Denoiser
from latent_ebm.denoisers.from_noise import check_log_snr
from latent_ebm.guidance.classifier_free import check_guidance, guided
from latent_ebm.learning.base import LearningRule, OptimizerCallable, SchedulerCallable
from latent_ebm.objectives import denoising
from samplers.base import normal_like
from samplers.checks import as_shape, check_counts, check_kind, check_numbers
from samplers.schedules import broadcast


class Noise(NamedTuple):
    """The noise in ``x_t = alpha x + sigma eps``: ``t``, ``alpha``, ``sigma`` (batch,) in float64,
    and ``eps`` like x.
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor
    eps: Tensor


class ScoreDistiller(LearningRule):
    """Trains ``student`` against a frozen ``teacher`` by a rule's ``student_loss``, and ``fake``
    on the student's samples.

    Training in several processes needs Lightning's strategy "ddp_find_unused_parameters_true",
    unless ``student_every`` is 1. Average weights with ``EMAWeightAveraging``. If the student uses
    gradient checkpointing, it must be the non-reentrant kind.

    Args:
        teacher: The frozen denoiser of the data.
        student: Maps z ~ N(0, I) to x: ``OneStep`` of the teacher, or any other network that takes
            conditions as keywords.
        fake: A denoiser of the teacher's schedule that learns the student's samples; null: a copy
            of the teacher.
        latent_shape: The shape of z.
        optimizer: Makes the optimiser from groups of parameters.
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
        ValueError: For schedules that differ, noise levels outside of them, or numbers out of
            range.
    """

    def __init__(
        self,
        teacher: Denoiser,
        student: nn.Module,
        fake: Denoiser | None,
        latent_shape: int | Sequence[int],
        optimizer: OptimizerCallable,
        log_snr: tuple[float, float] = (-6.0, 6.0),
        weight_power: float = 1.0,
        fake_lr: float | None = None,
        student_every: int = 1,
        conditioner: Conditioner | None = None,
        guidance: float = 1.0,
        scheduler: SchedulerCallable | None = None,
        latents: LatentSpace | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler, latents)
        check_kind(self, Denoiser, teacher=teacher)
        fake = deepcopy(teacher).requires_grad_() if fake is None else fake
        check_parts(teacher, student, fake, log_snr)
        self.teacher, self.student, self.fake = teacher.requires_grad_(False), student, fake
        check_numbers(self, "non-negative", weight_power=weight_power, fake_lr=fake_lr or 0)
        check_counts(self, student_every=student_every)
        self.latent_shape = as_shape(self, latent_shape=latent_shape)
        self.log_snr, self.weight_power, self.fake_lr = log_snr, weight_power, fake_lr
        self.student_every, self.guidance = student_every, check_guidance(guidance, conditioner)
        self.conditioner = conditioner_or_none(conditioner).requires_grad_(False)
        self.figures: dict[str, Tensor] = {}
        if student_every > 1 and not self.fake_parameters():
            raise ValueError(
                f"student_every must be 1 if fake has no parameters, got {student_every}"
            )

    @abstractmethod
    def student_loss(self, z: Tensor, x: Tensor, condition: Condition) -> Tensor:
        """Loss of the student at latents z (batch, \\*latent_shape), from which it now makes x
        (batch, \\*event).
        """

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        x, given, _ = as_batch(batch)
        condition, z = self.conditioner(given), self.draw_latents(len(x))
        with torch.no_grad():
            # autocast may lower the precision, but chains need that of z
            x = self.student(z, **condition).to(z.dtype)
        losses = {"fake": self.fake_loss(x, condition)} if self.fake_parameters() else {}
        if self.global_step % self.student_every == 0:
            losses["student"] = self.student_loss(z, x, condition)
        return losses

    def fake_loss(self, x: Tensor, condition: Condition) -> Tensor:
        """Denoising loss of ``fake`` at the student's samples x (batch, \\*event), weighted as for
        data of unit variance.
        """
        t, alpha, sigma, _ = self.draw_noise(x)
        return denoising(
            partial(self.fake, t=t, **condition), x, alpha, sigma, (alpha / sigma) ** 2 + 1
        )

    @torch.no_grad()
    def gap(self, x: Tensor, noise: Noise, condition: Condition) -> Tensor:
        """``D_q - D_p`` at ``x_t = alpha x + sigma eps``, like x (batch, \\*event), without a
        graph. ``D_q`` is that of the guided teacher.
        """
        x_t = broadcast(noise.alpha, x) * x + broadcast(noise.sigma, x) * noise.eps
        teacher = guided(self.teacher, condition, self.guidance)
        return (teacher(x_t, noise.t) - self.fake(x_t, noise.t, **condition)).to(x.dtype)

    def draw_noise(self, x: Tensor) -> Noise:
        """Noise for x (batch, \\*event), with a separate level for every row."""
        t = self.teacher.schedule.time(
            x.new_empty(len(x), dtype=torch.float64).uniform_(*self.log_snr)
        )
        return Noise(t, *self.teacher.schedule(t), normal_like(x, None))

    def weight(self, noise: Noise) -> Tensor:
        """Weight (batch,) of a squared error in x. It includes the factor ``(alpha / sigma)^2``
        that such an error has in the divergence at a noise level.
        """
        return (noise.sigma / noise.alpha) ** (2 * self.weight_power - 2)

    def draw_latents(self, rows: int, *, generator: torch.Generator | None = None) -> Tensor:
        """z (rows, \\*latent_shape) ~ N(0, I), with the student's dtype and device."""
        return (
            next(self.student.parameters())
            .new_empty(rows, *self.latent_shape)
            .normal_(generator=generator)
        )

    @torch.no_grad()
    def generate(
        self,
        num: int,
        condition: Condition | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Samples ``x`` (num, \\*event) of the student, their latents ``z``, and the condition."""
        told = self.conditioner.request(num, condition)
        z = self.draw_latents(num, generator=generator)
        x = in_blocks(lambda z, told: self.student(z, **told), z, told.to(z.device))
        return {**(condition or {}), **self.decoded(x), "z": z}

    def watch(self) -> dict[str, Tensor]:
        return {f"chain/{name}": value for name, value in self.figures.items()}

    def held_out(self, batch: BatchLike) -> dict[str, Tensor]:
        """The mean norm of the ``gap``. As far as ``fake`` can tell, it is zero if student and
        teacher have the same distribution.
        """
        x, given, _ = as_batch(batch)
        condition, z = self.conditioner(given), self.draw_latents(len(x))
        x = in_blocks(lambda z, told: self.student(z, **told), z, condition)
        return {"gap": self.gap(x, self.draw_noise(x), condition).flatten(1).norm(dim=1).mean()}

    def on_train_start(self) -> None:
        """Switch teacher and conditioner to evaluation mode, so that they use no dropout."""
        super().on_train_start()
        self.teacher.eval()
        self.conditioner.eval()

    def fake_parameters(self) -> list[nn.Parameter]:
        """The trainable parameters of ``fake`` that it does not share with the student."""
        taken = {id(p) for p in self.student.parameters()}
        return [p for p in self.fake.parameters() if p.requires_grad and id(p) not in taken]

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        student, fake = (
            [p for p in self.student.parameters() if p.requires_grad],
            self.fake_parameters(),
        )
        group = {"params": fake} if self.fake_lr is None else {"params": fake, "lr": self.fake_lr}
        return [self.optimizer([g for g in ({"params": student}, group) if g["params"]])]


def check_parts(
    teacher: Denoiser, student: nn.Module, fake: Denoiser, log_snr: tuple[float, float]
) -> None:
    """Raise ``ValueError`` for parts of a ``ScoreDistiller`` that do not fit together."""
    check_kind("distillation", Denoiser, fake=fake)
    check_kind("distillation", nn.Module, student=student)
    if not any(p.requires_grad for p in student.parameters()):
        raise ValueError("student must have parameters to train, got none")
    if fake is teacher or fake.schedule != teacher.schedule:
        raise ValueError(
            f"fake must be another denoiser of the schedule {teacher.schedule}, got "
            f"{fake.schedule}"
        )
    if not isinstance(log_snr, Sequence) or isinstance(log_snr, str) or len(log_snr) != 2:
        raise ValueError(f"log_snr must be a least and a greatest value, got {log_snr!r}")
    for end in log_snr:
        check_log_snr("log_snr", end, teacher.schedule)
    if not log_snr[0] < log_snr[1]:
        raise ValueError(f"log_snr must be a least and a greatest value, got {log_snr}")
