"""The section of the report on the error rates of conformal p-values."""

from typing import Any

import numpy as np

from experiments.calibration.run import FDR, GRID, LEVELS, SETS
from experiments.common import results
from experiments.pictures import save
from experiments.tables import spread, table
from latent_ebm.plots import new_figure, styled


def promised(run: dict[str, Any]) -> np.ndarray:
    """The rates that p-values on a lattice of 1 / (n + 1) promise at GRID."""
    lattice = run["held_out"] + 1
    return np.floor(np.array(GRID) * lattice + 1e-9) / lattice


def deviations(runs: list[dict[str, Any]]) -> np.ndarray:
    """Mean rates minus the promised ones at GRID, in standard errors.

    Rows of a split share their held-out rows, so that a split's rate has the variance ``a (1 - a)
    (1/m + 1/(n + 2))`` of a beta-binomial distribution, more than that of a binomial one.
    """
    run, a = runs[0], promised(runs[0])
    variance = (
        a
        * (1 - a)
        * (1 / run["tested"] + 1 / (run["held_out"] + 2))
        / sum(run["splits"] for run in runs)
    )
    return (np.mean([run["rates"] for run in runs], 0) - a) / np.sqrt(variance)


def by_set() -> dict[str, list[dict[str, Any]]]:
    """Stored results, the seeds of a set together."""
    stored = results("calibration")
    groups = {
        name: [run for key, run in stored.items() if key.startswith(f"{name}-")] for name in SETS
    }
    return {name: runs for name, runs in groups.items() if runs}


def section() -> str:
    """The report's section."""
    groups = by_set()
    if not groups:
        return ""
    save(coverage_figure(groups), "calibration-coverage")
    rows = []
    for name, runs in groups.items():
        at = [GRID.index(level) for level in LEVELS]
        rates, errors = np.mean([run["rates"] for run in runs], 0), deviations(runs)
        cells = [f"{100 * rates[i]:.2f} ({errors[i]:+.1f})" for i in at]
        error = np.sqrt(sum(run["fdp_spread"] ** 2 / run["splits"] for run in runs)) / len(runs)
        fdp = f"{np.mean([run['fdp'] for run in runs]):.4f} ± {error:.4f}"
        share = runs[0]["tested"] / (runs[0]["tested"] + runs[0]["anomalies"])
        rows.append(
            [
                name.split("_")[1],
                *cells,
                fdp,
                f"{FDR * share:.3f}",
                spread(run["power"] for run in runs),
            ]
        )
    first = next(iter(groups.values()))
    head = [
        "set",
        *(f"{100 * level:.0f} %" for level in LEVELS),
        f"FDP of BH at {FDR}",
        "expected at most",
        "power",
    ]
    return f"""## Conformal error rates: `python -m experiments.calibration`

Rates of false positives in per cent, over {len(first)} fits of the detector, with
{first[0]["splits"]} random splits of other normal rows each, half to calibrate and half to test.
In brackets: how far the rate is from what p-values promise, in standard errors. They promise the
largest multiple of 1 / (n + 1) that does not exceed the nominal rate, for n rows to calibrate.
*FDP*, ± its standard error: the share of normal rows among those that Benjamini-Hochberg selects
from the tested rows and all anomalies. *Power*: the share of anomalies that it finds.

{table(head, rows)}
![Coverage](figures/calibration-coverage.png)

Left: rates of an average split, and shaded, two standard deviations of a single one. Right: the
distance from the promise, and dotted, three standard errors.
"""


@styled
def coverage_figure(groups: dict[str, list[dict[str, Any]]]) -> Any:
    """Observed against nominal rates with two standard deviations of a split, and their distance
    in standard errors.
    """
    figure, (rates, errors) = new_figure(2, (3.8, 3.0))
    for (name, runs), colour in zip(
        groups.items(), ("tab:blue", "tab:orange", "tab:green"), strict=True
    ):
        mean, sd = (np.mean([run[key] for run in runs], 0) for key in ("rates", "spread"))
        rates.fill_between(GRID, mean - 2 * sd, mean + 2 * sd, color=colour, alpha=0.15, lw=0)
        rates.plot(GRID, mean, color=colour, label=name.split("_")[1])
        errors.plot(GRID, deviations(runs), color=colour)
    rates.axline((0, 0), slope=1, color="0.3", lw=0.8, ls=":")
    rates.set(xlabel="nominal rate", ylabel="false positives", xlim=(0, 0.5), ylim=(0, 0.5))
    rates.legend()
    for limit in (-3, 3):
        errors.axhline(limit, color="0.3", lw=0.8, ls=":")
    errors.set(xlabel="nominal rate", ylabel="distance, standard errors", ylim=(-6, 6))
    return figure
