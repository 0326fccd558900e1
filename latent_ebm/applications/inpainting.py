r"""Inpainting: a picture with a hole, a subject and a prompt in, the filled picture out.

A ``SubjectUNet`` sees the known part of the picture, the tokens of the subject and the text
(DreamInpainter, arXiv:2312.03771). The inpainting pipelines of Stable Diffusion are told a text
alone; they are used here in the same way, without a subject.
"""

import os
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from latent_ebm.applications.pipelines import INDEX, INPAINTING, read_pipeline
from latent_ebm.applications.text_to_image import (
    check_fits,
    check_folder,
    check_parts,
    check_prompts,
    image_shape,
)
from latent_ebm.artefacts import Artefact, load
from latent_ebm.autoencoders import Autoencoder
from latent_ebm.denoisers import Preconditioned
from latent_ebm.denoisers.generation import like
from latent_ebm.guidance.inpainting import blank, check_pictures, fill
from latent_ebm.networks.subject_unet import SubjectUNet, subject_network
from latent_ebm.text import TextConditioner
from samplers.checks import check_counts, check_kind, check_numbers
from samplers.reverse import ReverseSampler
from samplers.run_checks import check_finite, is_readable


class Inpainter(Artefact):
    """Fills the hole of a picture: ``inpainter(image, mask, reference, prompt)``.

    Args:
        conditioner: Turns prompts into the network's text.
        denoiser: Trained together with ``conditioner``; its network takes what ``blank`` says of a
            picture as ``known``, and if it is a ``SubjectUNet``, the tokens of a subject.
        sampler: Leads from noise to images, on the schedule of the denoiser.
        shape: Shape (C, H, W) of an image.
        guidance: Weight w of guidance unless a call is given another one (arXiv:2312.03771,
            equation 5); 1 for none.
        autoencoder: Decodes what the denoiser draws. None for a denoiser of images.

    Raises:
        ValueError: If the sampler has another schedule than the denoiser, or if autoencoder or
            network make images of another shape.
    """

    def __init__(
        self,
        conditioner: TextConditioner,
        denoiser: Preconditioned,
        sampler: ReverseSampler,
        shape: Sequence[int],
        guidance: float = 1.0,
        autoencoder: Autoencoder | None = None,
    ) -> None:
        super().__init__()
        check_parts(self, conditioner, denoiser, sampler, autoencoder)
        check_kind(self, Preconditioned, denoiser=denoiser)
        check_numbers(self, "finite", guidance=guidance)
        self.conditioner, self.denoiser, self.sampler = conditioner, denoiser, sampler
        self.shape, self.guidance = image_shape(self, shape), guidance
        self.autoencoder = autoencoder
        code = self.shape if autoencoder is None else autoencoder.latent_shape(self.shape)
        if isinstance(denoiser.network, SubjectUNet):
            check_fits(denoiser.network.shape, code, self.shape)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Inpainter":
        """The model in a local folder, on the CPU and in evaluation mode. Nothing is downloaded,
        unpickled or run.

        Args:
            folder: A folder that ``save`` wrote, or one of a ``StableDiffusionInpaintPipeline`` of
                ``diffusers``, whose weights are files ``.safetensors``.

        Raises:
            ImportError: For a pipeline, without the packages ``diffusers`` and ``transformers``.
            FileNotFoundError: If the folder or a file in it is missing.
            ValueError: If the folder holds something else, or a file in it is damaged.
        """
        place = check_folder(folder, "an Inpainter")
        if (place / INDEX).is_file():
            return cls(*read_pipeline(place, INPAINTING)).eval()
        found = load(place)
        if not isinstance(found, cls):
            raise ValueError(f"{folder} must hold an Inpainter, got a {type(found).__name__}")
        return found

    def forward(
        self,
        image: Tensor,
        mask: Tensor,
        reference: Tensor | None,
        prompt: str,
        num: int = 1,
        guidance: float | None = None,
        num_steps: int | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Pictures (num, C, H, W), ``num`` ways to fill one ``image`` (C, H, W), whose hole is
        given by a ``mask`` (1, H, W). Other arguments and errors are those of ``generate``.
        """
        check_kind(self, Tensor, image=image, mask=mask)
        if reference is not None:
            check_kind(self, Tensor, reference=reference)
        seen = None if reference is None else reference[None]
        pictures = image[None], mask[None], seen
        return self.generate(*pictures, [prompt], num, guidance, num_steps, generator=generator)

    @torch.no_grad()
    def generate(
        self,
        image: Tensor,
        mask: Tensor,
        reference: Tensor | None,
        prompts: Sequence[str],
        num: int = 1,
        guidance: float | None = None,
        num_steps: int | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Pictures (batch * num, C, H, W), ``num`` in a row for every image. Outside of its hole
        a picture equals its image, bit by bit; inside it lies in [-1, 1].

        Args:
            image: Pictures (batch, C, H, W) in [-1, 1]; what is in the hole does not matter.
            mask: 1 in the hole and 0 where the picture is known, (batch, 1, H, W).
            reference: Pictures (batch, C, H, W) of the subjects. None: no subject.
            prompts: What to draw, one text per image.
            num: Number of pictures per image.
            guidance: Weight of guidance. None: that of this object.
            num_steps: Number of steps of the sampler. None: that of this object.
            generator: The random stream.

        Raises:
            ValueError: If an input does not fit, a mask is empty or full, a reference has one
                colour, the network knows no subjects, or the tokenizer refuses a prompt.
        """
        check_prompts(prompts)
        check_counts(self, num=num)
        self.check_inputs(image, mask, reference, len(prompts))
        shown = {"known": blank(image, mask, self.autoencoder, generator=generator)}
        if reference is not None:
            seen = reference
            if self.autoencoder is not None:
                seen = self.autoencoder.encode(reference, generator=generator)
            network = subject_network(self.denoiser.network)
            shown["subject"] = network.tokens(seen, generator=generator)
        rows = torch.arange(len(prompts), device=image.device).repeat_interleave(num)
        z = fill(
            self.denoiser,
            self.sampler if num_steps is None else replace(self.sampler, num_steps=num_steps),
            self.conditioner.encode(prompts).rows(rows),
            self.guidance if guidance is None else guidance,
            generator=generator,
            **{name: value[rows] for name, value in shown.items()},
        )
        x = z if self.autoencoder is None else self.autoencoder.decode(z)
        check_finite("images", x, "the autoencoder is not finite at what the denoiser draws")
        return torch.where(mask[rows] > 0, x.clamp(-1, 1), image[rows])

    def check_inputs(
        self, image: Tensor, mask: Tensor, reference: Tensor | None, num: int
    ) -> None:
        """Raise ``ValueError`` unless there are ``num`` images, with masks and references that
        fit.
        """
        check_kind(self, Tensor, image=image, mask=mask)
        wanted, dtype = (num, *self.shape), like(self.denoiser).dtype
        if image.shape != wanted or image.dtype != dtype:
            raise ValueError(
                f"image must be {dtype} of shape {wanted}, one for every prompt, got "
                f"{image.dtype} of shape {tuple(image.shape)}"
            )
        if len(mask) != num:
            raise ValueError(f"mask must have {num} rows, one for every image, got {len(mask)}")
        if reference is not None and not isinstance(self.denoiser.network, SubjectUNet):
            raise ValueError(
                "reference must be left out for a network that knows no subjects: only a "
                "SubjectUNet does, and those of diffusers pipelines do not"
            )
        check_pictures(image, mask, reference)
        check_range("image", image)
        if reference is not None:
            check_range("reference", reference)


def check_range(name: str, x: Tensor) -> None:
    """Raise ``ValueError`` unless pictures ``x`` lie in [-1, 1]."""
    if is_readable(x) and float(x.abs().max()) > 1:
        low, high = float(x.min()), float(x.max())
        raise ValueError(f"{name} must lie in [-1, 1], got values from {low:.3g} to {high:.3g}")
