r"""Progressive distillation: a student learns to do two steps of its teacher in one, again and
again.

DDIM is deterministic: two steps from x_t by way of the mid-time lead to one point x_s. Exactly one
guess of x_0 leads to the same point in a single step,

    x_0 = (x_s - (sigma_s / sigma_t) x_t) / (alpha_s - (sigma_s / sigma_t) alpha_t) .

The student regresses on this guess. Then it becomes the teacher of a student with half as many
steps. Squared errors have the weight ``max(1, alpha^2 / sigma^2)``. Source: Salimans & Ho 2022,
arXiv:2202.00512.

*Guidance.* If the first teacher is guided, the student learns the result, and needs one call a
step in place of two. The weight may be an input of the student: it is drawn anew for every row,
and one student then serves a range of weights (Meng et al. 2023, arXiv:2210.03142, who learn the
guidance first and then halve the steps; here the first halving does both).
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from latent_ebm.autoencoders import LatentSpace
from latent_ebm.conditions import BatchLike, Condition, Conditioner, conditioner_or_none
from latent_ebm.denoisers import Denoiser, generate
from latent_ebm.distillation.students import check_takes_guidance, taking_guidance
from latent_ebm.guidance.classifier_free import check_guidance, guided
from latent_ebm.guidance.distilled import at_weight, check_weight, check_weights, weighted
from latent_ebm.learning.base import LearningRule, OptimizerCallable, SchedulerCallable
from latent_ebm.objectives import regression
from samplers.base import normal_like
from samplers.checks import as_shape, check_counts, check_kind
from samplers.reverse import DDIM
from samplers.schedules import Schedule, broadcast


class Progressive(LearningRule):
    """Distils ``teacher_steps`` steps of DDIM of a ``teacher`` into ``num_steps`` of a student.

    Every ``stage_length`` updates the student becomes the teacher and the number of steps is
    halved, until ``num_steps`` is reached. The rows x may be samples of the teacher or its
    training data. Source: Salimans & Ho 2022, arXiv:2202.00512; Meng et al. 2023,
    arXiv:2210.03142, for guidance.

    Args:
        teacher: The first teacher, any denoiser of the student's schedule.
        student: The denoiser that learns; null: a copy of the teacher. For a range of guidance it
            takes the weight as the condition ``guidance`` (batch,), which a copy learns to do if
            its network is a ``MobileUNet``.
        shape: The shape of an event.
        optimizer: Makes the optimiser from the trainable parameters.
        teacher_steps: The number of steps of the first teacher: ``num_steps`` times a power of
            two.
        num_steps: The number of steps of the last student.
        stage_length: The number of updates between two halvings.
        conditioner: Turns what a batch carries (labels, token ids) into the condition of teacher
            and student, and is held fixed; null: no condition.
        guidance: The weight of classifier-free guidance of the first teacher, away from the null
            condition; 1 means no guidance. Or a range of weights, its least and its greatest, such
            as [1, 4]: the student takes the weight as an input, uniform in the range.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.
        latents: An autoencoder, held fixed, in whose latents teacher and student work: rows x of a
            batch are encoded, and samples decoded; null: they work on data.

    Raises:
        ValueError: For schedules that differ, a student without parameters, a range of guidance
            and no student that takes it, or numbers out of range.
    """

    def __init__(
        self,
        teacher: Denoiser,
        student: Denoiser | None,
        shape: Sequence[int],
        optimizer: OptimizerCallable,
        teacher_steps: int = 32,
        num_steps: int = 1,
        stage_length: int = 1000,
        conditioner: Conditioner | None = None,
        guidance: float | tuple[float, float] = 1.0,
        scheduler: SchedulerCallable | None = None,
        latents: LatentSpace | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler, latents)
        check_kind(
            self, Denoiser, teacher=teacher, student=teacher if student is None else student
        )
        if isinstance(guidance, Sequence):
            self.guidance = check_weights(guidance, conditioner)
            student = taking_guidance(teacher) if student is None else student
            check_takes_guidance(student)
        else:
            self.guidance = check_guidance(guidance, conditioner)
            student = deepcopy(teacher) if student is None else student
        check_student(teacher, student)
        check_counts(
            self, teacher_steps=teacher_steps, num_steps=num_steps, stage_length=stage_length
        )
        teacher_steps, num_steps = int(teacher_steps), int(num_steps)
        self.stage, self.stage_count = 0, count_halvings(teacher_steps, num_steps)
        self.teacher, self.student = teacher.requires_grad_(False), student.requires_grad_()
        self.previous = deepcopy(student).requires_grad_(False)
        self.shape, self.num_steps, self.stage_length = (
            as_shape(self, shape=shape),
            num_steps,
            stage_length,
        )
        self.conditioner = conditioner_or_none(conditioner).requires_grad_(False)

    def due(self, updates: int) -> int:
        """Number of the stage that trains after ``updates``; the last is ``stage_count - 1``."""
        return min(updates // self.stage_length, self.stage_count - 1)

    @property
    def student_steps(self) -> int:
        """Number of steps that the student learns now."""
        return self.num_steps << (self.stage_count - 1 - self.stage)

    def on_train_start(self) -> None:
        """Switch teachers and conditioner to evaluation mode. Training without a checkpoint
        starts at the first stage.
        """
        super().on_train_start()
        self.stage = min(self.stage, self.due(self.global_step))
        for teacher in (self.teacher, self.previous, self.conditioner):
            teacher.eval()

    def on_train_batch_start(self, batch: BatchLike, batch_idx: int) -> None:
        """Make the student its own teacher when a stage begins. Until then, a validation still
        measures the stage before.
        """
        super().on_train_batch_start(batch, batch_idx)
        stage = self.due(self.global_step)
        if stage > self.stage:
            self.stage = stage
            self.previous.load_state_dict(self.student.state_dict())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["stage"] = self.stage

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the stage of the checkpoint."""
        super().on_load_checkpoint(checkpoint)
        self.stage = checkpoint.get("stage", self.due(max(0, checkpoint["global_step"] - 1)))

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        x, given, _ = self.unpack(batch)
        condition, weight = self.conditioner(given), self.draw_weight(x)
        t = (
            torch.randint(1, self.student_steps + 1, (len(x),), device=x.device).double()
            / self.student_steps
        )
        alpha, sigma = self.student.schedule(t)
        x_t = broadcast(alpha, x) * x + broadcast(sigma, x) * normal_like(x, None)
        target = self.target(x_t, t, t - 1 / self.student_steps, condition, weight)
        guess = self.student(x_t, t, **tell(condition, weight))
        return {"student": regression(guess, target, (alpha / sigma).square().clamp(min=1))}

    def draw_weight(self, x: Tensor) -> float | Tensor:
        """The weight of guidance; (batch,), one for every row of ``x``, if it has a range."""
        if isinstance(self.guidance, tuple):
            return x.new_empty(len(x)).uniform_(*self.guidance)
        return self.guidance

    @torch.no_grad()
    def target(
        self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, weight: float | Tensor
    ) -> Tensor:
        """The guess of x_0 that leads from ``x_t`` (batch, \\*shape) at time ``t`` to the point
        that two teacher steps reach at time ``s``, guided with ``weight``.
        """
        first = guided(self.teacher, condition, weight)
        teacher = partial(self.previous, **tell(condition, weight)) if self.stage else first
        solver = DDIM(self.student.schedule, num_steps=2)
        middle = (t + s) / 2
        x_s = solver.step(teacher, solver.step(teacher, x_t, t, middle), middle, s)
        return invert_step(self.student.schedule, x_t, x_s, t, s)

    @torch.no_grad()
    def generate(
        self,
        num: int,
        condition: Condition | None = None,
        *,
        guidance: float | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Samples ``x`` (num, \\*shape) by ``num_steps`` steps of DDIM, and the condition.

        ``guidance`` is the weight for a student that has learnt a range of them; None: the least.

        Raises:
            ValueError: For a weight outside this range, or a student without one.
        """
        solver = DDIM(self.student.schedule, self.num_steps)
        told = self.conditioner.request(num, condition)
        if isinstance(self.guidance, tuple):
            weight = self.guidance[0] if guidance is None else guidance
            check_weight(weight, self.guidance)
            told = at_weight(told, weight, num)
        elif guidance is not None:
            raise ValueError(
                f"guidance must be left out for a student of one weight, got {guidance}"
            )
        x = generate(self.student, solver, self.shape, num, told, generator=generator)
        return {**(condition or {}), **self.decoded(x)}

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.optimizer(list(self.student.parameters()))]


def tell(condition: Condition, weight: float | Tensor) -> Condition:
    """What a student is told: also the ``weight`` of guidance, if rows have their own."""
    return weighted(condition, weight) if isinstance(weight, Tensor) else condition


def invert_step(schedule: Schedule, x_t: Tensor, x_s: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The x_0 with which a step of DDIM leads from ``x_t`` (batch, \\*event) at ``t`` (batch,) to
    ``x_s`` at ``s``.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    ratio = sigma_s / sigma_t
    return (x_s - broadcast(ratio, x_t) * x_t) / broadcast(alpha_s - ratio * alpha_t, x_t)


def check_student(teacher: Denoiser, student: Denoiser) -> None:
    """Raise ``ValueError`` unless ``student`` has parameters of its own and the schedule of
    ``teacher``.
    """
    if student is teacher or not any(True for _ in student.parameters()):
        raise ValueError("student must be another denoiser than the teacher, with parameters")
    if student.schedule != teacher.schedule:
        raise ValueError(
            f"student must have the schedule {teacher.schedule}, got {student.schedule}"
        )


def count_halvings(teacher_steps: int, num_steps: int) -> int:
    """How often ``teacher_steps`` must be halved to reach ``num_steps``. Raises ``ValueError``
    unless that is at least once.
    """
    quotient = teacher_steps // num_steps if num_steps >= 1 else 0
    if quotient < 2 or quotient & (quotient - 1) or quotient * num_steps != teacher_steps:
        raise ValueError(
            f"teacher_steps must be num_steps >= 1 times 2, 4, 8, ..., got {teacher_steps} and "
            f"num_steps {num_steps}"
        )
    return quotient.bit_length() - 1
