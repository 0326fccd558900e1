r"""Text to image: prompts in, images out, by a denoiser with a text as its condition.

All parts are those of the library: a conditioner turns prompts into the denoiser's condition, a
reverse sampler leads from noise to images, and an autoencoder, if there is one, decodes latents.
A student of few steps is the same object with another denoiser and a sampler of fewer steps. So
is a Stable Diffusion pipeline of ``diffusers`` (``pipelines``).
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from latent_ebm.applications.personalization import Subject
from latent_ebm.applications.pipelines import INDEX, read_pipeline
from latent_ebm.artefacts import Artefact, load
from latent_ebm.artefacts.folders import config_path
from latent_ebm.autoencoders import Autoencoder
from latent_ebm.conditions import Condition
from latent_ebm.denoisers import Denoiser, generate
from latent_ebm.guidance import ClassifierFree
from latent_ebm.guidance.distilled import at_weight, check_range, check_weight
from latent_ebm.guidance.subject import with_subject
from latent_ebm.networks import MobileUNet
from latent_ebm.text import TextConditioner
from samplers.checks import as_shape, check_counts, check_kind, check_numbers
from samplers.reverse import ReverseSampler
from samplers.run_checks import check_finite


class TextToImage(Artefact):
    """Draws images for prompts.

    Args:
        conditioner: Turns prompts into the denoiser's condition.
        denoiser: Trained together with ``conditioner``.
        sampler: Leads from noise to images, on the schedule of the denoiser.
        shape: Shape (C, H, W) of an image.
        guidance: Weight of classifier-free guidance unless ``generate`` is given another one; 1
            for none, as for a student that has learnt it with one weight.
        autoencoder: Decodes what the denoiser draws. None for a denoiser of images.
        weights: Least and greatest weight of guidance of a denoiser that takes the weight as an
            input, its condition ``guidance``, as a student of ``Progressive`` may; a step is then
            one call for any weight. None for another denoiser, which is called for the prompt and
            for what not to draw.

    Raises:
        ValueError: If the sampler has another schedule than the denoiser, the autoencoder or the
            network makes images of another shape, or ``guidance`` is not one of ``weights``.
    """

    def __init__(
        self,
        conditioner: TextConditioner,
        denoiser: Denoiser,
        sampler: ReverseSampler,
        shape: Sequence[int],
        guidance: float = 1.0,
        autoencoder: Autoencoder | None = None,
        weights: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        check_parts(self, conditioner, denoiser, sampler, autoencoder)
        check_numbers(self, "finite", guidance=guidance)
        self.conditioner, self.denoiser, self.sampler = conditioner, denoiser, sampler
        self.shape, self.guidance = image_shape(self, shape), guidance
        self.autoencoder, self.weights = autoencoder, None
        if weights is not None:
            self.weights = check_range("weights must be", weights)
            check_weight(guidance, self.weights)
        code = self.shape if autoencoder is None else autoencoder.latent_shape(self.shape)
        check_drawn(denoiser, code, self.shape)
        self.latent_shape = code

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "TextToImage":
        """The model in a local folder, on the CPU and in evaluation mode. Nothing is downloaded,
        unpickled or run.

        Args:
            folder: A folder that ``save`` wrote, or one of a ``StableDiffusionPipeline`` of
                ``diffusers``, whose weights are files ``.safetensors``.

        Raises:
            ImportError: For a pipeline, without the packages ``diffusers`` and ``transformers``.
            FileNotFoundError: If the folder or a file in it is missing.
            ValueError: If the folder holds something else, or a file in it is damaged.
        """
        place = check_folder(folder, "a TextToImage")
        if (place / INDEX).is_file():
            return cls(*read_pipeline(place)).eval()
        found = load(place)
        if not isinstance(found, cls):
            raise ValueError(f"{folder} must hold a TextToImage, got a {type(found).__name__}")
        return found

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        num: int = 1,
        guidance: float | None = None,
        num_steps: int | None = None,
        negative: str | None = None,
        subject: Subject | None = None,
        *,
        x_T: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images (len(prompts) * num, C, H, W) in [-1, 1], ``num`` in a row for every prompt.

        Args:
            prompts: What to draw.
            num: Number of images per prompt.
            guidance: Weight of guidance. None: that of this object.
            num_steps: Number of steps of the sampler. None: that of this object.
            negative: What not to draw, in place of the empty prompt. It has no part in a guidance
                of 1, or in one that the denoiser has learnt.
            subject: Who or what the prompts speak of by its class, tuned on this model.
            x_T: The noise (len(prompts) * num, \\*latent_shape) of scale ``sigma_1`` to begin
                with, such as ``watermarked_noise``; None: it is drawn.
            generator: The random stream.

        Raises:
            ValueError: If the tokenizer refuses a prompt, a negative prompt has no part in the
                guidance, the denoiser has not learnt its weight, the subject belongs to another
                model or has no room beside a prompt, or the noise has another shape.
        """
        check_prompts(prompts)
        check_counts(self, num=num)
        weight = self.guidance if guidance is None else guidance
        steps = self.sampler.num_steps if num_steps is None else num_steps
        rows = torch.arange(len(prompts), device="cpu").repeat_interleave(num)
        tokens, count = self.conditioner.tokens(prompts), len(rows)
        if subject is not None:
            check_kind(self, Subject, subject=subject)
            subject.check(self.conditioner, self.denoiser, tokens["tokens"])
        told = self.conditioner(tokens).rows(rows)
        denoiser = self.guided(told, weight, negative)
        if subject is not None:
            denoiser, told = with_subject(denoiser, told, subject.rows, subject.times)
        if self.weights is not None:
            told = at_weight(told, weight, count)
        sampler = replace(self.sampler, num_steps=steps)
        z = generate(
            denoiser, sampler, self.latent_shape, count, told, x_T=x_T, generator=generator
        )
        x = z if self.autoencoder is None else self.autoencoder.decode(z)
        check_finite("images", x, "the autoencoder is not finite at what the denoiser draws")
        return x.clamp(-1, 1)

    def guided(self, told: Condition, weight: float, negative: str | None) -> Denoiser:
        """The denoiser, guided with ``weight`` away from ``negative`` or the empty prompt."""
        check_numbers(self, "finite", guidance=weight)
        if self.weights is not None:
            check_weight(weight, self.weights)
            if negative is not None:
                raise ValueError(
                    "negative must be left out for a denoiser that has learnt its guidance, got "
                    f"{negative!r}"
                )
            return self.denoiser
        if weight == 1:
            if negative is not None:
                raise ValueError(
                    f"guidance must not be 1 with a negative prompt, got {negative!r}"
                )
            return self.denoiser
        null = told.rows(slice(1)).unknown()
        if negative is not None:
            null = self.encode_negative(negative)
        return ClassifierFree(self.denoiser, weight, null)

    def encode_negative(self, negative: str) -> Condition:
        """The condition of one row for ``negative``. Raises ``ValueError`` if it is refused."""
        try:
            return self.conditioner.encode([negative])
        except ValueError as error:
            raise ValueError(str(error).replace("prompts[0]", "negative")) from None


