"""Tuning of a text-to-image model on a subject, from a few images in memory."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from latent_ebm.applications.personalization import Subject, model_digest
from latent_ebm.applications.text_to_image import TextToImage
from latent_ebm.conditions import Batch, Condition
from latent_ebm.denoisers import Preconditioned
from latent_ebm.denoisers.generation import like
from latent_ebm.guidance.masks import check_hole, check_mask
from latent_ebm.learning import SubjectTuning, fit_batches
from latent_ebm.text import SubjectConditioner
from samplers.checks import check_kind, check_numbers
from samplers.run_checks import check_finite

BATCH = 4  # rows of a batch, at most


def tune(
    model: TextToImage,
    images: Tensor,
    word: str,
    masks: Tensor | None = None,
    *,
    templates: Sequence[str] = ("{}",),
    num_rows: int = 5,
    num_shared: int = 1000,
    num_refining: int = 10,
    lr: float = 5e-3,
    regularization: float = 0.01,
    progress: bool = False,
) -> Subject:
    """Learn the subject of ``images`` as rows beside a prompt; the model itself stays as it is.

    One image is enough to begin with, but what it shows once, such as a pose, may be taken for the
    subject. Without masks so may the background. Uses the global random state, and trains on the
    device of the model.

    Args:
        model: A diffusion model with free padding in its prompts.
        images: Images (n, C, H, W) in [-1, 1] of the shape that the model draws.
        word: The class of the subject, such as "dog", in words that the model knows.
        masks: Masks (n, 1, H, W), 1 where the subject is and 0 elsewhere. None: the whole image.
        templates: Prompts with ``{}`` in place of the word, such as "a photo of a {}".
        num_rows: Number of rows.
        num_shared: Training steps for rows that all steps of the sampler share.
        num_refining: Training steps for the rows of each step of the sampler; 0: they share.
        lr: Learning rate of Adam.
        regularization: How strongly rows are held where they start.
        progress: Whether to show how many steps are done.

    Raises:
        ValueError: For images, masks, words or numbers that do not fit, and for a model that has
            learned its guidance or is no diffusion model.
    """
    denoiser = denoiser_of(model)
    check_numbers("tune", "positive", lr=lr)
    check_images(images, model, masks)
    subject = SubjectConditioner(model.conditioner, num_rows)
    tokens = prompts_of(subject, word, templates)
    trainable = [p for p in model.parameters() if p.requires_grad]  # the rule freezes them
    try:
        rule = SubjectTuning(
            denoiser,
            subject,
            model.sampler,
            model.latent_shape,
            partial(torch.optim.Adam, lr=lr),
            num_shared,
            num_refining,
            regularization,
        )
        with torch.no_grad():
            x = images.detach().to(tokens.device)
            x = x if model.autoencoder is None else model.autoencoder.encode(x)
        drawn = batches(x, masks, tokens)
        fit_batches(rule, drawn, rule.num_steps, f"tuning {word!r}" if progress else None)
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
    times = model.sampler.times(x)[:-1].cpu() if num_refining else None
    return Subject(rule.subject.cpu(), word, model_digest(model.conditioner, denoiser), times)


def denoiser_of(model: TextToImage) -> Preconditioned:
    """The denoiser of ``model``. Raises ``ValueError`` unless it is a diffusion model without
    learned guidance.
    """
    check_kind("tune", TextToImage, model=model)
    if model.weights is not None or not isinstance(model.denoiser, Preconditioned):
        raise ValueError(
            "model must be a diffusion model that is guided from outside, got a student with "
            f"{type(model.denoiser).__name__}"
        )
    return model.denoiser


def batches(x: Tensor, masks: Tensor | None, tokens: Tensor) -> Iterator[Batch]:
    """Batches of rows of ``x`` (n, \\*event), drawn at random, each with tokens of one of the
    prompts (m, L).
    """
    size = (x.shape[2], x.shape[3])
    seen = {} if masks is None else {"mask": adaptive_avg_pool2d(masks.detach().to(x), size)}
    while True:
        row = torch.randint(len(x), (min(BATCH, len(x)),), device=x.device)
        prompt = torch.randint(len(tokens), (len(row),), device=x.device)
        told = {"tokens": tokens[prompt], **{name: mask[row] for name, mask in seen.items()}}
        yield Batch(x[row], Condition(told), None)


def prompts_of(subject: SubjectConditioner, word: str, templates: Sequence[str]) -> Tensor:
    """Tokens (templates, L) of all prompts. Raises ``ValueError`` for words that are not known,
    a template without a place for the word, or a prompt without room for the subject.
    """
    if isinstance(templates, str) or not isinstance(templates, Sequence) or not templates:
        raise ValueError(f"templates must be a list of one text or more, got {templates!r}")
    check_kind("tune", str, **{f"templates[{i}]": text for i, text in enumerate(templates)})
    if not isinstance(word, str) or not word.strip():
        raise ValueError(f"word must say the class of the subject, such as 'dog', got {word!r}")
    if wrong := [template for template in templates if "{}" not in template]:
        raise ValueError(f"templates must have {{}} in place of the word, got {wrong[0]!r}")
    prompts = [template.replace("{}", word) for template in templates]
    told = subject.conditioner.tokens(prompts, strict=True)
    subject(told)
    return told["tokens"]


def check_images(images: Tensor, model: TextToImage, masks: Tensor | None) -> None:
    """Raise ``ValueError`` unless there are images of the model's shape in [-1, 1], and ``masks``
    show a part of each.
    """
    check_kind("tune", Tensor, images=images)
    dtype = like(model.denoiser).dtype
    if images.shape[1:] != model.shape or not len(images) or images.dtype != dtype:
        raise ValueError(
            f"images must be {dtype} of shape (n, {', '.join(map(str, model.shape))}), as the "
            f"model draws, and be at least one, got {images.dtype} of shape {tuple(images.shape)}"
        )
    check_finite("images", images)
    if float(images.abs().max()) > 1:
        raise ValueError(
            f"images must lie in [-1, 1], got values from {float(images.min()):.3g} to "
            f"{float(images.max()):.3g}"
        )
    if masks is not None:
        check_kind("tune", Tensor, masks=masks)
        if len(masks) != len(images):
            raise ValueError(f"masks must be one per image, got {len(masks)} of {len(images)}")
        check_mask(masks, images)
        check_hole(masks)
