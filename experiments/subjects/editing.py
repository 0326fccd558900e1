"""Pictures of subjects on emoji that are inverted and drawn again, or get another subject (HiFi
Tuner, arXiv:2312.00079).
"""

from collections.abc import Sequence
from dataclasses import replace as changed
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.pictures import pack
from experiments.subjects.judging import GUIDANCE, Asked, Judge, means
from experiments.subjects.tuning import ROWS_ALONE, Case, cases, draw, learn_rows
from experiments.text_to_image.judging import share
from latent_ebm.applications import TextToImage
from latent_ebm.applications.replacement import replace
from latent_ebm.data import Subjects
from latent_ebm.data.portrait import Portrait
from latent_ebm.guidance import NullText, inversion_path, null_text

INVERTED, STEPS, WEIGHT = 12, (5, 15, 50), 3.0  # pictures; steps of DDIM; weight of guidance
KEPT = {"maps kept": 1.0, "maps of its own": 0.0}  # shares of the steps
ANEW, WITH_NULLS = "drawn anew", "guided, trained nulls"
LEARNED = ROWS_ALONE["+ step-wise"]
SETTINGS = [INVERTED, STEPS, WEIGHT, KEPT, LEARNED, GUIDANCE]


def invert_all(model: TextToImage, judge: Judge, seed: int) -> dict[str, dict[str, float]]:
    """Root mean squared errors of pictures that are inverted and drawn again, by their names."""
    generator = torch.Generator().manual_seed(seed)
    asked = judge.asked(turned=False)
    rows = torch.randperm(len(asked), generator=generator)[:INVERTED].tolist()
    portraits = [asked[row].portrait for row in rows]
    x = torch.stack([judge.studio.render(portrait) for portrait in portraits])
    captions = [judge.caption(portrait, by_name=True) for portrait in portraits]
    found: dict[str, dict[str, float]] = {}
    for num_steps in STEPS:
        for name, drawn in drawn_again(model, x, captions, num_steps).items():
            error = (drawn - x).square().mean().sqrt().item()
            found.setdefault(name, {})[f"{num_steps} steps"] = error
    return found


def drawn_again(
    model: TextToImage, x: Tensor, captions: Sequence[str], num_steps: int
) -> dict[str, Tensor]:
    """What becomes of pictures ``x`` (n, C, H, W) without guidance, with it, and with trained
    nulls.
    """
    sampler = changed(model.sampler, num_steps=num_steps)
    told, null = model.conditioner.encode(captions), model.conditioner.unknown(1)
    path = inversion_path(partial(model.denoiser, **told), sampler, x)
    nulls = null_text(model.denoiser, sampler, path, told, null, WEIGHT)
    held = NullText(model.denoiser, WEIGHT, sampler.times(x)[:-1], nulls)
    again = partial(model.generate, captions, num_steps=num_steps, x_T=path[0])
    with torch.no_grad():
        exact = sampler.sample(partial(held, **told), path[0]).clamp(-1, 1)  # as the others
    return {"no guidance": again(guidance=1), "guided": again(guidance=WEIGHT), WITH_NULLS: exact}


def replace_all(model: TextToImage, data: Subjects, judge: Judge, seed: int) -> dict[str, Any]:
    """What stands in pictures of other subjects after each subject of the seed was put there."""
    found: dict[str, list[dict[str, float]]] = {}
    shown = []
    for case in cases(data, judge, seed):
        old = [one.portrait._replace(glyph=other(model, judge, case)) for one in case.asked]
        drawn = ways(model, judge, case, old, seed)
        for name, x in drawn.items():
            found.setdefault(name, []).append(judge_case(judge, case.asked, old, x))
        first = [judge.studio.render(old[0]), judge.studio.reference(case.asked[0].portrait)]
        shown.append(torch.stack([*first, *(x[0] for x in drawn.values())]))
    return {**means(found), "samples": pack(torch.stack(shown, 1).flatten(0, 1))}


def other(model: TextToImage, judge: Judge, case: Case) -> int:
    """The next subject that looks different in both poses, is seen on the same backgrounds, and
    whose class has as many tokens.
    """
    studio, first = judge.studio, case.asked[0].portrait
    grounds = [one.portrait.background for one in case.asked]

    def length(glyph: int) -> int:
        tokens = model.conditioner.tokens([studio.kind(first._replace(glyph=glyph))])["tokens"]
        return int(model.conditioner.encoder.tokenizer.shown(tokens).sum())

    for step in range(1, len(studio.glyphs)):
        glyph = (case.glyph + step) % len(studio.glyphs)
        fits = judge.distinct[glyph] and studio.visible[glyph, grounds].all()
        if fits and length(glyph) == length(case.glyph):
            return glyph
    raise ValueError(f"no subject can stand where {case.word} is")


def ways(
    model: TextToImage, judge: Judge, case: Case, old: Sequence[Portrait], seed: int
) -> dict[str, Tensor]:
    """The subject in the place of ``old`` ones, and drawn with nothing but the prompt."""
    subject = learn_rows(model, case, seed, **LEARNED)
    found = {}
    for name, kept in KEPT.items():
        x = [
            replace(
                model,
                judge.studio.render(portrait),
                judge.caption(portrait),
                judge.caption(one.portrait),
                subject,
                GUIDANCE,
                kept=kept,
            )
            for portrait, one in zip(old, case.asked, strict=True)
        ]
        found[name] = torch.stack(x)
    return {**found, ANEW: draw(model, judge, case, subject)}


def judge_case(
    judge: Judge, asked: Sequence[Asked], old: Sequence[Portrait], x: Tensor
) -> dict[str, float]:
    """The metrics of ``Judge``; how often the old subject has a larger correlation than the new
    one; and the root mean squared change outside of both.
    """
    scores, rows = judge.parser.correlations(x).amax(2), torch.arange(len(x))
    new = torch.tensor([one.portrait.glyph for one in asked])
    before = torch.tensor([portrait.glyph for portrait in old])
    pictures = torch.stack([judge.studio.render(portrait) for portrait in old])
    taken = [
        judge.studio.mask(portrait, "dilated").maximum(judge.studio.mask(one.portrait, "dilated"))
        for portrait, one in zip(old, asked, strict=True)
    ]
    outside = (1 - torch.stack(taken)).expand_as(x).bool()
    return {
        **judge(x, asked),
        "old": share(scores[rows, before] > scores[rows, new]),
        "change": (x - pictures)[outside].square().mean().sqrt().item(),
    }
