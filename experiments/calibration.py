"""Conformal rates on real tables: ``LATENT_EBM_ADBENCH=DIR python -m experiments.calibration``,
DIR holding ADBench's files.

A detector is fitted once a seed to a quarter of the normal rows. The rest is split again and
again: half calibrates, half is tested, alone for false positives, and together with all anomalies
for false discoveries. The sets were named beforehand: three large ones. Sources: Bates et al.
2023, arXiv:2104.08279; ADBench, arXiv:2206.09426.
"""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.common import FIGURES, cached, results
from experiments.tables import spread, table
from latent_ebm.detection import ConformalCalibrator, LatentEBMDetector
from latent_ebm.plots import new_figure, save_figure, styled

SETS = ("2_annthyroid", "28_pendigits", "30_satellite")
LEVELS = (0.01, 0.05, 0.1)
GRID = tuple(np.round(np.linspace(0.01, 0.5, 50), 2))
FDR = 0.1


class Known:
    """A detector whose rows are scores already, so that a split costs nothing."""

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        return X[:, 0]


def run(path: Path, seed: int, num_splits: int) -> dict[str, Any]:
    """Rates of ``num_splits`` splits after one fit: false positives over GRID, false discoveries
    and power of BH at FDR.
    """
    torch.set_num_threads(1)
    with np.load(path) as data:
        rows, outlier = data["X"].astype(float), data["y"].astype(bool)
    rng = np.random.default_rng(seed)
    normal = rng.permutation(np.flatnonzero(~outlier))
    train, rest = np.split(normal, [len(normal) // 4])
    detector = LatentEBMDetector(max_stages=4, random_state=seed).fit(rows[train])
    scores, anomalies = (detector.score_samples(rows[which])[:, None] for which in (rest, outlier))
    half, rates, found = len(rest) // 2, [], []
    for _ in range(num_splits):
        held_out, test = np.split(rng.permutation(scores), [half])
        calibrator = ConformalCalibrator(Known()).calibrate(held_out)
        p = calibrator.p_values(test)
        rates.append([(p <= level).mean() for level in GRID])
        chosen = calibrator.select(np.concatenate([test, anomalies]), FDR)
        found.append(
            [chosen[: len(test)].sum() / max(1, chosen.sum()), chosen[len(test) :].mean()]
        )
    tested = len(rest) - half
    return {
        "held_out": half,
        "tested": tested,
        "anomalies": len(anomalies),
        "splits": num_splits,
        "rates": np.mean(rates, 0).tolist(),
        "spread": np.std(rates, 0, ddof=1).tolist(),
        "fdp": np.mean(found, 0)[0],
        "fdp_spread": np.std(found, 0, ddof=1)[0],
        "power": np.mean(found, 0)[1],
    }


def promised(run: dict[str, Any]) -> np.ndarray:
    """The rates that p-values on a lattice of 1 / (n + 1) promise at GRID."""
    lattice = run["held_out"] + 1
    return np.floor(np.array(GRID) * lattice + 1e-9) / lattice


def deviations(runs: list[dict[str, Any]]) -> np.ndarray:
    """Mean rates minus the promised ones at GRID, in standard errors.

    Rows of a split share their held-out rows, so that a split's rate has the variance ``a (1 - a)
    (1/m + 1/(n + 2))`` of a beta-binomial law, more than a binomial one.
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
    save_figure(coverage_figure(groups), FIGURES / "calibration-coverage.png")
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

Rates of false positives (%), in brackets how far they are from the nominal rate in standard errors, over {len(first)} fit(s)
of the detector with {first[0]["splits"]} random splits of other normal rows each, half to calibrate and half to test.
FDP, ± its standard error: the part of normal rows among those that Benjamini-Hochberg selects from the tested ones and all
anomalies; power: the part of anomalies it finds.

{table(head, rows)}
The rates are those of an average split. A single one, with its thousands of held-out rows, is off by the shaded range.

![Coverage](figures/calibration-coverage.png)
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--splits", type=int, default=200)
    args = parser.parse_args()
    folder = Path(os.environ["LATENT_EBM_ADBENCH"])
    for name in SETS:
        for seed in range(args.seeds):
            config = {"seed": seed, "splits": args.splits}
            compute = partial(run, folder / f"{name}.npz", seed, args.splits)
            cached(f"calibration/{name}-{seed}", config, compute)


if __name__ == "__main__":
    main()
