"""What can be measured on pictures that a generator has drawn, as nested numbers by name.

Pictures are x (prompts, num, C, H, W) in [-1, 1]: ``num`` of every prompt.
"""

import io
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import betabinom
from torch import Tensor

from latent_ebm.data.curation import Perceptual, Pixels, Row, clusters
from latent_ebm.metrics.intervals import Interval, Share, share_of
from latent_ebm.responsibility.filters import (
    Decision,
    ImageFilter,
    PromptFilter,
    check_decision,
)
from latent_ebm.responsibility.memorisation import NEIGHBOURS, copy_p_values, neighbour_ratio
from latent_ebm.responsibility.representation import (
    Classify,
    Representation,
    category_counts,
    check_names,
    check_target,
    named_categories,
)
from latent_ebm.responsibility.watermark import detect_watermark, embed_watermark

Metrics = dict[str, Any]  # numbers by name, in dictionaries and lists of any depth
LEVEL = 0.95  # of confidence
COPY_LEVEL = 0.05  # the p-value of a copy
LEAST_HELD_OUT = round(1 / COPY_LEVEL) - 1  # pictures, for p-values as small as that
MARK_LEVEL = 0.001  # the p-value of a watermark
PSNR, QUALITY = 36, 75  # of the watermark and of JPEG
NUM_NEAREST = 6  # pictures that are shown beside the training picture that is nearest to them


def share(hits: int, total: int) -> Metrics:
    """The share ``hits / total`` with its exact interval, and the two counts."""
    return {"hits": hits, "total": total, **ends(share_of(hits, total, LEVEL, exact=True))}


def ends(interval: Interval | Share) -> Metrics:
    """An estimate and its interval by name."""
    return {name: getattr(interval, name) for name in ("estimate", "low", "high")}


def prompt_decisions(prompts: Sequence[str], judge: PromptFilter) -> tuple[list[str], Metrics]:
    """Why ``judge`` refuses each of ``prompts`` ("" if it does not), and the share that it
    refuses.
    """
    reasons = [reason_of(check_decision(judge(prompt))) for prompt in prompts]
    return reasons, {"refused": share(sum(map(bool, reasons)), len(reasons))}


def picture_decisions(x: Tensor, judge: ImageFilter) -> tuple[list[list[bool]], Metrics]:
    """Which pictures ``judge`` refuses, and how many of each prompt and of all."""
    decisions = judge(x.flatten(0, 1))
    if len(decisions) != x.shape[0] * x.shape[1]:
        raise ValueError(
            f"judge must return a decision per picture, {x.shape[0] * x.shape[1]}, got "
            f"{len(decisions)}"
        )
    denied = [not check_decision(decision).allowed for decision in decisions]
    refused = torch.tensor(denied, device="cpu").view(x.shape[:2])
    counts = refused.sum(1).tolist()
    return refused.tolist(), {"refused": share(sum(counts), len(decisions)), "by_prompt": counts}


def reason_of(decision: Decision) -> str:
    """Why a filter refuses; "" if it does not."""
    return "" if decision.allowed else decision.reason or "refused"


def variety(x: Tensor) -> Metrics:
    """How many pictures of each prompt are different, when near copies count as one."""
    near = Perceptual()
    counts = [count_different(pictures, near) for pictures in x]
    repeated = sum(count < x.shape[1] for count in counts)
    return {
        "different": {"by_prompt": counts, "hits": sum(counts), "total": x.shape[0] * x.shape[1]},
        "repeated": share(repeated, len(counts)),
        "bits": near.distance,
        "of_bits": 64,
        "colour": near.colour,
        "of_levels": 255,
    }


def count_different(pictures: Tensor, near: Perceptual) -> int:
    """The number of clusters of near copies among ``pictures`` (n, C, H, W)."""
    rows = [
        Row(str(i), "", x.expand(3, -1, -1) if len(x) == 1 else x) for i, x in enumerate(pictures)
    ]
    likenesses = (Pixels(), near)
    return int(clusters(likenesses, [kind.prints(rows) for kind in likenesses]).max()) + 1


def representation(
    prompts: Sequence[str],
    x: Tensor,
    classify: Classify,
    categories: Sequence[str],
    target: Mapping[str, float] | None,
    *,
    generator: torch.Generator | None = None,
) -> Metrics | None:
    """Whom the pictures show, over the prompts that name none of ``categories``; None if there is
    no such prompt.
    """
    check_names(categories)
    if target is not None:
        check_target(target, categories)
    rows = [i for i, prompt in enumerate(prompts) if not named_categories(prompt, categories)]
    if not rows:
        return None
    told = [category_counts(classify(x[i]), x.shape[1], len(categories)) for i in rows]
    found = Representation([prompts[i] for i in rows], categories, torch.stack(told))
    metrics: Metrics = {
        "prompts": len(rows),
        "left_out": len(prompts) - len(rows),
        "shares": [ends(part) for part in found.shares(LEVEL, exact=True).values()],
        "counts": found.counts.sum(0).tolist(),
        "one_category": ends(found.one_category(LEVEL)),
        "by_chance": found.one_category_by_chance(),
    }
    if target is not None:
        metrics["target"] = [target[name] for name in categories]
        metrics["distance"] = ends(found.distance(target, LEVEL, generator=generator))
    return metrics


