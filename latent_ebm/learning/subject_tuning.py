r"""A trained text-to-image model learns one subject from a few images (HiFi Tuner,
arXiv:2312.00079).

What is learned are n rows c_s beside an encoded prompt c, which start at the rows phi_s of the
empty prompt (``SubjectConditioner``). With the mask M of the subject the loss is ::

    E[w |M (D(x_t, [c, c_s]) - x)|^2] / dim + w_s |c_s - phi_s|^2 / (n dim).

The first term looks at nothing but the subject, and the second keeps the rows where the network
knows what they mean. First one c_s is learned for all noise levels. Then the steps t = T, ..., 1
of the sampler get rows of their own: each set starts at that of the step before and is trained
at this noise level alone.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from torch.optim import Optimizer

from latent_ebm.autoencoders import LatentSpace
from latent_ebm.conditions import Batch, BatchLike, Condition, as_batch
from latent_ebm.denoisers import Preconditioned, generate
from latent_ebm.denoisers.generation import like
from latent_ebm.guidance.subject import with_subject
from latent_ebm.learning.base import LearningRule, OptimizerCallable, SchedulerCallable
from latent_ebm.learning.denoising import check_schedules
from latent_ebm.objectives import denoising
from latent_ebm.text import SubjectConditioner
from samplers.checks import as_shape, check_counts, check_kind, check_numbers
from samplers.reverse import ReverseSampler


class SubjectTuning(LearningRule):
    """Trains the rows of a subject on images x with their ``tokens`` and, if there are any, masks.

    A batch carries ``tokens`` of prompts that name the class of the subject, and ``mask`` (n, 1,
    H, W), 1 where the subject is. A latent weighs as much as the share of it that the mask covers.
    First, ``num_shared`` steps train rows for all noise levels. Then each step of the sampler gets
    ``num_refining`` steps for rows of its own.

    Args:
        denoiser: The trained denoiser.
        conditioner: Puts the rows in place of padding.
        reverse: The sampler from noise to data, with the same schedule.
        shape: The shape of an event, or of a latent.
        optimizer: Makes the optimiser from the trainable parameters; the paper has Adam, 5e-3.
        num_shared: Steps of training for rows that all noise levels share.
        num_refining: Steps of training for each step of the sampler, 10 in the paper; 0: none.
        regularization: The weight w_s.
        model_lr: Learning rate at which the first ``num_shared`` steps also train what requires
            gradients in the denoiser and the text encoder: all weights (DreamBooth,
            arXiv:2208.12242), or a LoRA of ``peft``. Null: both are held fixed.
        latents: An autoencoder, held fixed; null: the denoiser works on data.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.

    Raises:
        ValueError: For numbers out of range, or schedules that differ.
    """

    def __init__(
        self,
        denoiser: Preconditioned,
        conditioner: SubjectConditioner,
        reverse: ReverseSampler,
        shape: Sequence[int],
        optimizer: OptimizerCallable,
        num_shared: int = 1000,
        num_refining: int = 0,
        regularization: float = 0.01,
        model_lr: float | None = None,
        latents: LatentSpace | None = None,
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler, latents)
        check_kind(self, SubjectConditioner, conditioner=conditioner)
        check_kind(self, Preconditioned, denoiser=denoiser)
        check_kind(self, ReverseSampler, reverse=reverse)
        check_counts(self, num_shared=num_shared)
        check_counts(self, least=0, num_refining=num_refining)
        check_numbers(self, "non-negative", regularization=regularization, model_lr=model_lr or 0)
        check_schedules(denoiser, reverse)
        self.denoiser, self.conditioner, self.reverse = denoiser, conditioner, reverse
        self.shape, self.regularization = as_shape(self, shape=shape), regularization
        self.num_shared, self.num_refining, self.model_lr = num_shared, num_refining, model_lr
        sets = reverse.num_steps if num_refining else 0
        self.own = nn.ParameterList(conditioner.start.clone() for _ in range(sets))
        if model_lr is None:
            freeze(denoiser, conditioner.conditioner)

    @property
    def num_steps(self) -> int:
        """The number of training steps."""
        return self.num_shared + len(self.own) * self.num_refining

    @property
    def subject(self) -> Tensor:
        """The rows (n, dim), or (steps of the sampler, n, dim) if these have their own."""
        rows = torch.stack(list(self.own)) if len(self.own) else self.conditioner.rows
        return rows.detach().clone()

    def step_trained(self, batch: int | None = None) -> int | None:
        """The step of the sampler whose rows are trained by the ``batch`` of this number, from 0,
        or now; None for rows that all share.
        """
        done = (self.batches_seen if batch is None else batch) - self.num_shared
        if done < 0 or not self.own:
            return None
        return min(done // self.num_refining, len(self.own) - 1)

    def on_train_batch_start(self, batch: BatchLike, batch_idx: int) -> None:
        """Start the rows of a step of the sampler where those of the step before have ended."""
        super().on_train_batch_start(batch, batch_idx)
        self.pass_on()
        if self.step_trained() is not None:
            freeze(self.denoiser, self.conditioner.conditioner)

    def on_train_end(self) -> None:
        self.pass_on()

    def pass_on(self) -> None:
        """Give the rows that were trained last to all later steps of the sampler."""
        step = self.step_trained(self.batches_seen - 1)
        trained = self.conditioner.rows if step is None else self.own[step]
        for later in list(self.own)[0 if step is None else step + 1 :]:
            later.data.copy_(trained.data)

    def make_optimizers(self) -> list[Optimizer]:
        rows = [self.conditioner.rows, *self.own]
        if self.model_lr is None:
            return [self.optimizer(rows)]
        known = set(rows)
        model = [p for p in self.parameters() if p.requires_grad and p not in known]
        return [self.optimizer([{"params": rows}, {"params": model, "lr": self.model_lr}])]

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        step, (x, given, _) = self.step_trained(), self.unpack(batch)
        seen = mask_of(as_batch(batch), x)
        rows = self.conditioner.rows if step is None else self.own[step]
        schedule, log_snr = self.denoiser.schedule, log_snr_at(self.reverse, x, step)
        told = self.conditioner.tell(given, rows)
        denoise = partial(self.denoiser, t=schedule.time(log_snr), **told)
        weight = log_snr.exp() + self.denoiser.data_scale**-2
        error = denoising(denoise, x, *schedule.frame(log_snr), weight, seen)
        apart = (rows - self.conditioner.start).square().mean()
        return {"denoising": error, "regularization": self.regularization * apart}

    @torch.no_grad()
    def generate(
        self,
        num: int,
        condition: Condition | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Samples ``x`` (num, \\*event) of the subject, the latents ``z`` that they were decoded
        from, if any, and the condition. Without one, they show no subject.
        """
        denoiser, told = self.denoiser, self.conditioner.request(num, condition)
        if condition is not None:
            times = self.reverse.times(like(denoiser))[:-1]
            denoiser, told = with_subject(denoiser, told, self.subject, times)
        x = generate(denoiser, self.reverse, self.shape, num, told, generator=generator)
        return {**(condition or {}), **self.decoded(x)}


