"""Metrics are models too: how often a metric orders two models as the oracle does, the nearest
glyph by all pixels; and where distances of distributions disagree.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from experiments.claims import as_list
from experiments.imagen.canaries import small
from experiments.pictures import pack
from experiments.text_to_image.judging import Draw, Gallery, draw_all
from latent_ebm.evaluation import (
    align_by_questions,
    cmmd,
    contest,
    differences,
    frechet,
    glyph_questions,
    meta_evaluate,
)
from latent_ebm.scorers import Scorer

NUM, CONFIDENCE, COARSE = 75, 0.95, 4  # names of each sort; pixels of what the questions see
SHOWN = 12  # pictures of each model in the figure


def prompts_of(gallery: Gallery) -> tuple[list[str], Tensor]:
    """Names of things and of people, and their rows."""
    rows = torch.cat([gallery.rows()[part][:NUM] for part in ("other", "people")])
    return [str(gallery.glyphs.names[i]) for i in rows.tolist()], rows


@torch.no_grad()
def judge(
    pool: Mapping[str, Draw], scorer: Scorer, gallery: Gallery, device: torch.device
) -> dict[str, Any]:
    """Draw the same prompts by all models of ``pool``, and compare metrics with the oracle."""
    prompts, rows = prompts_of(gallery)
    x = {name: small(draw_all(draw, prompts, device)) for name, draw in pool.items()}
    scores = {key: list[Tensor]() for key in ("oracle", "questions", "contrast")}
    for pictures in x.values():
        top, _ = gallery.nearest(pictures)
        scores["oracle"].append((gallery.art[top[:, 0]] == gallery.art[rows]).double())
        scores["questions"].append(asked(pictures, gallery, rows))
        scores["contrast"].append(scorer(prompts, pictures).double())
    table = {key: torch.stack(found) for key, found in scores.items()}
    found = {
        "models": {k: dict(zip(x, v.mean(1).tolist(), strict=True)) for k, v in table.items()}
    }
    found |= {"pairs": agreement({k: v.mean(1) for k, v in table.items()})}
    found |= {"prompts": agreement(table)}
    return {**found, **distances(x, gallery, scorer)}


def asked(x: Tensor, gallery: Gallery, rows: Tensor) -> Tensor:
    """Alignment (n,) by questions on subject, gender and tone. The parse is the nearest glyph by
    4 x 4 colours alone: a reader with mistakes of its own.
    """
    seen, known = (adaptive_avg_pool2d(part, COARSE).flatten(1) for part in (x, gallery.x))
    parse = torch.cdist(seen, known).argmin(1).tolist()
    soft = [
        align_by_questions(glyph_questions(gallery.glyphs, row), found).soft
        for row, found in zip(rows.tolist(), parse, strict=True)
    ]
    return torch.tensor(soft, dtype=torch.float64)


def agreement(scores: Mapping[str, Tensor]) -> dict[str, Any]:
    """How often the metrics order two models as the oracle, over all pairs; if scores are (models,
    prompts), pair by pair and prompt by prompt, with a bootstrap over prompts.
    """
    truth = differences(scores["oracle"])
    metrics = {k: differences(scores[k]) for k in ("questions", "contrast")}
    num = scores["oracle"][0].numel()
    groups = None if num == 1 else list(range(num)) * (len(truth) // num)
    generator = torch.Generator().manual_seed(0)
    judged = meta_evaluate(
        metrics, truth, confidence=CONFIDENCE, groups=groups, generator=generator
    )
    both = contest(metrics["questions"], metrics["contrast"], truth, confidence=CONFIDENCE)
    found: dict[str, Any] = {name: as_list(result.share) for name, result in judged.items()}
    agreed = None if both.agreed is None else as_list(both.agreed)
    return {**found, "num": int((truth != 0).sum()), "p": both.p_value, "agreed": agreed}


def distances(x: Mapping[str, Tensor], gallery: Gallery, scorer: Scorer) -> dict[str, Any]:
    """Distances of every model's pictures from all glyphs, and the share of pairs of models that
    two of them order differently; the pictures of the pair that they disagree most about.
    """

    def coarse(rows: Tensor) -> Tensor:
        return adaptive_avg_pool2d(rows, COARSE).flatten(1)

    real, see = gallery.x, scorer.image_features
    found = {
        "Frechet, contrast": {name: frechet(real, part, see) for name, part in x.items()},
        "Frechet, colours": {name: frechet(real, part, coarse) for name, part in x.items()},
        "CMMD": {name: cmmd(real, part, see) for name, part in x.items()},
    }
    order = {key: ranks(list(values.values())) for key, values in found.items()}
    apart = dict[str, float]()
    for a, b in combinations(order, 2):
        signs = [differences(order[key]).sign() for key in (a, b)]
        apart[f"{a} / {b}"] = (signs[0] * signs[1] < 0).double().mean().item()
    gap = order["Frechet, contrast"] - order["Frechet, colours"]
    pair = [list(x)[int(gap.argmin())], list(x)[int(gap.argmax())]]
    samples = pack(torch.cat([x[name][:: len(x[name]) // SHOWN][:SHOWN] for name in pair]))
    return {"distances": found, "disagree": apart, "pair": pair, "samples": samples}


def ranks(values: list[float]) -> Tensor:
    """The place (n,) of every value, from 0 for the least."""
    return torch.tensor(values, dtype=torch.float64).argsort().argsort().double()
