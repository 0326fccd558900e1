"""The section of the report on posteriors."""

from typing import Any

import numpy as np
from scipy.stats import spearmanr

from experiments.common import is_run, results, runs_of
from experiments.pictures import save
from experiments.posteriors.methods import NAMES
from experiments.posteriors.run import LEARNT_WITH, RULES, SIZES
from experiments.tables import spread, table
from latent_ebm.plots import new_figure, styled

Runs = dict[str, dict[str, Any]]
GRID = {
    "tv": "total variation",
    "wrong_shares": "data with a share off by > .2",
    "mean_error": "error of the mean, sd",
    "calls": "decoder calls",
    "seconds": "CPU s",
}
NUTS = {
    "kolmogorov": "Kolmogorov distance",
    "mean_error": "error of the mean, sd",
    "log_std_error": "error of log sd",
    "calls": "decoder calls",
    "seconds": "CPU s",
}
RULE_NAMES = {"mle": "maximum likelihood", "ratio": "multi-stage ratio"}


def section() -> str:
    """Markdown, or nothing without results."""
    stored = results("posteriors")
    if not stored:
        return ""
    return f"""## Posteriors: `python -m experiments.posteriors`

Ways to draw from the posterior `p(z|x)` of a model whose decoder is known, each with at most about
the same number of calls of the decoder. *As published* is the chain of the papers, of 20 steps of
.005; *cold* chains start at the base. Encoders are trained on draws of the model. *Restarts* are
several starts, one of which is kept with a probability given by its weight.

{quadrature(stored)}{long_chains(stored)}{priors(stored)}"""


def compared(stored: Runs, head: str, keys: dict[str, str]) -> str:
    """A table of the methods, over the seeds of the runs ``head``."""
    runs = [run for name, run in stored.items() if is_run(name, head)]
    rows = (
        [words, *(spread(run[name].get(key) for run in runs) for key in keys)]
        for name, words in NAMES.items()
        if runs and name in runs[0]
    )
    return table(["draws", *keys.values()], rows) if runs else ""


def by_calls(stored: Runs, part: str, keys: dict[str, str]) -> list[str]:
    """A table for every number of calls there is."""
    return [
        f"At most about {calls} calls a draw:\n\n{found}"
        for calls in (40, 160)
        if (found := compared(stored, f"{part}-{calls}-", keys))
    ]


def quadrature(stored: Runs) -> str:
    """Tables of the pinwheel, by calls."""
    sizes = SIZES["grid"]
    tables = by_calls(stored, "grid", GRID)
    if not tables:
        return ""
    return "\n".join(
        [
            f"""The pinwheel under its true prior: {sizes["draws"]} draws for each of
{sizes["data"]} data are compared with quadrature, in squares of side .31. The row *exact* shows
what so few draws leave at best. *Share*: that of an arm of the pinwheel among the draws of a
datum.
""",
            *tables,
            "",
        ]
    )


def long_chains(stored: Runs) -> str:
    """Tables of the decoder of six latents, by calls."""
    tables = by_calls(stored, "nuts", NUTS)
    if not tables:
        return ""
    rhat = max(run["rhat"]["max"] for name, run in stored.items() if name.startswith("nuts-"))
    return "\n".join(
        [
            f"""A random decoder of six latents against a chain of {SIZES["nuts"]["nuts"]} draws of
NUTS (pyro); *exact* is a second chain. Largest R-hat of the two: {rhat:.3f}.
""",
            *tables,
            "",
        ]
    )


def priors(stored: Runs) -> str:
    """The table and the figure of priors learnt with each posterior."""
    runs = {
        (rule, name): runs_of(stored, f"{rule}-{name}") for rule in RULES for name in LEARNT_WITH
    }
    runs = {key: found for key, found in runs.items() if found}
    if not runs:
        return ""
    save(draw_curve(runs), "posteriors-priors", colours=16)
    keys = {
        "tv": "total variation of its draws",
        "kl": "KL(true ‖ learnt), nats",
        "seconds": "CPU seconds",
    }
    rows = (
        [RULE_NAMES[rule], NAMES[name], *(spread(run.get(key) for run in found) for key in keys)]
        for (rule, name), found in runs.items()
    )
    return f"""The prior of the pinwheel, learnt for a short while with these draws:

{table(["rule", "draws", *keys.values()], rows)}
{verdict(runs)}

![Priors against posteriors](figures/posteriors-priors.png)
"""


def verdict(runs: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """How KL of the learnt prior goes with the error of its posterior, in a sentence a rule."""
    sentences = []
    for rule in RULES:
        found = [run for (other, _), group in runs.items() if other == rule for run in group]
        tv, kl = ([run[key] for run in found] for key in ("tv", "kl"))
        best, published = (runs.get((rule, name), []) for name in ("exact", "published"))
        if len(set(tv)) > 2 and best and published:
            sentences.append(
                f"With {RULE_NAMES[rule]}, the rank correlation of total variation and KL is "
                f"{spearmanr(tv, kl)[0]:.2f}; exact draws give a KL of "
                f"{spread(run['kl'] for run in best)}, published ones "
                f"{spread(run['kl'] for run in published)}."
            )
    return " ".join(sentences)


@styled
def draw_curve(runs: dict[tuple[str, str], list[dict[str, Any]]]) -> Any:
    """KL of the prior against total variation of the draws that it was learnt with."""
    figure, (axes,) = new_figure(1, (6.0, 3.6))
    for rule, colour in zip(RULES, ("tab:blue", "tab:red"), strict=True):
        means = sorted(
            (np.mean([run["tv"] for run in found]), np.mean([run["kl"] for run in found]), name)
            for (other, name), found in runs.items()
            if other == rule
        )
        if means:
            tv, kl, names = zip(*means, strict=True)
            axes.plot(tv, kl, "o-", color=colour, lw=1.0, label=RULE_NAMES[rule])
            for x, y, name in zip(tv, kl, names, strict=True):
                axes.annotate(name.replace("_", " "), (x, y), fontsize=6, rotation=30)
    axes.set(
        xlabel="total variation of the posterior draws",
        ylabel="KL(true ‖ learnt), nats",
        yscale="log",
    )
    axes.legend(frameon=False)
    return figure
