"""Anomalies in tables: ``LATENT_EBM_ADBENCH=DIR python -m experiments.adbench``, DIR holding the .npz files of ADBench.

One-class protocol (Han et al. 2022, arXiv:2206.09426): half of the normal rows train, the other half and all anomalies test,
and small sets are not enlarged by resampling, which would put copies of training rows into the test set. All detectors run
at their defaults, on standardised columns. Peers come from scikit-learn and, where it is installed, PyOD.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from experiments.common import cached
from latent_ebm.applications import LatentEBMDetector
from latent_ebm.metrics import auroc_auprc

Detector = Callable[[np.ndarray, np.ndarray, int], np.ndarray]  # training rows, test rows, seed -> anomaly scores


def latent_ebm(train: np.ndarray, test: np.ndarray, seed: int, **options: Any) -> np.ndarray:
    return -LatentEBMDetector(random_state=seed, **options).fit(train).score_samples(test)


def sklearn_novelty(make: Callable[[int], Any], train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    return -make(seed).fit(train).score_samples(test)


def nearest(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Distance to the fifth neighbour, PyOD's default."""
    return NearestNeighbors(n_neighbors=5).fit(train).kneighbors(test)[0][:, -1]


def principal(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Squared distance in whitened principal components."""
    return np.square(PCA(whiten=True, random_state=seed).fit(train).transform(test)).sum(1)


def pyod(name: str, train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """A detector of PyOD at its defaults."""
    from importlib import import_module

    torch.manual_seed(seed)
    module = import_module(f"pyod.models.{name.lower() if name != 'AutoEncoder' else 'auto_encoder'}")
    options = {"n_features": train.shape[1]} if name == "DeepSVDD" else {}
    return getattr(module, name)(**options).fit(train).decision_function(test)


DETECTORS: dict[str, Detector] = {
    "latent EBM": latent_ebm,
    "latent EBM, no stages": partial(latent_ebm, max_stages=0),
    "k-NN": nearest,
    "LOF": partial(sklearn_novelty, lambda seed: LocalOutlierFactor(novelty=True)),
    "isolation forest": partial(sklearn_novelty, lambda seed: IsolationForest(random_state=seed)),
    "one-class SVM": partial(sklearn_novelty, lambda seed: OneClassSVM()),
    "Gaussian mixture": partial(sklearn_novelty, lambda seed: GaussianMixture(5, reg_covar=1e-3, random_state=seed)),
    "PCA": principal,
    "ECOD": partial(pyod, "ECOD"),
    "VAE": partial(pyod, "VAE"),
    "DeepSVDD": partial(pyod, "DeepSVDD"),
    "AutoEncoder": partial(pyod, "AutoEncoder"),
}


def split(path: Path, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training rows, test rows, and which of these are anomalies."""
    with np.load(path) as data:
        rows, label = data["X"].astype(float), data["y"].astype(int)
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(label == 0))
    test = np.concatenate([normal[len(normal) // 2 :], np.flatnonzero(label == 1)])
    scaler = StandardScaler().fit(rows[normal[: len(normal) // 2]])
    return scaler.transform(rows[normal[: len(normal) // 2]]), scaler.transform(rows[test]), label[test]


def run(path: Path, detector: str, seed: int) -> dict[str, Any]:
    """AUROC and AUPRC, and seconds to fit and score."""
    torch.set_num_threads(1)
    train, test, label = split(path, seed)
    start = time.perf_counter()
    scores = np.asarray(DETECTORS[detector](train, test, seed), dtype=np.float64)
    seconds = time.perf_counter() - start
    if not np.isfinite(scores).all():
        return {"failed": f"{(~np.isfinite(scores)).sum()} scores are not finite", "seconds": seconds}
    return {
        **auroc_auprc(torch.as_tensor(scores), torch.as_tensor(label).bool()),
        "seconds": seconds,
        "rows": len(train),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--detectors", nargs="+", default=list(DETECTORS), choices=list(DETECTORS))
    args = parser.parse_args()
    folder = Path(os.environ["LATENT_EBM_ADBENCH"])
    for seed in range(args.seeds):
        for path in sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_size):
            for detector in args.detectors:
                name = f"adbench/{path.stem}-{detector.replace(' ', '_').replace(',', '')}-{seed}"
                print(
                    f"  {cached(name, {'detector': detector, 'seed': seed}, partial(run, path, detector, seed))}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
