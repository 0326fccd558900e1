"""Images of prompts, by a saved text-to-image model or by the checkpoint of one."""

from collections.abc import Sequence

import torch

from latent_ebm import plots
from latent_ebm.applications import Subject
from latent_ebm.cli.applications import read_model
from latent_ebm.cli.checkpoints import applied
from latent_ebm.cli.files import check_apart, check_output, save_arrays
from latent_ebm.cli.predictions import numbers
from samplers.run_checks import check_finite


def draw_prompts(
    source: str,
    file: str,
    prompts: Sequence[str],
    num: int,
    *,
    steps: int | None,
    guidance: float | None,
    negative: str | None,
    subject: str | None,
    seed: int,
    trust: Sequence[str],
) -> None:
    """Write ``num`` images of every prompt to ``file``: .png with a row per prompt, or .npz.

    Args:
        source: A checkpoint, or a folder that ``save`` wrote.
        file: The file to write.
        prompts: What to draw.
        num: Number of images per prompt.
        steps: Number of steps of the sampler; None: that of the model.
        guidance: Weight of guidance; None: that of the model.
        negative: What not to draw.
        subject: The file of a subject, tuned on this model.
        seed: Seed of the noise.
        trust: Packages whose classes a checkpoint may use.

    Raises:
        ValueError: If ``source`` holds no text-to-image model, or the model refuses a prompt or
            the subject.
    """
    out = check_output(file, (".png", ".npz"))
    known = None if subject is None else Subject.load(subject)
    check_apart([out], [] if subject is None else [subject])
    model = read_model(source, out, trust)
    generator = torch.Generator().manual_seed(seed)
    with applied(source):
        x = model.generate(prompts, num, guidance, steps, negative, known, generator=generator)
    check_finite("images", x, f"the weights of {source} may have diverged")
    if out.suffix == ".png":
        plots.save_grid(x, out, columns=num)
    else:
        save_arrays(out, {"x": numbers(x)})
    print(f"{num} for each prompt: {out}")
