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

from experiments.common import cached
from latent_ebm.detection import ConformalCalibrator, LatentEBMDetector

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
