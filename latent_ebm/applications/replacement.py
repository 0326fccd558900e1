"""Another subject in the place of one in a picture, by a text-to-image model (HiFi Tuner,
arXiv:2312.00079). The picture needs a caption and no mask.
"""

from dataclasses import replace as changed

import torch
from torch import Tensor

from latent_ebm.applications.personalization import Subject
from latent_ebm.applications.text_to_image import TextToImage
from latent_ebm.conditions import Condition
from latent_ebm.guidance import replace_subject, with_subject
from latent_ebm.text import TextConditioner
from samplers.checks import check_kind
from samplers.run_checks import check_finite


@torch.no_grad()
def replace(
    model: TextToImage,
    image: Tensor,
    caption: str,
    prompt: str,
    subject: Subject | None = None,
    guidance: float | None = None,
    num_steps: int | None = None,
    kept: float = 1.0,
    *,
    num_updates: int = 10,
    lr: float = 1e-2,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The picture (C, H, W) in [-1, 1] with the subject of ``prompt`` in the place of another.

    The picture is inverted with its caption, a null is trained for every step, and the new picture
    is drawn beside it with its cross-attention maps, but for the tokens that differ and the rows
    of the subject.

    Args:
        model: A model with cross-attention, guided from outside, whose sampler is DDIM.
        image: The picture (C, H, W) in [-1, 1], of the shape that the model draws.
        caption: What it shows, such as "a cat on a bench".
        prompt: The same with the new subject, such as "a dog on a bench", in as many tokens.
        subject: The subject, if it is one that was tuned on this model.
        guidance: Weight of guidance, not 1. None: that of the model.
        num_steps: Number of steps of the sampler. None: that of the model.
        kept: The share of the steps, from the first one on, that keep the maps. Less of it lets
            the new subject have more of a shape of its own.
        num_updates: Updates by Adam of the null in each step.
        lr: Learning rate of Adam.
        generator: The random stream, for an autoencoder with random latents.

    Raises:
        ValueError: For an image, words or numbers that do not fit, texts of different lengths, or
            a model or a subject of another kind.
    """
    check_kind("replace", TextToImage, model=model)
    if subject is not None:
        check_kind("replace", Subject, subject=subject)
    check_image(image, model)
    weight = check_guidance(model, guidance)
    scene, new, own = tell(model, caption, prompt, subject)
    denoiser, sampler, autoencoder = model.denoiser, model.sampler, model.autoencoder
    if subject is not None:
        denoiser, new = with_subject(denoiser, new, subject.rows, subject.times)
    if num_steps is not None:
        sampler = changed(sampler, num_steps=num_steps)
    x, null = image[None].to(scene["text"]), model.conditioner.unknown(1)
    z = x if autoencoder is None else autoencoder.encode(x, generator=generator)
    more = {"num_updates": num_updates, "lr": lr}
    z = replace_subject(denoiser, sampler, z, scene, new, null, weight, own, kept, **more)
    x = z if autoencoder is None else autoencoder.decode(z)
    check_finite("images", x, "the model is not finite at what it draws")
    return x[0].clamp(-1, 1)


def tell(
    model: TextToImage, caption: str, prompt: str, subject: Subject | None
) -> tuple[Condition, Condition, list[int]]:
    """What ``caption`` and ``prompt`` tell the network of ``model``, and the places of the tokens
    that get maps of their own. Raises ``ValueError`` for texts or a subject that do not fit.
    """
    tokens = model.conditioner.tokens([caption, prompt])
    num_rows = 0 if subject is None else subject.rows.shape[-2]
    if subject is not None:
        subject.check(model.conditioner, model.denoiser, tokens["tokens"])
    own, told = places(model.conditioner, tokens["tokens"], num_rows), model.conditioner(tokens)
    return told.rows(slice(0, 1)), told.rows(slice(1, 2)), own


def check_image(image: Tensor, model: TextToImage) -> None:
    """Raise ``ValueError`` unless ``image`` has the shape that ``model`` draws, in [-1, 1]."""
    check_kind("replace", Tensor, image=image)
    if image.shape != model.shape:
        raise ValueError(f"image must have shape {model.shape}, got {tuple(image.shape)}")
    check_finite("image", image)
    if float(image.abs().max()) > 1:
        raise ValueError(f"image must lie in [-1, 1], got up to {float(image.abs().max()):.3g}")


def check_guidance(model: TextToImage, guidance: float | None) -> float:
    """The weight of guidance. Raises ``ValueError`` if there is no null to train."""
    weight = model.guidance if guidance is None else guidance
    if model.weights is not None:
        raise ValueError("model must be guided from outside, got one that has learnt its guidance")
    if weight == 1:
        raise ValueError(
            "guidance must not be 1, for then no null can be trained (give a weight such as 3), "
            f"got {weight}"
        )
    return weight


def places(conditioner: TextConditioner, tokens: Tensor, num_rows: int) -> list[int]:
    """Places at which the second row of ``tokens`` (2, m) differs from the first one, and those of
    the last ``num_rows``.

    Raises ``ValueError`` for rows of different lengths, or without a difference.
    """
    caption, prompt = conditioner.encoder.tokenizer.shown(tokens).sum(1).tolist()
    if caption != prompt:
        raise ValueError(
            f"prompt must have as many tokens as caption, so that maps fit, got {prompt} and "
            f"{caption}"
        )
    total = tokens.shape[1]
    found = (tokens[0] != tokens[1]).nonzero().flatten().tolist()
    if not found and not num_rows:
        raise ValueError("prompt must name another subject than caption, got the same tokens")
    return [*found, *range(total - num_rows, total)]
