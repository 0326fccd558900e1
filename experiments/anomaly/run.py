"""One digit held out: is it found? Beside the nearest-neighbour detectors that any such figure
must be read against.

``LATENT_EBM_DATA=DIR python -m experiments.anomaly``. ``standard`` scores the 10,000 test images,
``pooled`` a fifth of all normal images and every image of the held-out digit: the prevalence,
which is the AUPRC of chance, differs.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from torch import Tensor

from experiments.adbench.run import DETECTORS
from experiments.common import HERE, Clock, cached, file_name, settings, train
from latent_ebm.data import MNIST
from latent_ebm.detection import LatentEBMDetector, ModelEnergies
from latent_ebm.learning.trigger import staged_prior
from latent_ebm.metrics import auroc_auprc
from latent_ebm.model import EnergyTerms

CONFIG = HERE / "anomaly" / "ratio.yaml"
DIGITS, SPLITS = (1, 4, 5), ("standard", "pooled")
DETECTOR: dict[str, Any] = {
    "image_shape": (1, 28, 28)
}  # beside an energy of the spine: the detector at its defaults
NEIGHBOURS = {"lof": 20, "knn": 5, "pca": 50}
NUM_FITTED = 10_000  # training images whose energy terms a detector learns
PEERS = ("isolation forest", "Gaussian mixture", "PCA", "ECOD", "VAE", "DeepSVDD", "AutoEncoder")


def run_model(digit: int, split: str, seed: int) -> dict[str, Any]:
    """Train on normal digits; AUROC and AUPRC of the energies of test images, and of a detector on
    their terms.
    """
    clock = Clock()
    where = {"seed": seed, "heldout": digit, "split": split}
    overrides = [f"--data.init_args.{name}={value}" for name, value in where.items()]
    learnt, data = train(CONFIG, [f"--seed_everything={seed}", *overrides], clock)
    energies = ModelEnergies(learnt.model, learnt.inference, random_state=seed)
    normal, x = (
        energies.fit_transform(rows.numpy()) for rows in (data.train.x[:NUM_FITTED], data.test.x)
    )
    detector = LatentEBMDetector(random_state=seed).fit(normal)
    terms = EnergyTerms(*torch.from_numpy(x).unbind(1))
    columns = {**terms.columns(), "prior": terms.tilt + terms.base}
    columns["terms"] = torch.from_numpy(-detector.score_samples(x))
    anomaly = data.test.label == digit
    scores = {name: auroc_auprc(column, anomaly) for name, column in columns.items()}
    return {
        **scores,
        "stages": len(staged_prior(learnt.model).stages),
        "seconds": clock.curve[-1]["seconds"],
    }


def held_out(digit: int, split: str, seed: int) -> MNIST:
    """Images without ``digit`` to train on, and test images with it."""
    data = MNIST(heldout=digit, split=split, seed=seed, num_val=1)
    data.setup()
    return data


def timed(fit: Callable[[], Callable[[], Tensor]], anomaly: Tensor) -> dict[str, Any]:
    """AUROC and AUPRC of the scores of all test images by what ``fit`` returns; CPU seconds of
    both.
    """
    torch.set_num_threads(1)
    start = time.process_time()
    score = fit()
    fitted = time.process_time()
    scores = score()
    seconds = {"fit": fitted - start, "score": time.process_time() - fitted}
    return {"joint": auroc_auprc(scores, anomaly), **seconds}


def run_detector(digit: int, split: str, seed: int) -> dict[str, Any]:
    """The detector's joint energy."""
    data = held_out(digit, split, seed)

    def fit() -> Callable[[], Tensor]:
        detector = LatentEBMDetector(random_state=seed, **DETECTOR).fit(
            data.train.x.flatten(1).numpy()
        )
        return lambda: torch.as_tensor(-detector.score_samples(data.test.x.flatten(1).numpy()))

    return timed(fit, data.test.label == digit)


def principal(data: MNIST, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and test images in 50 principal components of all training images."""
    train_x, test_x = (part.x.flatten(1).numpy() for part in (data.train, data.test))
    pca = PCA(NEIGHBOURS["pca"], random_state=seed).fit(train_x)
    return pca.transform(train_x), pca.transform(test_x)


def run_neighbours(digit: int, split: str, seed: int) -> dict[str, Any]:
    """LOF (20 neighbours) and k-NN (mean distance to 5) on principal components."""
    data = held_out(digit, split, seed)
    train_x, test_x = principal(data, seed)
    lof = LocalOutlierFactor(n_neighbors=20, novelty=True).fit(train_x)
    knn = NearestNeighbors(n_neighbors=5).fit(train_x)
    scores = {"lof": -lof.score_samples(test_x), "knn": knn.kneighbors(test_x)[0].mean(1)}
    anomaly = data.test.label == digit
    return {name: auroc_auprc(Tensor(score), anomaly) for name, score in scores.items()}


def run_peer(name: str, digit: int, split: str, seed: int) -> dict[str, Any]:
    """A detector of ``experiments.adbench`` on principal components."""
    data = held_out(digit, split, seed)

    def fit() -> Callable[[], Tensor]:
        train_x, test_x = principal(data, seed)
        scorer = DETECTORS[name](train_x, seed)
        return lambda: Tensor(scorer(test_x))

    return timed(fit, data.test.label == digit)


RUNS = {
    "detector": (run_detector, DETECTOR),
    "model": (run_model, settings(CONFIG, fitted=NUM_FITTED)),
    "neighbours": (run_neighbours, NEIGHBOURS),
    **{file_name(name): (partial(run_peer, name), {"peer": name}) for name in PEERS},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--digits", type=int, nargs="+", default=DIGITS)
    parser.add_argument("--splits", nargs="+", default=SPLITS, choices=SPLITS)
    parser.add_argument("--detectors", nargs="+", default=list(RUNS), choices=list(RUNS))
    args = parser.parse_args()
    runs = [
        (s, d, p, x)
        for s in args.seeds
        for d in args.digits
        for p in args.splits
        for x in args.detectors
    ]
    for seed, digit, split, detector in runs:
        if detector == "neighbours" and split == "standard" and seed > 0:
            continue  # nothing random is left in it
        run, config = RUNS[detector]
        name = f"anomaly/{split}-{digit}-{detector}-{seed}"
        print(
            f"  {cached(name, {**config, 'seed': seed}, partial(run, digit, split, seed))}",
            flush=True,
        )
