"""Planted canaries: how often pictures are near copies of them, and what else was learnt."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from experiments.claims import as_list
from experiments.imagen.corpora import COPIES, OPEN_CANARIES, SIDE, Corpus, canaries
from experiments.pictures import pack
from experiments.text_to_image.judging import Gallery, draw_all, drawing, names, share
from latent_ebm.data.caption_table import read_table
from latent_ebm.responsibility import Canaries, copy_p_values, image_distance, text_difference

DRAWS, NUM_OPEN, NUM_NOISE, LEVEL = 10, 100, 8, 0.05
FIRST = 3  # steps of the difference that the text makes


def small(x: Tensor) -> Tensor:
    """Pictures as a model of 16 pixels sees them."""
    return interpolate(x, (SIDE, SIDE), mode="area")


def judge(
    rule: Any, seed: int, gallery: Gallery, device: torch.device, **options: Any
) -> dict[str, Any]:
    """Shares of pictures that are near copies of canaries, by number of copies: drawn for the
    canary's own prompt, for prompts that it fits with others, and for none; memorisation by its
    other measures; and names.
    """
    draw, spread = drawing(rule, **options), canaries(seed)
    known = Canaries(small(spread.x), spread.prompts, spread.copies)
    limit = threshold(known.x, gallery.x)
    prompts = [prompt for prompt in known.prompts for _ in range(DRAWS)]
    own = draw_all(draw, prompts, device)
    drawn = dict(zip(known.prompts, own.split(DRAWS), strict=True))
    out = known.measure(lambda texts: drawn[texts[0]], image_distance, limit, DRAWS)
    asked = draw_all(draw, [text for text in OPEN_CANARIES for _ in range(NUM_OPEN)], device)
    unasked = draw_all(draw, [""] * 2 * NUM_OPEN, device)
    p = p_values(own, known.x, gallery)
    told = differences(rule, known.prompts, device)
    found: dict[str, Any] = {"threshold": limit, "near, no prompt": near(unasked, known.x, limit)}
    found["near, open prompt"] = near(asked, known.x, limit)
    levels = torch.tensor(list(known.copies))
    for num in COPIES["levels"]:
        of = levels == num
        mine = image_distance(own, known.x.repeat_interleave(DRAWS, 0)) < limit
        found |= {
            f"near, own prompt, {num}": share(mine[of.repeat_interleave(DRAWS)]),
            f"near, open prompt, {num}": near(asked, known.x[of], limit),
            f"near, no prompt, {num}": near(unasked, known.x[of], limit),
            f"came out, {num}": as_list(out[num]),
            f"p below {LEVEL}, {num}": share(p[of.repeat_interleave(DRAWS)] <= LEVEL),
            f"text difference, {num}": told[of].mean().item(),
        }
    ordinary = [str(gallery.glyphs.names[i]) for i in gallery.rows()["other"][:18].tolist()]
    found["text difference, names"] = differences(rule, ordinary, device).mean().item()
    most = (levels == max(COPIES["levels"])).nonzero()[:, 0]
    shown = [known.x[most], *own.view(-1, DRAWS, *own.shape[1:])[most, :2].unbind(1)]
    shown += [x[: len(most)] for x in asked.split(NUM_OPEN)]
    return {**found, **names(draw, gallery, device), "samples": pack(torch.cat(shown))}


def threshold(x: Tensor, glyphs: Tensor) -> float:
    """Half of the least distance of a canary to another picture."""
    between = torch.cdist(x.flatten(1), x.flatten(1)).fill_diagonal_(torch.inf)
    others = torch.cdist(x.flatten(1), glyphs.flatten(1))
    return float(min(between.min(), others.min())) / 2 / x[0].numel() ** 0.5


def near(x: Tensor, known: Tensor, limit: float) -> float:
    """The share of pictures that are near copies of one of those ``known``."""
    distance = torch.cdist(x.flatten(1), known.flatten(1)).min(1).values
    return share(distance / x[0].numel() ** 0.5 < limit)


def p_values(x: Tensor, known: Tensor, gallery: Gallery) -> Tensor:
    """Conformal p-values of copies, against glyphs that were held out."""
    held = torch.zeros(len(gallery.x), dtype=torch.bool)
    held[gallery.held] = True
    train = torch.cat([gallery.x[~held], known])
    return copy_p_values(x.flatten(1), train.flatten(1), gallery.x[held].flatten(1))


def differences(rule: Any, prompts: Any, device: torch.device) -> Tensor:
    """What the text changes in the first steps (n,), over the same noise for every prompt."""
    generator = torch.Generator(device).manual_seed(0)
    noise = torch.randn(NUM_NOISE, *rule.shape, generator=generator, device=device)
    sigma = rule.denoiser.schedule(noise.new_ones(()))[1]
    told = rule.conditioner.encode(list(prompts))
    found = list[Tensor]()
    for i in range(len(prompts)):
        row = told.rows(torch.full((NUM_NOISE,), i, device=device))
        null = rule.conditioner.unknown(NUM_NOISE)
        parts = (rule.denoiser, rule.reverse, sigma * noise, row, null, FIRST)
        found.append(text_difference(*parts).mean().cpu())
    return torch.stack(found)


def found_copies(corpus: Corpus, seed: int) -> dict[str, float]:
    """What curation finds: the weight that all copies of a canary have in the curated table, by
    number of copies, and the share of other rows that share their weight with others.
    """
    lines = read_table(corpus.curated())
    prompts = dict(zip(canaries(seed).prompts, canaries(seed).copies, strict=True))
    weights = {num: list[float]() for num in COPIES["levels"]}
    others = [line.weight != 1 for line in lines if line.caption not in prompts]
    for prompt, num in prompts.items():
        weights[num].append(sum(line.weight or 0 for line in lines if line.caption == prompt))
    means = {f"weight, {num}": sum(found) / len(found) for num, found in weights.items()}
    return {**means, "others merged": sum(others) / len(others)}
