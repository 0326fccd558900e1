"""Do features of one frozen encoder, learnt elsewhere, find anomalies better than those learnt on
the task's own images?

``LATENT_EBM_DATA=DIR python -m experiments.universal`` (the question of arXiv:2105.09270). The
universal encoder is trained without labels (VICReg) on five classes of CIFAR-10 (jpeg); the tasks
are the other five, and three digits of MNIST, each against the rest: 1,000 images of the class
train, the test images of all classes of the task's kind are scored. The encoder of the task's own
domain is trained by the same rule on those 1,000 images alone. Floors are an encoder with the
weights it is born with, and 50 principal components of the pixels. No setting was chosen by these
test images.
"""

import argparse
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.data import DataLoader

from experiments.adbench.run import Fit, areas, latent_ebm, nearest, sklearn_novelty
from experiments.common import HERE, cached, file_name, prepare, settings
from latent_ebm.data import MNIST, Images, TensorSet
from latent_ebm.data.base import collate
from latent_ebm.detection import FrozenFeatures

CONFIG = HERE / "universal" / "vicreg.yaml"
NUM_TRAIN, NUM_COMPONENTS = 1000, 50
EPOCHS = {"universal": 4, "in-domain": 20, "in-domain, longer": 80}
TASKS = {"CIFAR-10 (jpeg)": (1, 3, 5, 7, 9), "MNIST": (1, 4, 5)}
FEATURES = ("pixels, PCA-50", "random", *EPOCHS)


def mixture(num: int, seed: int) -> Any:
    """A mixture of ``num`` Gaussians on standardised columns; of one, its score is the Mahalanobis
    distance.
    """
    return make_pipeline(StandardScaler(), GaussianMixture(num, reg_covar=1e-2, random_state=seed))


HEADS: dict[str, Fit] = {
    "k-NN": nearest,
    "Mahalanobis": partial(sklearn_novelty, partial(mixture, 1)),
    "Gaussian mixture": partial(sklearn_novelty, partial(mixture, 5)),
    "one-class SVM": partial(sklearn_novelty, lambda seed: OneClassSVM()),
    "latent EBM": latent_ebm,
}


@cache
def mnist(seed: int) -> MNIST:
    data = MNIST(num_val=1, seed=seed)
    data.setup()
    return data


@cache
def images(seed: int, *classes: int, num_train: int | None = None) -> Images:
    data = Images(classes=classes, num_train=num_train, num_val=1, seed=seed)
    data.setup()
    return data


def coloured(x: Tensor) -> Tensor:
    """MNIST (n, 1, 28, 28) in the shape of CIFAR-10, (n, 3, 32, 32)."""
    return pad(x, (2, 2, 2, 2), value=-1.0).expand(-1, 3, -1, -1)


def load(domain: str, task: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Training images of the task, test images, and which of these are anomalies."""
    if domain == "MNIST":
        train, test = mnist(seed).train, mnist(seed).test
        return (
            coloured(train.x[train.label == task][:NUM_TRAIN]),
            coloured(test.x),
            test.label != task,
        )
    test = images(0, *TASKS[domain], num_train=1).test
    return images(seed, task, num_train=NUM_TRAIN).train.x, test.x, test.label != task


def learn(x: Tensor, epochs: int, seed: int) -> nn.Module:
    """The encoder that the rule of the YAML file learns from images ``x``."""
    run = prepare(CONFIG, [f"--seed_everything={seed}", f"--trainer.max_epochs={epochs}"])
    rows = DataLoader(TensorSet(x), 128, shuffle=True, drop_last=True, collate_fn=collate)
    run.trainer.fit(run.model, rows)
    return run.model.encoder


@cache
def universal(seed: int) -> nn.Module:
    """The encoder that every task of ``seed`` shares; its training classes are those of the YAML
    file.
    """
    data = prepare(CONFIG).datamodule
    data.setup()
    return learn(data.train.x, EPOCHS["universal"], seed)


def extractor(features: str, x: Tensor, seed: int) -> Any:
    """The transformer that gives ``features``, fitted to the training images ``x`` if it learns
    from them.
    """
    if features == "pixels, PCA-50":
        pixels = FrozenFeatures(nn.Flatten(), normalize=False)
        return make_pipeline(pixels, PCA(NUM_COMPONENTS, random_state=seed)).fit(x.numpy())
    makers: dict[str, Callable[[], nn.Module]] = {
        "random": lambda: prepare(CONFIG, [f"--seed_everything={seed}"]).model.encoder,
        "universal": lambda: universal(seed),
    }
    encoder = makers.get(features, lambda: learn(x, EPOCHS[features], seed))()
    return FrozenFeatures(encoder, cache_dir=HERE / "runs" / "features")


def run(features: str, domain: str, task: int, seed: int) -> dict[str, Any]:
    """AUROC and AUPRC of every head, and CPU seconds to learn the features."""
    x, test, anomaly = load(domain, task, seed)
    start = time.process_time()
    transformer = extractor(features, x, seed)
    result: dict[str, Any] = {"seconds": time.process_time() - start}
    train_rows, test_rows = (np.asarray(transformer.transform(part.numpy())) for part in (x, test))
    for head, fit in HEADS.items():
        result[head] = areas(torch.as_tensor(fit(train_rows, seed)(test_rows)), anomaly)
    return result


def config(features: str, seed: int) -> dict[str, Any]:
    """What a result depends on."""
    learnt = settings(CONFIG, epochs=EPOCHS[features]) if features in EPOCHS else {}
    return {
        **learnt,
        "features": features,
        "heads": list(HEADS),
        "num_train": NUM_TRAIN,
        "seed": seed,
    }


def result_name(domain: str, task: int, features: str, seed: int) -> str:
    """The name under which a result is stored."""
    return file_name(f"{domain}-{task}-{features}-{seed}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--domains", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--features", nargs="+", default=FEATURES[:-1], choices=FEATURES)
    args = parser.parse_args()
    runs = [
        (f, d, t, s)
        for s in args.seeds
        for d in args.domains
        for f in args.features
        for t in TASKS[d]
    ]
    for features, domain, task, seed in runs:
        name = result_name(domain, task, features, seed)
        compute = partial(run, features, domain, task, seed)
        print(f"  {cached(f'universal/{name}', config(features, seed), compute)}", flush=True)
