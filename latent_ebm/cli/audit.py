"""An audit of a text-to-image model: pictures for the prompts of a file, and what applies to them.

Everything that the command is given is read and checked before anything is drawn.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from latent_ebm.applications import TextToImage
from latent_ebm.cli.applications import read_model
from latent_ebm.cli.checkpoints import applied
from latent_ebm.cli.evidence import (
    Evidence,
    read_attribute,
    read_filter,
    read_key,
    read_lines,
    read_pictures,
    read_scorer,
)
from latent_ebm.cli.files import check_folder, check_new
from latent_ebm.denoisers.generation import initial_noise
from latent_ebm.guidance import inversion_path
from latent_ebm.guidance.distilled import at_weight
from latent_ebm.responsibility import (
    Audit,
    Terms,
    detect_noise_watermark,
    text_difference,
    watermarked_noise,
)
from latent_ebm.responsibility.audit import check_prompts
from latent_ebm.scorers import Scorer
from samplers.run_checks import check_finite

UNKNOWN_WORDS = "words that are not known"  # how the warning of a tokenizer begins


@contextmanager
def warned() -> Iterator[None]:
    """Without warnings of unknown words, because ``check_drawing`` has given them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=UNKNOWN_WORDS)
        yield


def audit_model(
    source: str,
    folder: str,
    prompts: str,
    num: int,
    *,
    steps: int | None,
    guidance: float | None,
    terms: str | None,
    unsafe: str | None,
    threshold: float,
    attributes: Sequence[Sequence[str]],
    reference: str | None,
    held_out: str | None,
    key: str | None,
    scorer: str | None,
    seed: int,
    trust: Sequence[str],
) -> None:
    """Write ``report.html`` and ``metrics.json`` to the new ``folder``.

    Args:
        source: A checkpoint, or a folder of a text-to-image model.
        folder: The folder to write.
        prompts: A file with a prompt per line.
        num: Number of pictures of each prompt.
        steps: Number of steps of the sampler; None: that of the model.
        guidance: Weight of guidance; None: that of the model.
        terms: A file with a term per line, of prompts that are refused.
        unsafe: The folder of a classifier of safe and unsafe pictures.
        threshold: The least probability of unsafe that is refused.
        attributes: Folders of classifiers, each followed by the names of its classes.
        reference: A folder of training pictures.
        held_out: A folder of pictures that were not trained on.
        key: A file with the key of a watermark.
        scorer: The folder of a scorer of alignment.
        seed: Seed of the noise.
        trust: Packages whose classes a checkpoint may use.

    Raises:
        ValueError: If ``source`` holds no text-to-image model, it refuses a prompt, or a file
            does not hold what it should.
    """
    out = check_folder(check_new(Path(folder)))
    texts = read_lines(prompts, "--prompts")
    check_prompts(texts)
    judge = None if terms is None else Terms(read_lines(terms, "--terms"))
    model = read_model(source, out, trust)
    secret = None if key is None else read_key(key, model)
    check_drawing(model, texts, guidance, steps)
    given = Evidence(
        judge,
        None if scorer is None else read_scorer(scorer, texts, model),
        None if unsafe is None else read_filter(unsafe, threshold, model),
        [read_attribute(words, model) for words in attributes],
        read_pictures(reference, held_out, model),
        secret,
    )
    generator = torch.Generator().manual_seed(seed)
    with applied(source):
        x = draw(model, texts, num, guidance, steps, generator)
        check_finite("images", x.flatten(0, 1), f"the weights of {source} may have diverged")
        audit = Audit(texts, x, facts(source, model, seed, guidance, steps))
        audit.add_text_differences(effects_of_text(model, texts, num, guidance, generator))
        found = None
        if secret is not None and model.sampler.is_deterministic:
            found = noise_p_values(model, texts, guidance, steps, secret, generator)
    measure(audit, given, generator)
    if found is not None:
        audit.add_noise_watermark(found)
    audit.write(out)
    print(f"{num} for each prompt: {out / 'report.html'}")


