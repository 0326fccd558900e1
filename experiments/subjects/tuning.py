"""HiFi Tuner on emoji: one subject is learned from five pictures on one background, and drawn in
other poses on other backgrounds.
"""

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from experiments.pictures import pack
from experiments.subjects.judging import GUIDANCE, Asked, Judge, means
from experiments.text_to_image.judging import share
from latent_ebm.applications import Subject, TextToImage
from latent_ebm.applications.personalization import model_digest
from latent_ebm.applications.tuning import batches, prompts_of, tune
from latent_ebm.conditions import Batch
from latent_ebm.data import Subjects
from latent_ebm.data.portrait import Portrait
from latent_ebm.data.scene import PALETTE
from latent_ebm.guidance import reference_guided
from latent_ebm.guidance.alignment import align
from latent_ebm.guidance.inversion import inversion_path
from latent_ebm.guidance.subject import with_subject
from latent_ebm.learning import Denoising, SubjectTuning, fit_batches
from latent_ebm.text import SubjectConditioner

SHOWN = 2  # subjects in the figure
SUBJECTS, PHOTOS, GROUNDS = 6, 5, 3  # of a seed; of a subject; backgrounds that are asked for
STEPS, REFINING, ROWS, LR = 400, 10, 5, 2e-2
LOG_SNR = (-0.5, 2.4)  # of textual inversion: mean and deviation, as of the model
MODEL_LR, WORD_LR = 2e-4, 5e-3  # of DreamBooth; of textual inversion
WORD = "textual inversion"
ROWS_ALONE: dict[str, dict[str, Any]] = {
    "rows": {"masked": False, "regularization": 0.0, "num_refining": 0},
    "+ mask": {"masked": True, "regularization": 0.0, "num_refining": 0},
    "+ regularisation": {"masked": True, "regularization": 0.01, "num_refining": 0},
    "+ step-wise": {"masked": True, "regularization": 0.01, "num_refining": REFINING},
}
ALL_WEIGHTS = {
    "DreamBooth": {"masked": False, "regularization": 0.0},
    "DreamBooth, mask and regularisation": {"masked": True, "regularization": 0.01},
}
SETTINGS = [SUBJECTS, PHOTOS, GROUNDS, STEPS, REFINING, ROWS, LR, MODEL_LR, GUIDANCE, ROWS_ALONE,
            WORD, WORD_LR, LOG_SNR]  # fmt: skip


class Case(NamedTuple):
    """A subject: its row, its class, five pictures of it, and what is asked for."""

    glyph: int
    word: str
    photos: Batch
    ground: int
    asked: list[Asked]