def freeze(*modules: nn.Module) -> None:
    """Let no parameter of ``modules`` require gradients."""
    for module in modules:
        module.requires_grad_(False)


def log_snr_at(reverse: ReverseSampler, x: Tensor, step: int | None) -> Tensor:
    """A log-SNR (batch,) in float64 for every row of ``x``: at the time of a ``step`` of the
    sampler ``reverse``, or at uniform times for None.
    """
    if step is None:
        time = x.new_empty(len(x), dtype=torch.float64).uniform_()
    else:
        time = reverse.times(x)[step].expand(len(x))
    return reverse.schedule.log_snr(time)


def mask_of(batch: Batch, x: Tensor) -> Tensor | None:
    """The mask in a ``batch`` of images (n, C, H, W), in the height and width of ``x``, their
    latents or themselves. None if the batch has no mask.

    Raises ``ValueError`` for a mask of another shape than (n, 1, H, W).
    """
    mask, wanted = batch.condition.get("mask"), (len(batch.x), 1, *batch.x.shape[2:])
    if mask is None:
        return None
    if tuple(mask.shape) != wanted:
        raise ValueError(f"mask must have shape {wanted}, like x, got {tuple(mask.shape)}")
    return adaptive_avg_pool2d(mask.to(x), (x.shape[2], x.shape[3]))
