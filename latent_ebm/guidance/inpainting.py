r"""Pictures with a hole, filled by a network that sees what is known and the subject to draw.

The guidance of DreamInpainter (Xie et al. 2023, arXiv:2312.03771, equation 5) leads away from the
empty text c = 0 and keeps the subject r in both terms, ``D(x_t, 0, r) + w (D(x_t, c, r) - D(x_t,
0, r))``. That is classifier-free guidance whose null holds the subject and the picture too.
"""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from latent_ebm.autoencoders import LatentSpace
from latent_ebm.conditions import Condition
from latent_ebm.denoisers import Denoiser, generate
from latent_ebm.guidance.classifier_free import ClassifierFree
from latent_ebm.guidance.known_region import KnownRegion
from latent_ebm.guidance.masks import check_hole, check_mask
from samplers.checks import check_kind, check_numbers
from samplers.reverse import ReverseSampler
from samplers.run_checks import check_finite, is_readable


def blank(
    image: Tensor,
    mask: Tensor,
    latents: LatentSpace | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """What a network knows of pictures ``image`` (batch, C, H, W): these with 0 in the hole, and
    the ``mask`` (batch, 1, H, W) of the hole, (batch, C + 1, H, W).

    With ``latents``, these are the latents of such pictures. The hole of latents is every place
    that the hole of the picture touches. Random latents are drawn with ``generator``.
    """
    mask = mask.to(image)
    kept = image * (1 - mask)
    if latents is None:
        return torch.cat([kept, mask], 1)
    kept = latents.encode(kept, generator=generator)
    return torch.cat([kept, adaptive_max_pool2d(mask, kept.shape[2:])], 1)


def guided_fill(
    denoiser: Denoiser, text: Condition, weight: float, **shown: Tensor
) -> tuple[Denoiser, Condition]:
    """The denoiser by equation 5, and its condition: the ``text`` and what is ``shown``, with an
    entry per row.

    ``text`` has a null; the entries of ``shown`` stay as they are in both terms.
    """
    check_numbers("guidance", "finite", weight=weight)
    told = Condition({**text, **shown})
    if weight == 1:
        return denoiser, told
    return ClassifierFree(denoiser, weight, {**text.unknown(), **shown}), told


@torch.no_grad()
def fill(
    denoiser: Denoiser,
    sampler: ReverseSampler,
    text: Condition,
    weight: float,
    *,
    generator: torch.Generator | None = None,
    **shown: Tensor,
) -> Tensor:
    """Images or latents (batch, C, H, W) whose hole is filled. What is known is put back at every
    step.

    Args:
        denoiser: Called with ``text`` and ``shown`` as keywords.
        sampler: Leads from noise to images, on the schedule of the denoiser.
        text: What to draw, with a null, one row per image.
        weight: Weight of guidance.
        generator: The random stream.
        shown: ``known``, what ``blank`` gives, and whatever else the network takes, such as the
            tokens ``subject``; one row per image.

    Raises:
        ValueError: If the hole covers all or nothing of an image.
        FloatingPointError: If a sample diverges.
    """
    kept, hole = shown["known"][:, :-1], shown["known"][:, -1:]
    denoiser, told = guided_fill(denoiser, text, weight, **shown)
    sampler = KnownRegion(sampler, kept, hole)
    return generate(denoiser, sampler, kept.shape[1:], len(kept), told, generator=generator)


def check_pictures(image: Tensor, mask: Tensor, reference: Tensor | None) -> None:
    """Raise ``ValueError`` unless ``mask`` marks a hole in every ``image`` (batch, C, H, W), and
    every ``reference``, of the same shape, shows something; ``FloatingPointError`` unless they are
    finite.
    """
    for name, value in {"image": image, "mask": mask, "reference": reference}.items():
        if value is not None:
            check_kind("inpainting", Tensor, **{name: value})
    if image.ndim != 4 or not image.is_floating_point():
        raise ValueError(
            f"image must be floating-point pictures (batch, C, H, W), got {image.dtype} of shape "
            f"{tuple(image.shape)}"
        )
    check_finite("image", image)
    check_mask(mask, image)
    check_hole(mask)
    if reference is None:
        return
    if reference.shape != image.shape or reference.dtype != image.dtype:
        raise ValueError(
            f"reference must be {image.dtype} of the shape {tuple(image.shape)} of image, got "
            f"{reference.dtype} of shape {tuple(reference.shape)}"
        )
    check_finite("reference", reference)
    if is_readable(reference):
        flat = reference.flatten(2)
        plain = int((flat == flat[:, :, :1]).flatten(1).all(1).sum())
        if plain:
            raise ValueError(
                f"reference must show a subject, got a picture of one colour in {plain} of "
                f"{len(reference)} rows"
            )
