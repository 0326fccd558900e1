"""Anomalies among the training rows: ``LATENT_EBM_ADBENCH=DIR python -m experiments.contaminated``

The unsupervised protocol of ADBench (arXiv:2206.09426): a random 70 per cent of all rows train,
anomalies among them, and the rest test. What does it help to leave out of the fit the rows that
fit the others least (``trim``)?
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from experiments.adbench.run import DETECTORS as CLEAN
from experiments.adbench.run import Fit, areas, latent_ebm
from experiments.common import cached

TRIMS, SEEDS = (0.0, 0.05, 0.1, 0.2), 3
PEERS = ("k-NN", "LOF", "isolation forest", "one-class SVM", "Gaussian mixture")
DETECTORS: dict[str, Fit] = {
    **{
        f"latent EBM, trim {trim:g}": partial(latent_ebm, max_stages=0, trim=trim)
        for trim in TRIMS
    },
    **{name: CLEAN[name] for name in PEERS},
}


def run(path: Path, seed: int) -> dict[str, Any]:
    """AUROC and AUPRC of every detector."""
    torch.set_num_threads(1)
    with np.load(path) as data:
        rows, anomaly = data["X"].astype(float), torch.as_tensor(data["y"]) == 1
    order = np.random.default_rng(seed).permutation(len(rows))
    train, test = order[: int(0.7 * len(rows))], order[int(0.7 * len(rows)) :]
    scaler = StandardScaler().fit(rows[train])
    x, new = (np.asarray(scaler.transform(rows[part])) for part in (train, test))
    scores = {name: torch.as_tensor(fit(x, seed)(new)) for name, fit in DETECTORS.items()}
    return {name: areas(score, anomaly[test]) for name, score in scores.items()}


def main() -> None:
    for seed in range(SEEDS):
        for path in sorted(
            Path(os.environ["LATENT_EBM_ADBENCH"]).glob("*.npz"),
            key=lambda path: path.stat().st_size,
        ):
            config = {"detectors": list(DETECTORS), "seed": seed}
            print(
                "  "
                f"{cached(f'contaminated/{path.stem}-{seed}', config, partial(run, path, seed))}",
                flush=True,
            )