def facts(
    source: str, model: TextToImage, seed: int, guidance: float | None, steps: int | None
) -> dict[str, str | float]:
    """What the report says of the model, and of how it draws."""
    return {
        "model": source,
        "version of latent-ebm": metadata.version("latent-ebm"),
        "seed": seed,
        "guidance": model.guidance if guidance is None else guidance,
        "steps": model.sampler.num_steps if steps is None else steps,
    }


def measure(audit: Audit, given: Evidence, generator: torch.Generator) -> None:
    """All that the evidence allows."""
    if given.scorer is not None:
        audit.add_alignment(scores(given.scorer, audit.prompts, audit.x))
    if given.terms is not None:
        audit.judge_prompts(given.terms)
    if given.unsafe is not None:
        audit.judge_pictures(given.unsafe.images)
    for attribute in given.attributes:
        audit.represent(*attribute, generator=generator)
    if given.pictures is not None:
        audit.compare(*given.pictures)
    if given.key is not None:
        audit.find_watermark(given.key)


def check_drawing(
    model: TextToImage, prompts: Sequence[str], guidance: float | None, steps: int | None
) -> None:
    """Raise ``ValueError`` for a prompt, weight of guidance or number of steps that ``model``
    refuses. Warns of unknown words, once.
    """
    told = model.conditioner(model.conditioner.tokens(prompts))
    model.guided(told, model.guidance if guidance is None else guidance, None)
    if steps is not None:
        replace(model.sampler, num_steps=steps)


def draw(
    model: TextToImage,
    prompts: Sequence[str],
    num: int,
    guidance: float | None,
    steps: int | None,
    generator: torch.Generator,
) -> Tensor:
    """Pictures (prompts, num, C, H, W)."""
    with warned():
        return torch.stack(
            [
                model.generate([prompt], num, guidance, steps, generator=generator)
                for prompt in tqdm(prompts, desc="drawing", unit="prompt")
            ]
        )


@torch.no_grad()
def scores(scorer: Scorer, prompts: Sequence[str], x: Tensor) -> Tensor:
    """How well each picture of ``x`` (prompts, num, C, H, W) shows its prompt (prompts, num)."""
    pairs = zip(prompts, x, strict=True)
    return torch.stack([scorer.score_matrix([prompt], pictures)[0] for prompt, pictures in pairs])


@torch.no_grad()
def effects_of_text(
    model: TextToImage,
    prompts: Sequence[str],
    num: int,
    guidance: float | None,
    generator: torch.Generator,
) -> Tensor:
    """How far each prompt moves the first step (prompts,), the mean over ``num`` times the same
    noise.
    """
    x_T = initial_noise(model.denoiser, num, model.latent_shape, generator=generator)
    weight = model.guidance if guidance is None else guidance
    values = []
    with warned():
        encoded = model.conditioner.encode(prompts)
    for i in range(len(prompts)):
        told = encoded.rows(torch.full((num,), i))
        null = told.unknown()
        if model.weights is not None:
            told, null = (at_weight(each, weight, num) for each in (told, null))
        found = text_difference(
            model.denoiser, model.sampler, x_T, told, null, generator=generator
        )
        values.append(found.mean())
    return torch.stack(values)


@torch.no_grad()
def noise_p_values(
    model: TextToImage,
    prompts: Sequence[str],
    guidance: float | None,
    steps: int | None,
    key: bytes,
    generator: torch.Generator,
) -> Tensor:
    """P-values (prompts,) of the watermark in pictures that are drawn from marked noise, one of
    each prompt, and inverted without the prompt.
    """
    sampler = replace(model.sampler, num_steps=steps or model.sampler.num_steps)
    null = model.conditioner.unknown(1)
    if model.weights is not None:
        null = at_weight(null, model.weights[0], 1)
    found = []
    for prompt in tqdm(prompts, desc="inverting", unit="prompt"):
        noise = watermarked_noise(1, model.latent_shape, key, generator=generator)
        x_T = model.denoiser.schedule(noise.new_ones(()))[1] * noise
        with warned():
            x = model.generate([prompt], 1, guidance, steps, x_T=x_T, generator=generator)
        z = x if model.autoencoder is None else model.autoencoder.encode(x, generator=generator)
        path = inversion_path(partial(model.denoiser, **null), sampler, z)
        found.append(detect_noise_watermark(path[0], key))
    return torch.cat(found)
