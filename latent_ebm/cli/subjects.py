"""Subjects on the command line: one that a text-to-image model learns from a folder of images, and
one that takes the place of another in a picture.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from latent_ebm import plots
from latent_ebm.applications import Subject, TextToImage
from latent_ebm.applications.replacement import replace
from latent_ebm.applications.tuning import tune
from latent_ebm.cli.applications import read_model
from latent_ebm.cli.checkpoints import applied
from latent_ebm.cli.files import check_apart, check_output, save_arrays
from latent_ebm.cli.predictions import numbers
from latent_ebm.denoisers.generation import like
from latent_ebm.files.images import (
    find_images,
    image_notes,
    read_header,
    read_images,
    read_pixels,
)
from latent_ebm.files.masks import read_masks, read_opacity


def tune_subject(
    source: str,
    file: str,
    images: str,
    masks: str | None,
    word: str,
    *,
    templates: Sequence[str],
    rows: int,
    steps: int,
    refine: int,
    seed: int,
    trust: Sequence[str],
) -> None:
    """Write the subject of ``images`` to ``file``, .safetensors.

    Args:
        source: A checkpoint, or a folder of a text-to-image model.
        file: The file to write.
        images: A folder of images of one subject.
        masks: A folder of their masks; None: the opacity of images that have it.
        word: The class of the subject.
        templates: Prompts with ``{}`` in place of the word.
        rows: Number of rows of the subject.
        steps: Training steps for rows that all steps of the sampler share.
        refine: Training steps for the rows of each step of the sampler.
        seed: Seed of all random numbers.
        trust: Packages whose classes a checkpoint may use.

    Raises:
        ValueError: If ``source`` holds no text-to-image model, or images, masks or words do not
            fit it.
    """
    out = check_output(file, (".safetensors",))
    model = read_model(source, out, trust)
    x, seen = read_subject(model, Path(images), None if masks is None else Path(masks))
    check_apart([out], [images, *([] if masks is None else [masks])])
    torch.manual_seed(seed)
    with applied(source):
        subject = tune(
            model,
            x,
            word,
            seen,
            templates=templates,
            num_rows=rows,
            num_shared=steps,
            num_refining=refine,
            progress=True,
        )
    subject.save(out)
    print(f"{word!r} of {len(x)} images: {out}, {out.stat().st_size:,} bytes")


def replace_in_picture(
    source: str,
    file: str,
    image: str,
    caption: str,
    prompt: str,
    *,
    subject: str | None,
    guidance: float | None,
    steps: int | None,
    kept: float,
    seed: int,
    trust: Sequence[str],
) -> None:
    """Write the picture ``image`` with another subject to ``file``, .png or .npz.

    Args:
        source: A checkpoint, or a folder of a text-to-image model.
        file: The file to write.
        image: The file of the picture.
        caption: What it shows.
        prompt: The same with the new subject.
        subject: The file of a subject that was tuned on this model.
        guidance: Weight of guidance; None: that of the model.
        steps: Number of steps of the sampler; None: that of the model.
        kept: The share of the steps that keep the layout.
        seed: Seed of random latents.
        trust: Packages whose classes a checkpoint may use.

    Raises:
        ValueError: If ``source`` holds no text-to-image model, or picture, words or subject do
            not fit it.
    """
    out = check_output(file, (".png", ".npz"))
    known = None if subject is None else Subject.load(subject)
    check_apart([out], [image, *([] if subject is None else [subject])])
    model = read_model(source, out, trust)
    side = check_square(model)
    header, colour = read_header(Path(image), image), model.shape[0] == 3
    for note in image_notes([header], colour, side):
        print(note)
    pixels = read_pixels(Path(image), image, colour, side)
    x = torch.from_numpy(pixels / 127.5 - 1).float()
    generator = torch.Generator().manual_seed(seed)
    with applied(source):
        y = replace(model, x, caption, prompt, known, guidance, steps, kept, generator=generator)
    if out.suffix == ".png":
        plots.save_grid(y[None], out, columns=1)
    else:
        save_arrays(out, {"x": numbers(y[None])})
    print(f"{image} with {prompt!r}: {out}")


def check_square(model: TextToImage) -> int:
    """The side of the pictures of ``model``. Raises ``ValueError`` unless they are squares."""
    _, side, width = model.shape
    if side != width:
        raise ValueError(f"the model must draw squares, got {side} x {width} pixels")
    return side


def read_subject(
    model: TextToImage, images: Path, masks: Path | None
) -> tuple[Tensor, Tensor | None]:
    """Images (n, C, H, W) of a folder in size and precision of the ``model``, and their masks
    (n, 1, H, W) if there are any. What was decided about them is printed.
    """
    side = check_square(model)
    for folder in (images, masks):
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"there must be a folder of images {str(folder)!r}")
    rows, paths = read_images(images, side, colour=model.shape[0] == 3), find_images(images)
    for note in rows.notes:
        print(note)
    seen = read_opacity(paths, side) if masks is None else read_masks(masks, images, side)
    if seen is None:
        print("there are no masks: the background is learned too")
    x = torch.from_numpy(rows.x).to(like(model.denoiser).dtype)
    return x, None if seen is None else torch.from_numpy(seen)
