"""Anomalies in tables: ``LATENT_EBM_ADBENCH=DIR python -m experiments.adbench``, DIR holding the
.npz files of ADBench.

One-class protocol (Han et al. 2022, arXiv:2206.09426): half of the normal rows train, the other
half and all anomalies test, and small sets are not enlarged by resampling, which would put copies
of training rows into the test set. Detectors run at their defaults, on standardised columns, but
for a Gaussian mixture of 5 components and our PCA; the latent EBM runs without stages, its
default, and with up to four. Peers come from scikit-learn and, where it is installed, PyOD.
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
from torch import Tensor

from experiments.common import cached, file_name
from latent_ebm.detection import LatentEBMDetector
from latent_ebm.metrics import auroc_auprc

Scorer = Callable[[np.ndarray], np.ndarray]  # rows -> anomaly scores
Fit = Callable[[np.ndarray, int], Scorer]  # training rows, seed -> what scores new rows


def latent_ebm(train: np.ndarray, seed: int, **options: Any) -> Scorer:
    detector = LatentEBMDetector(random_state=seed, **options).fit(train)
    return lambda x: -detector.score_samples(x)


def sklearn_novelty(make: Callable[[int], Any], train: np.ndarray, seed: int) -> Scorer:
    detector = make(seed).fit(train)
    return lambda x: -detector.score_samples(x)


def nearest(train: np.ndarray, seed: int) -> Scorer:
    """Distance to the fifth neighbour, PyOD's default."""
    neighbours = NearestNeighbors(n_neighbors=5).fit(train)
    return lambda x: neighbours.kneighbors(x)[0][:, -1]


def principal(train: np.ndarray, seed: int) -> Scorer:
    """Squared distance in whitened principal components."""
    axes = PCA(whiten=True, random_state=seed).fit(train)
    return lambda x: np.square(axes.transform(x)).sum(1)


MODULES = {"AutoEncoder": "auto_encoder", "DeepSVDD": "deep_svdd"}


def pyod(name: str, train: np.ndarray, seed: int) -> Scorer:
    """A detector of PyOD at its defaults."""
    from importlib import import_module

    torch.manual_seed(seed)
    module = import_module(f"pyod.models.{MODULES.get(name, name.lower())}")
    options = {"n_features": train.shape[1]} if name == "DeepSVDD" else {}
    return getattr(module, name)(**options).fit(train).decision_function


DETECTORS: dict[str, Fit] = {
    "latent EBM": partial(latent_ebm, max_stages=4),
    "latent EBM, no stages": partial(latent_ebm, max_stages=0),
    "k-NN": nearest,
    "LOF": partial(sklearn_novelty, lambda seed: LocalOutlierFactor(novelty=True)),
    "isolation forest": partial(sklearn_novelty, lambda seed: IsolationForest(random_state=seed)),
    "one-class SVM": partial(sklearn_novelty, lambda seed: OneClassSVM()),
    "Gaussian mixture": partial(
        sklearn_novelty, lambda seed: GaussianMixture(5, reg_covar=1e-3, random_state=seed)
    ),
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
    train_rows, test_rows = (
        np.asarray(scaler.transform(rows[i])) for i in (normal[: len(normal) // 2], test)
    )
    return train_rows, test_rows, label[test]


def run(path: Path, detector: str, seed: int) -> dict[str, Any]:
    """AUROC and AUPRC, CPU seconds to fit, and to score 1,000 rows."""
    torch.set_num_threads(1)
    train, test, label = split(path, seed)
    start = time.process_time()
    scorer = DETECTORS[detector](train, seed)
    fitted = time.process_time()
    scores = np.asarray(scorer(test), dtype=np.float64)
    seconds = {
        "fit": fitted - start,
        "score": 1000 * (time.process_time() - fitted) / len(test),
        "rows": len(train),
    }
    if not np.isfinite(scores).all():
        return {
            "failed": f"{(~np.isfinite(scores)).sum()} of {len(scores)} scores are not finite",
            **seconds,
        }
    return {**areas(torch.as_tensor(scores), torch.as_tensor(label).bool()), **seconds}


def areas(scores: Tensor, anomaly: Tensor) -> dict[str, float]:
    """AUROC and AUPRC of anomaly scores (n,)."""
    found = auroc_auprc(scores, anomaly)
    return {name: found[name] for name in ("auroc", "auprc")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--detectors", nargs="+", default=list(DETECTORS), choices=list(DETECTORS))
    args = parser.parse_args()
    folder = Path(os.environ["LATENT_EBM_ADBENCH"])
    for seed in range(args.seeds):
        for path in sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_size):
            for detector in args.detectors:
                name = f"adbench/{path.stem}-{file_name(detector)}-{seed}"
                config = {"detector": detector, "seed": seed, "clock": "CPU"}
                print(f"  {cached(name, config, partial(run, path, detector, seed))}", flush=True)
