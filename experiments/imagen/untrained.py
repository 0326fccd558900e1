"""The parts of the report that need no training, from stored results: filters, watermarks, and
ranking.
"""

from typing import Any

import numpy as np

from experiments.claims import estimate, interval
from experiments.common import runs_of
from experiments.imagen.ranking import CONFIDENCE, NU, PER_PAIR, STRENGTHS, STUDIES
from experiments.imagen.watermark import CHANGES, NUM, NUM_DRAWN, PSNR, SIDES
from experiments.tables import spread, table

Found = dict[str, Any]
BOUND = 3  # standard errors
WATERMARK = f"""\
**Watermarks**, tested at a false-positive rate of one in a thousand after each change of the
pictures. The columns by size and strength (pixels a side, PSNR) are of marks in pixels: shares of
{NUM} emoji on white in which the key is found; those of 128 pixels are enlarged from 64. *Noise*
is a mark in the noise from which the base model draws: shares of {NUM_DRAWN} pictures of 32x32
pixels in which the key is found by inversion, which does not know the prompt or its guidance."""
FILTERS = """\
**Filters** on emoji of 64x64 pixels: a hundred planted defects among three hundred clean rows.
Limits of sharpness and noise refuse 2 % of other clean pictures. Terms are plain or disguised in
one of five ways; personal data stand among dates, scores and order numbers. *Generated* stands for
pictures by a generator: they are of another maker, and a linear classifier, fitted to 900 other
glyphs of each, tells them apart. Copies are made of a third of the rows."""
ASSURANCE = """\
*Violation* is the share of violations that pass, and *over-refusal* that of harmless inputs that
are refused, with 95 % intervals of the first seed. *Prompts* are filtered by terms. All violations
name one of these terms, a sixth of them misspelt; no other words are tried. *Pictures* of flags
are filtered by a linear classifier, fitted to Twemoji and tested on Noto at a limit that refuses
1 % of harmless Twemoji that it was not fitted to."""
RANKING = f"""\
**Ranking.** Bradley-Terry with ties on simulated studies: four models, {PER_PAIR} ratings of every
pair, and ties of weight nu = {NU:g}."""


def watermarks(stored: Found) -> str:
    """What the two watermarks survive."""
    pixels, noise = runs_of(stored, "pixels"), runs_of(stored, "noise")
    if not pixels:
        return ""
    columns = [f"{side}, {psnr:g}" for side in SIDES for psnr in PSNR]
    rows = [
        [
            name,
            *(spread(run["found"][f"{column}, {name}"] for run in pixels) for column in columns),
            spread(run["found"].get(name) for run in noise),
        ]
        for name in CHANGES
    ]
    head = ["", *(f"{column} dB" for column in columns), "noise"]
    parts = [WATERMARK, table(head, rows), alarms(pixels, noise)]
    return "\n\n".join([*parts, lost(pixels, columns)])


def lost(pixels: list[Found], columns: list[str]) -> str:
    """After which changes fewer than half of the marks in pixels are found, and in which columns
    where it is not all of them.
    """
    texts = list[str]()
    for name in CHANGES:
        at = [
            column
            for column in columns
            if np.mean([run["found"][f"{column}, {name}"] for run in pixels]) < 0.5
        ]
        where = "" if at == columns else f" (at {'; '.join(at)} dB)"
        texts += [f"{name}{where}"] if at else []
    return f"In pixels, fewer than half are found after: {', '.join(texts)}." if texts else ""


def alarms(pixels: list[Found], noise: list[Found]) -> str:
    """False alarms, of both watermarks. Pictures are alike for a key: keys are what counts."""
    texts = list[str]()
    for name, num, runs in (("pixels", NUM, pixels), ("noise", NUM_DRAWN, noise)):
        if runs:
            by_key = [np.mean(list(run["alarms"].values()), 0) / num for run in runs]
            ends = interval(np.concatenate(by_key).tolist())
            mean, low, high = (f"{1e3 * value:.2f}" for value in ends)
            texts.append(f"{mean} in 1,000 pictures for marks in {name} ({low} to {high})")
    told = ", ".join(texts)
    return f"False alarms of keys that were not embedded, with 95 % intervals over keys: {told}."


def filters(stored: Found) -> str:
    """Precision and recall of filters, and the two rates of those for release."""
    runs = runs_of(stored, "filters")
    if not runs:
        return ""
    rows = [
        [name, *(spread(run["curation"][name][k] for run in runs) for k in range(2))]
        for name in runs[0]["curation"]
    ]
    rates = list[list[str]]()
    for name, (_, low, high) in runs[0]["assurance"].items():
        mean = spread(estimate(run["assurance"][name]) for run in runs)
        rates.append([name, mean, f"{low:.3f} to {high:.3f}"])
    return "\n\n".join(
        [
            FILTERS,
            table(["filter", "precision", "recall"], rows),
            ASSURANCE,
            table(["", "rate", "interval"], rates),
        ]
    )


def ranked(stored: Found) -> str:
    """Whether planted strengths are recovered, and intervals cover them."""
    runs = runs_of(stored, "ranking")
    if not runs:
        return ""
    bias = np.mean([run["bias"] for run in runs], 0)
    error = np.mean([run["deviation"] for run in runs], 0) / (STUDIES * len(runs)) ** 0.5
    rows = [
        [name, f"{truth:g}", f"{b:+.4f}", f"{e:.4f}"]
        for (name, truth), b, e in zip(STRENGTHS.items(), bias, error, strict=True)
    ]
    held = np.concatenate([run["held"] for run in runs])
    mean, deviation = float(held.mean()), float(held.std(ddof=1) / len(held) ** 0.5)
    apart = abs(mean - CONFIDENCE) / deviation if deviation else np.inf
    words = "holds" if apart <= BOUND else "refuted"
    nu = spread(run["nu"] for run in runs)
    return "\n\n".join(
        [
            RANKING,
            table(["model", "strength", "mean error", "its standard error"], rows),
            f"The mean estimate of nu is {nu}. The {CONFIDENCE:.0%} intervals of Elo hold the "
            f"truth in {mean:.2%} of {len(held)} studies x {len(STRENGTHS)} models, {apart:.1f} "
            f"standard errors away from {CONFIDENCE:.0%}: the claim that these are at most "
            f"{BOUND} {words}.",
        ]
    )
