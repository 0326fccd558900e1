"""Rules that learn a prior, side by side in the sections on the pinwheel and on MNIST."""

from collections.abc import Iterable
from typing import Any

from experiments.claims import by_seed
from experiments.common import results
from experiments.tables import spread, table

NAMES = {
    "gaussian": "Gaussian prior",
    "one_ratio": "one ratio",
    "mle": "MCMC maximum likelihood",
    "ratio": "multi-stage ratio",
    "langevin": "cold short-run Langevin",
    "flow": "cold gradient flow",
}
COLOURS = dict(
    zip(
        NAMES, ("0.6", "tab:orange", "tab:blue", "tab:red", "tab:green", "tab:purple"), strict=True
    )
)
Runs = dict[str, list[dict[str, Any]]]


def by_rule(experiment: str) -> Runs:
    """Stored results of an experiment, its seeds grouped by rule in the order of ``NAMES``."""
    stored = results(experiment)
    groups = {
        rule: [r for name, r in stored.items() if name.rsplit("-", 1)[0] == rule] for rule in NAMES
    }
    return {rule: runs for rule, runs in groups.items() if runs}


def paired(experiment: str, rules: Iterable[str]) -> list[dict[str, Any]]:
    """The results by rule of every seed that all ``rules`` have."""
    return by_seed(results(experiment), {rule: f"{rule}-{{}}" for rule in rules})


def columns(runs: Runs, keys: dict[str, str]) -> str:
    """A table with a row per rule and a column per key of the results; what is 0 in all runs of a
    rule, such as stages, is left out.
    """
    rows = []
    for rule, found in runs.items():
        values = ([run.get(key) for run in found] for key in keys)
        rows.append([NAMES[rule], *(spread(each if any(each) else ()) for each in values)])
    return table(["prior", *keys.values()], rows)