def cases(data: Subjects, judge: Judge, seed: int) -> list[Case]:
    """The subjects of a seed: upright on one background, and asked for in all poses on others."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(judge.studio.glyphs), generator=generator).tolist()
    good = [i for i in order if judge.distinct[i] and judge.studio.visible[i].sum() > GROUNDS]
    found, corner = [], (judge.studio.side - judge.studio.size) // 2
    for glyph in good[:SUBJECTS]:
        seen = judge.studio.visible[glyph].nonzero()[:, 0]
        first, *others = seen[torch.randperm(len(seen), generator=generator)].tolist()
        name, colours = str(judge.studio.glyphs.names[glyph]), list(PALETTE)
        photos = data.photos(
            name, PHOTOS, pose="upright", background=colours[first], generator=generator
        )
        asked = [
            Asked(Portrait(glyph, pose, corner, corner, ground), 0)
            for pose, ground in product(judge.studio.poses, others[:GROUNDS])
        ]
        found.append(Case(glyph, judge.studio.kind(asked[0].portrait), photos, first, asked))
    return found


def judge_all(model: TextToImage, data: Subjects, judge: Judge, seed: int) -> dict[str, Any]:
    """What every way of tuning draws, in the mean over subjects: metrics of ``Judge``, the share
    of pictures on the background of the photos, and CPU seconds and numbers that are kept.
    """
    found: dict[str, list[dict[str, float]]] = {}
    for k, case in enumerate(cases(data, judge, seed)):
        for name, x, size in ways(model, judge, case, seed):
            found.setdefault(name, []).append({**judge_case(judge, case, x), **size})
        print(f"  subject {k + 1} of {SUBJECTS}", flush=True)
    return means(found)


def ways(
    model: TextToImage, judge: Judge, case: Case, seed: int
) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
    """Every way of tuning: its name, what it draws of a subject, and what it costs."""
    yield "class word alone", draw(model, judge, case, None), {}
    for name, options in ROWS_ALONE.items():
        subject, spent = timed(partial(learn_rows, model, case, seed, **options))
        size = {"seconds": spent, "numbers": subject.rows.numel()}
        yield name, draw(model, judge, case, subject), size
        if name == "+ step-wise":
            x, more = timed(partial(held_to_photos, model, judge, case, subject))
            yield "+ reference", x, {**size, "seconds a picture": more / len(case.asked)}
    (own, numbers), spent = timed(partial(learn_word, model, case, seed))
    yield WORD, draw(own, judge, case, None), {"seconds": spent, "numbers": numbers}
    for name, options in ALL_WEIGHTS.items():
        (own, subject), spent = timed(partial(learn_all, model, case, seed, **options))
        numbers = sum(p.numel() for p in own.parameters())
        yield name, draw(own, judge, case, subject), {"seconds": spent, "numbers": numbers}


def show_cases(model: TextToImage, data: Subjects, judge: Judge, seed: int) -> dict[str, Any]:
    """The first subjects: a row of photos of each beside the subject alone, and a row of what is
    asked for per way of tuning.
    """
    columns = []
    for case in cases(data, judge, seed)[:SHOWN]:
        first = [case.photos.x, judge.studio.reference(case.asked[0].portrait)[None]]
        rows = {name: x for name, x, _ in ways(model, judge, case, seed)}
        columns.append(torch.stack([torch.cat(first), *rows.values()]))
        names = list(rows)
    return {"samples": pack(torch.cat(columns, 1).flatten(0, 1)), "ways": names}


def timed(compute: Callable[[], Any]) -> tuple[Any, float]:
    """What ``compute`` returns, and its CPU seconds."""
    start = time.process_time()
    return compute(), time.process_time() - start


def judge_case(judge: Judge, case: Case, x: Tensor) -> dict[str, float]:
    """The metrics of ``Judge``, and the share of pictures on the background of the photos."""
    leaks = torch.tensor(judge.grounds(x)) == case.ground
    return {**judge(x, case.asked), "leak": share(leaks)}


def prompts(judge: Judge, case: Case) -> list[str]:
    """Captions by the class word."""
    return [judge.caption(one.portrait) for one in case.asked]


def draw(model: TextToImage, judge: Judge, case: Case, subject: Subject | None) -> Tensor:
    """A picture of everything that is asked for; the same noise in every call."""
    generator = torch.Generator().manual_seed(case.glyph)
    texts = prompts(judge, case)
    return model.generate(texts, 1, GUIDANCE, subject=subject, generator=generator)


def learn_rows(model: TextToImage, case: Case, seed: int, masked: bool, **options: Any) -> Subject:
    """Rows of the subject; the model stays as it is."""
    torch.manual_seed(seed)
    masks = case.photos.condition["mask"] if masked else None
    more: dict[str, Any] = {"num_rows": ROWS, "num_shared": STEPS, "lr": LR, **options}
    return tune(model, case.photos.x, case.word, masks, **more)


def learn_word(model: TextToImage, case: Case, seed: int) -> tuple[TextToImage, int]:
    """A model with another embedding of the last word of the class, as a word of its own would
    have (textual inversion, arXiv:2208.01618), and the size of the embedding.
    """
    torch.manual_seed(seed)
    own = deepcopy(model).requires_grad_(False)
    texts = own.conditioner
    tokens = texts.tokens([case.word])["tokens"]
    table = texts.encoder.get_parameter("embedding.weight").requires_grad_()
    this = torch.zeros(len(table), 1)
    this[tokens[texts.encoder.tokenizer.shown(tokens)][-1]] = 1
    table.register_hook(lambda gradient: gradient * this)
    optimizer = partial(torch.optim.Adam, lr=WORD_LR)
    rule = Denoising(
        own.denoiser,  # pyright: ignore[reportArgumentType]
        own.sampler,
        own.latent_shape,
        optimizer,
        log_snr=LOG_SNR,
        conditioner=texts,
        dropout=0.0,
    )
    fit_batches(rule, batches(case.photos.x, None, tokens), STEPS)
    return own.eval(), table.shape[1]


def learn_all(
    model: TextToImage, case: Case, seed: int, masked: bool, regularization: float
) -> tuple[TextToImage, Subject]:
    """A model of its own for the subject, with rows (DreamBooth)."""
    torch.manual_seed(seed)
    own = deepcopy(model).requires_grad_()
    conditioner = SubjectConditioner(own.conditioner, ROWS)
    rule = SubjectTuning(
        own.denoiser,  # pyright: ignore[reportArgumentType]
        conditioner,
        own.sampler,
        own.latent_shape,
        partial(torch.optim.Adam, lr=LR),
        STEPS,
        0,
        regularization,
        MODEL_LR,
    )
    masks = case.photos.condition["mask"] if masked else None
    tokens = prompts_of(conditioner, case.word, ["{}"])
    fit_batches(rule, batches(case.photos.x, masks, tokens), STEPS)
    digest = model_digest(own.conditioner, own.denoiser)
    return own.eval(), Subject(rule.subject, case.word, digest)


def held_to_photos(model: TextToImage, judge: Judge, case: Case, subject: Subject) -> Tensor:
    """What ``draw`` gives, drawn again inside of the mask of each subject that is found there, as
    the first photo shows it.
    """
    x = draw(model, judge, case, subject)
    found, generator = judge.parser(x), torch.Generator().manual_seed(case.glyph)
    told = model.conditioner.encode(prompts(judge, case))
    noise = torch.randn(x.shape, generator=generator)
    sigma = model.denoiser.schedule(torch.ones(()))[1]
    photo, mask = case.photos.x[:1], case.photos.condition["mask"][:1]
    for i, portrait in enumerate(found):
        if portrait is None:
            continue
        target = judge.studio.mask(portrait)[None]
        moved = align(mask, target)
        one = told.rows(slice(i, i + 1))
        denoiser, shown = with_subject(model.denoiser, one, subject.rows, subject.times)
        path = inversion_path(partial(denoiser, **shown), model.sampler, moved.warp(photo))
        x[i : i + 1] = reference_guided(
            denoiser,
            model.sampler,
            sigma * noise[i : i + 1],
            shown,
            one.unknown(),
            GUIDANCE,
            path,
            moved.warp_mask(mask),
        )
    return x.clamp(-1, 1)
