"""The section of the report on anomalies in tables."""

from typing import Any

import numpy as np
from scipy.stats import rankdata

from experiments.adbench.run import DETECTORS
from experiments.common import file_name, results
from experiments.tables import spread, table

ABLATION = "latent EBM, no stages"  # in the table, but no contestant of ranks and wins
HEAD = (
    "detector",
    "mean AUROC, %",
    "mean AUPRC, %",
    "mean rank",
    "wins",
    "fit, CPU s",
    "score 1,000 rows, CPU s",
)
Runs = dict[str, dict[tuple[str, int], dict[str, Any]]]  # detector -> (set, seed) -> result


def tabular_runs() -> Runs:
    """Stored results by detector, those that failed left out."""
    runs: Runs = {}
    for name, run in results("adbench").items():
        rest, seed = name.rsplit("-", 1)
        detector = next(d for d in DETECTORS if rest.endswith("-" + file_name(d)))
        data = rest.removesuffix("-" + file_name(detector))
        if "auroc" in run:
            runs.setdefault(detector, {})[data, int(seed)] = run
    return {detector: runs[detector] for detector in DETECTORS if detector in runs}


def per_seed(runs: dict[tuple[str, int], dict[str, Any]], key: str) -> list[float]:
    """Mean over data sets for each seed that has all of them."""
    seeds, sets = sorted({seed for _, seed in runs}), {data for data, _ in runs}
    whole = [seed for seed in seeds if all((data, seed) in runs for data in sets)]
    return [float(np.mean([runs[data, seed][key] for data in sets])) for seed in whole]


def mean_auroc(runs: Runs) -> tuple[list[str], np.ndarray]:
    """Data sets, and AUROC (detectors, sets) averaged over seeds; a set that a detector failed on
    is nan.
    """
    sets = sorted(
        {data for of in runs.values() for data, _ in of}, key=lambda name: int(name.split("_")[0])
    )
    found = [
        [[run["auroc"] for (d, _), run in of.items() if d == data] for data in sets]
        for of in runs.values()
    ]
    return sets, np.array([[np.mean(x) if x else np.nan for x in row] for row in found])


def ranks(detectors: list[str], auroc: np.ndarray) -> np.ndarray:
    """Ranks of ``detectors`` by ``auroc`` (detectors, sets), like it; NaN for the ablation."""
    judged = [i for i, name in enumerate(detectors) if name != ABLATION]
    found = np.full(auroc.shape, np.nan)
    found[judged] = rankdata(-auroc[judged].round(6), axis=0, nan_policy="omit")
    return found


def section() -> str:
    """The section on tabular data."""
    runs = tabular_runs()
    if not runs:
        return ""
    sets, auroc = mean_auroc(runs)
    rows = []
    for name, own, ranked in zip(runs, runs.values(), ranks(list(runs), auroc), strict=True):
        contest = (
            [f"{np.nanmean(ranked):.2f}", str(int((ranked == 1).sum()))]
            if name != ABLATION
            else ["-", "-"]
        )
        percent = [spread([100 * v for v in per_seed(own, key)]) for key in ("auroc", "auprc")]
        rows.append(
            [name, *percent, *contest, *(spread(per_seed(own, key)) for key in ("fit", "score"))]
        )
    each = (
        [name.split("_", 1)[1], *(f"{100 * v:.1f}" for v in auroc[:, i])]
        for i, name in enumerate(sets)
    )
    return f"""## Anomalies in tables: `python -m experiments.adbench`

{len(sets)} sets of ADBench (arXiv:2206.09426), one-class: half of the normal rows train, the rest
and all anomalies test. No set is enlarged by resampling, which would put copies of training rows
into the test set. Detectors run at their defaults on standardised columns, with three exceptions.
`latent EBM` is `LatentEBMDetector` with up to four ratio stages; its default has none
(`latent EBM, no stages`) and is a kernel density estimate with a check of exact rules between
columns. The Gaussian mixture has 5 components in place of one, and PCA is the distance from the
mean in whitened principal components. Rank and wins go by AUROC, averaged over seeds.

{table(HEAD, rows)}
AUROC in per cent, averaged over seeds:

{table(["set", *runs], each)}"""
