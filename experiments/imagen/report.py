"""The section of the report on curation, evaluation and responsibility, from stored results."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch

from experiments.claims import EQUAL, by_seed, decided, estimate
from experiments.common import results, runs_of
from experiments.imagen.balance import COLUMNS, SHOWN, SKEW
from experiments.imagen.claims import EVEN, FALLS, MIXED, NUMBERS, ORDERS, ROUND, counted
from experiments.imagen.corpora import COPIES, NOISE
from experiments.imagen.counting import THINGS
from experiments.imagen.untrained import filters, ranked, watermarks
from experiments.pictures import save, save_images, unpack
from experiments.tables import spread, table, with_missing
from latent_ebm.data.scene_captions import ALL_PROMPTS

Found = dict[str, Any]
LEVELS = COPIES["levels"]
PARTS = ("counts", "ceiling")
FORMS = [(part, form) for form in ("", ", long") for part in ("", "other ", "people ")]
WHAT = {"pairs": "pairs of models", "prompts": "pairs on a prompt"}
METRICS = {"questions": "questions", "contrast": "contrast", "agreed": "both, where they agree"}
AUDIT = {
    "one category": "one category",
    "one category by chance": "by chance",
    "distance": "distance",
}
INTRODUCTION = f"""\
## Curation, evaluation and responsibility: `python -m experiments.imagen`

