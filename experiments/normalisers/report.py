"""The section of the report on intervals of log Z."""

import re
from typing import Any

from experiments.common import results
from experiments.normalisers.run import DIMS, KINDS
from experiments.tables import not_run, table, together
from latent_ebm.metrics.intervals import share_of

TITLE = "## Intervals of log Z: `python -m experiments.normalisers`"
HEAD = (
    "density",
    "interval holds log Z",
    "of reliable ones",
    "missed by the base, reported",
    "error",
    "width",
    "CPU s",
)
NAMES = {"draws": "with draws", "blind": "without draws"}


def holds(run: dict[str, Any]) -> bool:
    """Whether the interval holds the truth."""
    return run["lower"] <= run["truth"] <= run["upper"]


def row(name: str, runs: list[dict[str, Any]]) -> list[str]:
    """Interval and reliability over the problems of a kind."""
    sure = [run for run in runs if not run["reasons"]]
    missed = [run for run in runs if run["truth"] - run["from_base"] > 0.5]
    return [
        name,
        counted([holds(run) for run in runs]),
        counted([holds(run) for run in sure]),
        counted([bool(run["reasons"]) for run in missed]),
        f"{sum(abs(run['estimate'] - run['truth']) for run in runs) / len(runs):.3f}",
        f"{sum(run['upper'] - run['lower'] for run in runs) / len(runs):.2f}",
        f"{sum(run['seconds'] for run in runs) / len(runs):.1f}",
    ]


def counted(hits: list[bool]) -> str:
    """``hits of all``, with a 95 % interval of the share."""
    if not hits:
        return "-"
    found = share_of(sum(hits), len(hits), confidence=0.95)
    return f"{sum(hits)} of {len(hits)} ({found.low:.2f} to {found.high:.2f})"


def section() -> str:
    """Markdown, or nothing without results."""
    stored = results("normalisers")
    rows = []
    for kind in KINDS:
        for how, words in NAMES.items():
            runs = [
                run
                for name, run in stored.items()
                if name.startswith(f"{kind}-") and f"-{how}-" in name
            ]
            if runs:
                rows.append(row(f"{kind}, {words}" if kind == "planted" else kind, runs))
    if not rows:
        return ""
    problems = {re.sub("-(draws|blind)-", "-", name) for name in stored}
    missing = [kind for kind in KINDS if not any(name.startswith(f"{kind}-") for name in problems)]
    text = f"""\
95 % intervals of `prior_log_z`, with 500 chains and 40 rungs, on {len(problems)} random
densities in {DIMS[0]} to {DIMS[-1]} dimensions whose log Z is known. Unless its row says
otherwise, it is given draws, in which all modes have the same share, whatever their mass. An
interval is *reliable* if no check names a reason to doubt it, and *reported* if one does. *Missed
by the base* are problems in which chains from the base find less than 60 % of the mass. In
brackets: 95 % intervals of the shares."""
    return together(TITLE, not_run(missing), text, table(HEAD, rows))