def check_parts(
    owner: object,
    conditioner: object,
    denoiser: Denoiser,
    sampler: ReverseSampler,
    autoencoder: object,
) -> None:
    """Raise ``ValueError`` unless these are parts of a model of texts and images, with one
    schedule.
    """
    check_kind(owner, TextConditioner, conditioner=conditioner)
    check_kind(owner, Denoiser, denoiser=denoiser)
    check_kind(owner, ReverseSampler, sampler=sampler)
    if autoencoder is not None:
        check_kind(owner, Autoencoder, autoencoder=autoencoder)
    if sampler.schedule != denoiser.schedule:
        raise ValueError(
            f"sampler must have the schedule {denoiser.schedule} of denoiser, got "
            f"{sampler.schedule}"
        )


def check_drawn(denoiser: Denoiser, code: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` if the network of ``denoiser`` is one of the library's own and draws
    another shape than ``code``, which images of ``shape`` have before they are decoded.
    """
    for network in denoiser.modules():
        if isinstance(network, MobileUNet):
            check_fits(network.shape, code, shape)


def check_fits(drawn: tuple[int, ...], code: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless what a network has ``drawn`` is of the shape ``code``, for
    images of ``shape``.
    """
    if drawn != code:
        raise ValueError(
            f"shape must fit the network of denoiser, which draws {drawn}, got {shape}, for which "
            f"it would have to draw {code}"
        )


def image_shape(owner: object, shape: Sequence[int]) -> tuple[int, ...]:
    """``shape``, the shape (C, H, W) of an image. Raises ``ValueError`` for another one."""
    sizes = as_shape(owner, shape=shape)
    if len(sizes) != 3:
        raise ValueError(f"shape must be (C, H, W), got {sizes}")
    return sizes


def check_folder(folder: str | os.PathLike[str], kind: str) -> Path:
    """``folder``, which holds a saved object, such as ``kind`` ("a TextToImage"), or a pipeline of
    ``diffusers``.
    """
    place = Path(folder).expanduser()
    if not place.exists():
        raise FileNotFoundError(f"folder must hold {kind}, but there is no {str(folder)!r}")
    if not place.is_dir():
        raise ValueError(f"folder must be a folder, got the file {str(folder)!r}")
    index = config_path(place)
    if not index.is_file() and not (place / INDEX).is_file():
        held = ", ".join(sorted(path.name for path in place.iterdir())) or "nothing"
        raise FileNotFoundError(
            f"{folder} must hold {index.name} of {kind} that was saved or {INDEX} of a pipeline "
            f"of diffusers, got {held:.200}"
        )
    return place


def check_prompts(prompts: Sequence[str]) -> None:
    """Raise ``ValueError`` unless ``prompts`` are a list of one text or more."""
    if isinstance(prompts, str) or not isinstance(prompts, Sequence) or not prompts:
        raise ValueError(f"prompts must be a list of one text or more, got {prompts!r}")