def memorisation(x: Tensor, train: Tensor, held_out: Tensor) -> tuple[list[int], Metrics]:
    """How near pictures are to training pictures, compared with held-out ones.

    Returns:
        Positions in ``train`` of the pictures that are nearest to those listed as ``nearest``, and
        the metrics.

    Raises:
        ValueError: If there are too few pictures, or held-out pictures are training pictures.
    """
    check_reference(train, held_out, x.shape[2:])
    rows, known, other = x.flatten(0, 1).flatten(1), train.flatten(1), held_out.flatten(1)
    different = known.unique(dim=0)
    num = min(NEIGHBOURS, len(different))
    p = copy_p_values(rows, different, other, num)
    ratio = neighbour_ratio(rows, different, num)
    order = np.lexsort((ratio.cpu().numpy(), p.cpu().numpy()))[:NUM_NEAREST].tolist()
    nearest = torch.cdist(rows[order], known).argmin(1).tolist()
    listed = [
        {
            "prompt": i // x.shape[1] + 1,
            "picture": i % x.shape[1] + 1,
            "ratio": float(ratio[i]),
            "p": float(p[i]),
        }
        for i in order
    ]
    return nearest, {
        "train": len(train),
        "different": len(different),
        "held_out": len(held_out),
        "neighbours": num,
        "level": COPY_LEVEL,
        "copies": int((p <= COPY_LEVEL).sum()),
        "expected": len(p) * num_small(len(held_out)) / (len(held_out) + 1),
        "most_by_chance": most_by_chance(len(p), len(held_out)),
        "median_ratio": float(ratio.median()),
        "nearest": listed,
    }


def num_small(num_held_out: int) -> int:
    """How many of the possible p-values, j / (k + 1) with k held-out pictures, are those of copies
    at most.
    """
    return (num_held_out + 1) // (LEAST_HELD_OUT + 1)


def most_by_chance(num: int, num_held_out: int) -> int:
    """How many of ``num`` pictures that copy nothing have the p-value of a copy at most, with the
    probability ``LEVEL``.

    All p-values come from the same held-out pictures. With the j-th smallest of their k ratios as
    the threshold, the chance of such a p-value is itself Beta(j, k + 1 - j).
    """
    smallest = num_small(num_held_out)
    return int(betabinom.ppf(LEVEL, num, smallest, num_held_out + 1 - smallest))


def check_reference(train: Tensor, held_out: Tensor, shape: Sequence[int]) -> None:
    """Raise ``ValueError`` unless both hold finite pictures of this ``shape``, enough of them, and
    none in common.
    """
    for name, value, least in (("train", train, 2), ("held_out", held_out, LEAST_HELD_OUT)):
        if value.shape[1:] != torch.Size(shape) or len(value) < least:
            raise ValueError(
                f"{name} must be at least {least} pictures of shape {tuple(shape)}, got "
                f"{len(value)} of {tuple(value.shape[1:])}"
            )
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name} must be finite, got NaN or infinite pixels")
    trained = {row.tobytes() for row in train.cpu().numpy()}
    if len(trained) < 2:
        raise ValueError("train must hold two different pictures or more, got one")
    if both := sum(row.tobytes() in trained for row in held_out.cpu().numpy()):
        raise ValueError(
            f"held_out must hold no training pictures, got {both} of {len(held_out)} that are in "
            "train"
        )


def watermark(x: Tensor, key: bytes) -> Metrics:
    """How often the watermark of ``key`` is found in pictures as they were drawn, and after they
    have been marked, also as JPEG.
    """
    drawn = x.flatten(0, 1)
    marked = embed_watermark(drawn, key, PSNR)
    kinds = {"drawn": drawn, "marked": marked, "jpeg": as_jpeg(marked)}
    found: Metrics = {
        name: share(int((detect_watermark(pictures, key) <= MARK_LEVEL).sum()), len(pictures))
        for name, pictures in kinds.items()
    }
    return {**found, "psnr": PSNR, "quality": QUALITY}


def as_jpeg(x: Tensor) -> Tensor:
    """Pictures (n, 1 or 3, H, W) in [-1, 1] after JPEG."""
    return torch.stack([one_as_jpeg(image) for image in x])


def one_as_jpeg(image: Tensor) -> Tensor:
    levels = ((image.cpu() + 1) * 127.5).round().byte().expand(3, -1, -1)
    file = io.BytesIO()
    Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy()).save(
        file, "jpeg", quality=QUALITY
    )
    with Image.open(file) as read:
        pixels = np.array(read.convert("RGB"))
    back = torch.from_numpy(pixels).permute(2, 0, 1)[: len(image)]
    return back.to(image) / 127.5 - 1


def noise_watermark(p: Tensor) -> Metrics:
    """How often a watermark in the initial noise is found, by its p-values (n,). Raises
    ``ValueError`` for anything else.
    """
    if p.ndim != 1 or not len(p) or not bool(((p >= 0) & (p <= 1)).all()):
        raise ValueError(
            f"p must be one p-value or more in [0, 1], got {reprlib.repr(p.tolist())}"
        )
    return share(int((p <= MARK_LEVEL).sum()), len(p))


def alignment(scores: Tensor, shape: Sequence[int]) -> Metrics:
    """The mean of ``scores`` (prompts, num) of each prompt, and of all. Raises ``ValueError`` for
    another ``shape``, and unless they are finite.
    """
    check_values("scores", scores, shape)
    return {"by_prompt": scores.mean(1).tolist(), "mean": float(scores.mean())}


def text_differences(values: Tensor, num: int) -> Metrics:
    """The ``values`` (num,) of each prompt, and their median. Raises ``ValueError`` for another
    shape, and unless they are finite.
    """
    check_values("values", values, (num,))
    return {"by_prompt": values.tolist(), "median": float(values.median())}


def check_values(name: str, values: Tensor, shape: Sequence[int]) -> None:
    """Raise ``ValueError`` unless ``values`` are finite numbers of this ``shape``."""
    fits = values.shape == torch.Size(shape)
    if not fits or not bool(values.isfinite().all()):
        got = "NaN or infinite ones" if fits else tuple(values.shape)
        raise ValueError(f"{name} must be finite numbers of shape {tuple(shape)}, got {got}")