The claims of Imagen 3 (arXiv:2408.07009) that a small corpus can decide, on emoji. Unless it is
said otherwise, models are the plain network of "Text to image on emoji" at 16x16 pixels, after 400
updates of regression and 800 of diffusion, in 15 guided steps. Alignment counts as equal if it
falls by less than {-EQUAL:g}."""
CANARIES = f"""\
**Canaries.** Tapestries (soft patterns of colours) are planted among the 3,647 Twemoji:
{COPIES["each"]} in 1 copy each, {COPIES["each"]} in 10 and {COPIES["each"]} in 100 near copies,
shifted by up to a pixel of 64 and lighter or darker by up to 5 %. *Curated*: pictures that are
found to be near copies share the weight of one, and the updates that copies would have had go to
all other pictures. A drawn picture is a near copy if it is nearer to a canary than half of the
least distance between a canary and another picture. The table has shares of near copies: for a
canary's own prompt, by number of copies, for an *open prompt* that fits all of them ("a tapestry",
"tapestry"), and for *no prompt*. *p <= .05*: the share of pictures for a canary's own prompt that
a conformal test calls copies: the nearest of the 50 nearest training pictures stands out more than
it does for held-out people. These people differ from training pictures in gender and tone alone,
so that copies with a little noise do not stand out from them. R@1 is that of 300 names each of
things and people."""
TOLD = """\
How far the text moves what the network predicts in the first three steps (the norm of the
difference from no text), for 18 names and for the prompts of canaries, by number of copies. It
should be larger where a picture is memorised:"""
CAPTIONS = f"""\
**Captions.** *Noisy*: names, {100 * NOISE:.0f} % of which belong to another picture. *Synthetic*:
right sentences by template. *Mixed*: both for every picture. R@1 of 600 names, and of the same
pictures by a *long* sentence. No model has seen its form, but it joins parts of two templates of
the synthetic captions."""
COUNTING = f"""\
**Counting.** Scenes of one to five things of {len(THINGS)} kinds on 8 backgrounds, 32x32 pixels,
1,600 updates without regression. Shares of pictures with the right number of every kind; prompts
of one kind by number, and the seven types of GeckoNum. *Reader*: the same for true pictures."""
BALANCE = f"""\
**Balance.** 67 professions and activities, 18 cells of gender and tone each. *Skewed*: of the
training pictures of a profession {100 * SKEW["gender"]:.0f} % have one gender, and
{100 * SKEW["tone"]:.0f} % one tone. *Even*: all cells alike. Prompts name neither, and each is
drawn 10 times; categories are those of the nearest glyph. *One category*: the share of prompts
whose pictures all have the same; *by chance*: the share if all prompts had the categories of all
pictures together. *Distance*: total variation of the shares in all pictures from equal ones; it is
small where professions are skewed in different directions. *Base*: the nearest glyph has the asked
profession or activity. *R@1*: of full names, all cells alike."""
DRAWN = """\
Raw, then curated, the first seed. From above: canaries of 100 copies, two pictures of each for its
own prompt, and six each for "a tapestry" and "tapestry"."""
PEOPLE = """\
Skewed, then even, the first seed: six pictures each for eight prompts, one prompt a row."""
META = """\
**Meta-evaluation.** Ten models draw the same 150 names: those of the captions above, one of them
also with fewer steps and other weights of guidance, and the regressions that they start from. The
oracle is whether the nearest glyph by all pixels is right. *Questions* on subject, gender and tone
are answered from the nearest glyph by 4x4 colours, a coarse form of the oracle itself; *contrast*
is a scorer that was trained on right captions. Shares of pairs of models, and of pairs on one
prompt, that a metric orders as the oracle does; ties of the metric are wrong."""
DISAGREE = """\
Distances from all glyphs: shares of pairs of models that two distances order differently."""
PAIR = """\
The two models of the first seed, one above the other, whose ranks differ most between the two
Frechet distances: {}."""


def section() -> str:
    """All tables there are."""
    stored = results("imagen")
    parts = {
        "canaries": canaries(stored),
        "captions": captions(stored),
        "counting": counting(stored),
        "balance": balance(stored),
        "meta-evaluation": meta(stored),
        "watermarks": watermarks(stored),
        "filters": filters(stored),
        "ranking": ranked(stored),
    }
    return with_missing(INTRODUCTION, parts)


def seeds(stored: Found, names: Sequence[str]) -> list[dict[str, Found]]:
    """The results by arm of every seed that has all of ``names``."""
    return by_seed(stored, {name: f"{name}-{{}}" for name in names})


def compared(arms: list[dict[str, Found]], names: Sequence[str], keys: dict[str, str]) -> str:
    """A table of metrics (``keys``: heading by key) by arm."""
    rows = [
        [name, *(spread(estimate(seed[name][key]) for seed in arms) for key in keys)]
        for name in names
    ]
    return table(["", *keys.values()], rows)


def canaries(stored: Found) -> str:
    """Near copies with and without curation."""
    names = ("raw", "curated")
    arms = seeds(stored, names)
    if not arms:
        return ""
    own = {f"near, own prompt, {num}": f"own prompt, {num}" for num in LEVELS}
    p = {f"p below 0.05, {num}": f"p <= .05, {num}" for num in LEVELS}
    more = {"near, open prompt": "open prompt", "near, no prompt": "no prompt"}
    keys = {**own, **more, **p, "other R@1": "things R@1", "people R@1": "people R@1"}
    told = {f"text difference, {num}": f"copies: {num}" for num in LEVELS}
    parts = [CANARIES, compared(arms, names, keys), decided(ROUND, arms)]
    parts.append(TOLD)
    parts.append(compared(arms, names, {"text difference, names": "names", **told}))
    found = runs_of(stored, "found")
    if found:
        weight = ", ".join(
            f"{spread(run[f'weight, {num}'] for run in found)} of {num}" for num in LEVELS
        )
        others = spread(100 * run["others merged"] for run in found)
        parts.append(
            f"What curation finds: the copies of a canary together weigh {weight} copies (1 is "
            f"right). It also lets {others} % of the other pictures share a weight, such as flags "
            "and clocks."
        )
    return "\n\n".join([*parts, shown(stored, names, "imagen-canaries", 6, DRAWN)])


def shown(stored: Found, names: Sequence[str], figure: str, columns: int, text: str) -> str:
    """The pictures that the first seed of every arm has drawn, one arm after the other."""
    runs = [stored.get(f"{name}-0", {}) for name in names]
    if all("samples" in run for run in runs):
        x = torch.cat([unpack(run["samples"], (3, 16, 16)) for run in runs])
        save_images(x, figure, columns=columns)
    return f"![Pictures](figures/{figure}.png)\n\n{text}" if all(runs) else ""


def captions(stored: Found) -> str:
    """Names and long prompts after training on three sorts of captions."""
    names = ("noisy", "synthetic", "mixed")
    arms = seeds(stored, names)
    keys = {
        f"{part}R@1{form}": f"{part.strip() or 'all'}{form or ', names'}" for part, form in FORMS
    }
    return (
        "\n\n".join([CAPTIONS, compared(arms, names, keys), decided(MIXED, arms)]) if arms else ""
    )


def counting(stored: Found) -> str:
    """Counts from one to five, and prompt types."""
    arms = seeds(stored, ("counting",))
    if not arms:
        return ""
    rows = [
        [name, *(spread(counted(seed, name, part) for seed in arms) for part in PARTS)]
        for name in (*NUMBERS, *ALL_PROMPTS)
    ]
    plot_counts(arms)
    figure = "![Accuracy by number](figures/imagen-counting.png)"
    return "\n\n".join(
        [COUNTING, table(["", "model", "reader"], rows), decided(FALLS, arms), figure]
    )


def plot_counts(arms: list[dict[str, Found]]) -> None:
    """Draw the accuracy by number, of the model and of the reader."""
    figure, axis = plt.subplots(figsize=(4, 2.6))
    for part, label in zip(PARTS, ("model", "reader"), strict=True):
        values = np.array([[counted(seed, name, part) for name in NUMBERS] for seed in arms])
        axis.errorbar(
            range(1, 6), values.mean(0), values.std(0), label=label, capsize=2, marker="o"
        )
    axis.set(xlabel="number of things", ylabel="share counted right", ylim=(0, 1.05))
    axis.legend()
    save(figure, "imagen-counting")
    plt.close(figure)


def balance(stored: Found) -> str:
    """Categories of people for prompts that name none."""
    names = ("skewed", "even")
    arms = seeds(stored, names)
    if not arms:
        return ""
    keys = {
        f"{column} {key}": f"{column}: {title}"
        for column in COLUMNS
        for key, title in AUDIT.items()
    }
    columns = {**keys, "base": "base", "R@1": "R@1"}
    parts = [BALANCE, compared(arms, names, columns), decided(EVEN, arms)]
    return "\n\n".join([*parts, shown(stored, names, "imagen-balance", SHOWN, PEOPLE)])


def meta(stored: Found) -> str:
    """Metrics beside the oracle, and distances of distributions beside each other."""
    arms = seeds(stored, ("meta",))
    if not arms:
        return ""
    runs = [seed["meta"] for seed in arms]
    rows = [
        [
            title,
            *(spread(estimate(run[what][key]) for run in runs if run[what][key]) for what in WHAT),
        ]
        for key, title in METRICS.items()
    ]
    apart = [[key, spread(run["disagree"][key] for run in runs)] for key in runs[0]["disagree"]]
    p = ", ".join(f"{run['prompts']['p']:.2g}" for run in runs)
    pair = stored.get("meta-0", {}).get("pair", [])
    parts = [
        META,
        table(["", *WHAT.values()], rows),
        f"McNemar's test of the two metrics, as if all pairs were independent: p = {p}.",
        decided(ORDERS, arms),
        DISAGREE,
        table(["distances", "share"], apart),
        shown(stored, ("meta",), "imagen-distances", 12, PAIR.format(" and ".join(pair))),
    ]
    return "\n\n".join(parts)
