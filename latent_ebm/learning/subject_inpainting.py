r"""Inpainting with a given subject: DreamInpainter (Xie et al. 2023, arXiv:2312.03771).

The main loss fills the hole of a picture where the subject was. The text is the class word alone
("dog"), so that what the subject looks like has to come from its tokens. Such a network obeys no
other text. The second loss, *decoupled regularization*, draws the whole picture by its full
caption, with the tokens there too. Both are squared errors of the denoiser with the weights of
``Denoising``, in the mean over the pixels that are drawn.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from latent_ebm.autoencoders import LatentSpace
from latent_ebm.conditions import BatchLike, Condition, as_batch
from latent_ebm.denoisers import Preconditioned
from latent_ebm.guidance.inpainting import blank, check_pictures, fill
from latent_ebm.learning.base import LearningRule, OptimizerCallable, SchedulerCallable
from latent_ebm.learning.denoising import Noise, check_noise, check_schedules, draw_log_snr
from latent_ebm.networks.subject_unet import subject_network
from latent_ebm.objectives import denoising
from latent_ebm.text import TextConditioner
from samplers.checks import as_shape, check_kind, check_numbers
from samplers.reverse import ReverseSampler

CARRIED = ("tokens", "class_tokens", "mask", "reference")  # by a batch
ASKED = ("tokens", "image", "mask", "reference")  # for samples


class SubjectInpainting(LearningRule):
    """Trains ``denoiser`` to fill a hole with the subject of a reference picture.

    A batch carries pictures x and, by name, the ``tokens`` of their captions, the ``class_tokens``
    of the class word, the ``mask`` (n, 1, H, W) of the subject, 1 where it is, and a ``reference``
    (n, C, H, W) of it. Guidance by equation 5 needs a network that knows the empty text, so for a
    share ``dropout`` of the rows the text is left out; the subject stays.

    Args:
        denoiser: A ``SubjectUNet`` with its schedule.
        reverse: The sampler from noise to data, with the same schedule.
        shape: The shape (C, H, W) of a picture, or of a latent.
        optimizer: Makes the optimiser from the trainable parameters.
        conditioner: Turns tokens of a text into the network's; its parameters are trained too.
        regularization: Weight of the second loss; 0: it is left out. The paper does not give one.
        noise: The distribution of the log-SNR of a row, "normal" or "uniform": see ``Denoising``.
        log_snr: Its mean and standard deviation, or its ends.
        dropout: The share of rows whose text is left out.
        latents: An autoencoder, held fixed; null: the denoiser learns pictures.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.

    Raises:
        ValueError: For another network, numbers out of range, or schedules that differ.
    """

    noise: Noise

    def __init__(
        self,
        denoiser: Preconditioned,
        reverse: ReverseSampler,
        shape: Sequence[int],
        optimizer: OptimizerCallable,
        conditioner: TextConditioner,
        regularization: float = 1.0,
        noise: Noise = "normal",
        log_snr: tuple[float, float] = (2.4, 2.4),
        dropout: float = 0.1,
        latents: LatentSpace | None = None,
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler, latents)
        check_kind(self, Preconditioned, denoiser=denoiser)
        check_kind(self, TextConditioner, conditioner=conditioner)
        check_kind(self, ReverseSampler, reverse=reverse)
        check_noise(noise, log_snr, denoiser.schedule.log_snr_range)
        check_numbers(self, "in [0, 1]", dropout=dropout)
        check_numbers(self, "non-negative", regularization=regularization)
        check_schedules(denoiser, reverse)
        subject_network(denoiser.network)
        self.denoiser, self.reverse, self.shape = denoiser, reverse, as_shape(self, shape=shape)
        self.conditioner, self.regularization, self.dropout = conditioner, regularization, dropout
        self.noise, self.log_snr = noise, log_snr

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        image, (x, given, _) = as_batch(batch).x, self.unpack(batch)
        check_names(given, CARRIED)
        check_pictures(image, given["mask"], given["reference"])
        known = blank(image, given["mask"], self.latents)
        subject, hole = self.subject(given["reference"]), known[:, -1:]
        word, caption = given["class_tokens"], given["tokens"]
        losses = {"inpainting": self.error(x, hole, word, known=known, subject=subject)}
        if self.regularization:
            whole = self.error(x, torch.ones_like(hole), caption, subject=subject)
            losses["regularization"] = self.regularization * whole
        return losses

    def error(self, x: Tensor, hole: Tensor, tokens: Tensor, **shown: Tensor) -> Tensor:
        """The weighted squared error of the denoiser at noised ``x``, told the text ``tokens`` and
        what is ``shown``, in the mean over the ``hole`` (n, 1, H, W).
        """
        schedule = self.denoiser.schedule
        log_snr = draw_log_snr(x, self.noise, self.log_snr, schedule.log_snr_range)
        weight = (log_snr.exp() + self.denoiser.data_scale**-2) / hole.mean((1, 2, 3))
        told = self.conditioner(Condition({"tokens": tokens}))
        text = told.drop(self.dropout if self.training else 0)
        denoise = partial(self.denoiser, t=schedule.time(log_snr), **text, **shown)
        return denoising(denoise, x, *schedule.frame(log_snr), weight, hole)

    def subject(self, reference: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Tokens (n, K, D) of the subject of each ``reference`` (n, C, H, W), a picture."""
        seen = reference
        if self.latents is not None:
            seen = self.latents.encode(reference, generator=generator)
        return subject_network(self.denoiser.network).tokens(seen, generator=generator)

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
        """Pictures ``x`` (num, C, H, W) whose hole is filled, and the condition.

        ``condition`` has ``num`` rows: ``tokens`` of a text, the picture ``image`` with its
        ``mask``, and a ``reference``. ``num_steps`` replaces that of the reverse sampler, and
        ``guidance`` is the weight w of equation 5. Outside of the hole x equals ``image``.

        Raises:
            ValueError: If an entry is missing or does not fit.
        """
        given = (condition or Condition()).to(self.device)
        check_names(given, ASKED)
        image, mask, reference = given["image"], given["mask"], given["reference"]
        check_pictures(image, mask, reference)
        text = self.conditioner.request(num, Condition({"tokens": given["tokens"]}))
        shown = {"known": blank(image, mask, self.latents, generator=generator)}
        shown["subject"] = self.subject(reference, generator)
        reverse = self.reverse if num_steps is None else replace(self.reverse, num_steps=num_steps)
        z = fill(self.denoiser, reverse, text, guidance, generator=generator, **shown)
        x = torch.where(mask > 0, self.decoded(z)["x"], image)
        return {**given, "x": x}


def check_names(given: Condition, names: Sequence[str]) -> None:
    """Raise ``ValueError`` unless ``given`` holds all of ``names``."""
    if missing := [name for name in names if name not in given]:
        raise ValueError(
            f"inpainting must be given {', '.join(names)}, got {given} without {missing[0]}"
        )
