r"""Diffusion models: a denoiser trained at all noise levels at once, on data or on the latents of
a latent model.

``D = E[x_0 | x_t]`` is the regression of clean data on noised data. It also gives the score of the
noised data (Vincent 2011; Ho et al. 2020, arXiv:2006.11239). Each squared error has the weight ``w
= (sigma / alpha)^-2 + data_scale^-2``. With this weight the network of an EDM-preconditioned
denoiser has a target of unit variance at every noise level (Karras et al. 2022, arXiv:2206.00364).
The network becomes good at the noise levels that are drawn often.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from latent_ebm.autoencoders import LatentSpace
from latent_ebm.conditions import BatchLike, Condition, Conditioner, conditioner_or_none
from latent_ebm.denoisers import Preconditioned, generate
from latent_ebm.guidance import ClassifierFree
from latent_ebm.learning.base import LearningRule, OptimizerCallable, SchedulerCallable
from latent_ebm.objectives import denoising
from samplers.checks import as_shape, check_numbers
from samplers.reverse import ReverseSampler

Noise = Literal["normal", "uniform"]


class Denoising(LearningRule):
    """Trains ``denoiser`` on rows x; ``reverse`` draws samples with it.

    With a ``conditioner`` the denoiser receives the condition of each row. For a share ``dropout``
    of the rows it is left out, so that the denoiser also learns the distribution without a
    condition, as classifier-free guidance needs (arXiv:2207.12598). With ``latents``, such as
    those of a trained autoencoder, the denoiser learns the distribution of the latents of x, and
    samples are decoded: latent diffusion (Vahdat et al. 2021, arXiv:2106.05931; Rombach et al.
    2022, arXiv:2112.10752). Average weights with Lightning's ``EMAWeightAveraging``.

    Args:
        denoiser: The network, with its schedule.
        reverse: The sampler from noise to data, with the same schedule.
        shape: The shape of an event, or of a latent.
        optimizer: Makes the optimiser from the trainable parameters.
        noise: The distribution of the log-SNR of a row: "normal", truncated at the ends of the
            schedule, or "uniform".
        log_snr: Mean and standard deviation of the normal distribution (EDM uses 2.4 and 2.4), or
            the ends of the uniform one.
        conditioner: Turns what a batch carries (labels, token ids) into the denoiser's condition;
            its parameters are trained too; null: no condition.
        dropout: The share of training rows whose condition is left out.
        latents: An autoencoder, or a latent model with a posterior, held fixed; null: the denoiser
            learns data.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.

    Raises:
        ValueError: For numbers out of range, or schedules that differ.
    """

    noise: Noise

    def __init__(
        self,
        denoiser: Preconditioned,
        reverse: ReverseSampler,
        shape: Sequence[int],
        optimizer: OptimizerCallable,
        noise: Noise = "normal",
        log_snr: tuple[float, float] = (2.4, 2.4),
        conditioner: Conditioner | None = None,
        dropout: float = 0.1,
        latents: LatentSpace | None = None,
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler, latents)
        check_noise(noise, log_snr, denoiser.schedule.log_snr_range)
        check_numbers(self, "in [0, 1]", dropout=dropout)
        check_schedules(denoiser, reverse)
        self.denoiser, self.reverse, self.shape = denoiser, reverse, as_shape(self, shape=shape)
        self.noise, self.log_snr = noise, log_snr
        self.conditioner, self.dropout = conditioner_or_none(conditioner), dropout

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        x, given, _ = self.unpack(batch)
        schedule = self.denoiser.schedule
        log_snr = draw_log_snr(x, self.noise, self.log_snr, schedule.log_snr_range)
        weight = log_snr.exp() + self.denoiser.data_scale**-2
        told = self.conditioner(given).drop(self.dropout if self.training else 0)
        denoise = partial(self.denoiser, t=schedule.time(log_snr), **told)
        return {"denoising": denoising(denoise, x, *schedule.frame(log_snr), weight)}

    @torch.no_grad()
    def generate(
        self,
        num: int,
        condition: Condition | None = None,
        *,
        num_steps: int | None = None,
        guidance: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Samples ``x`` (num, \\*event), the latents ``z`` that they were decoded from, if any,
        and the condition.

        ``num_steps`` replaces that of the reverse sampler; ``guidance`` is the weight of
        ``ClassifierFree``.

        Raises:
            ValueError: For guidance without a condition.
        """
        reverse = self.reverse if num_steps is None else replace(self.reverse, num_steps=num_steps)
        told = self.conditioner.request(num, condition)
        denoiser = self.denoiser
        if guidance != 1:
            if not condition:
                raise ValueError(f"guidance must come with a condition, got {guidance} and none")
            denoiser = ClassifierFree(denoiser, guidance, told.rows(slice(1)).unknown())
        x = generate(denoiser, reverse, self.shape, num, told, generator=generator)
        return {**(condition or {}), **self.decoded(x)}


def check_schedules(denoiser: Preconditioned, reverse: ReverseSampler) -> None:
    """Raise ``ValueError`` unless ``reverse`` has the schedule of ``denoiser``."""
    if reverse.schedule != denoiser.schedule:
        raise ValueError(
            f"reverse must have the schedule {denoiser.schedule} of denoiser, got "
            f"{reverse.schedule}"
        )


def draw_log_snr(
    x: Tensor, noise: Noise, log_snr: tuple[float, float], log_snr_range: tuple[float, float]
) -> Tensor:
    """A log-SNR (batch,) in float64 for every row of ``x``; arguments are those of
    ``Denoising``.
    """
    value = x.new_empty(len(x), dtype=torch.float64)
    if noise == "uniform":
        return value.uniform_(*log_snr)
    return torch.nn.init.trunc_normal_(value, *log_snr, *log_snr_range)


def check_noise(
    noise: str, log_snr: tuple[float, float], log_snr_range: tuple[float, float]
) -> None:
    """Raise ``ValueError`` for an unknown ``noise``, or a ``log_snr`` out of its range."""
    if noise not in get_args(Noise):
        raise ValueError(f"noise must be one of {', '.join(get_args(Noise))}, got {noise!r}")
    (first, second), (least, greatest) = log_snr, log_snr_range
    check_numbers("Denoising", "finite", **{"log_snr[0]": first, "log_snr[1]": second})
    if noise == "uniform" and not least <= first < second <= greatest:
        raise ValueError(
            f"log_snr must be ends in order within [{least:.4g}, {greatest:.4g}], got {log_snr}"
        )
    if noise == "normal" and not (least <= first <= greatest and second > 0):
        raise ValueError(
            f"log_snr must be a mean in [{least:.4g}, {greatest:.4g}] and a standard deviation "
            f"> 0, got {log_snr}"
        )
