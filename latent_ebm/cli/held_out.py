"""The held-out metrics of a checkpoint on its own data, as a file and as figures."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from latent_ebm.data import DataModule, TensorSet
from latent_ebm.evaluation import evaluate, evaluation_figures
from latent_ebm.learning.latent import LatentRule
from latent_ebm.networks.classifier import MAX_SIDE, MIN_SIDE, frozen_classifier
from latent_ebm.plots import save_figure
from latent_ebm.writing import atomic_path

NUM_CLASSIFIED = 20_000  # images that the feature classifier is trained on, at most
NUM_STEPS = 400  # of its training, about


def make_features(
    train: TensorSet, channels: int = 16, progress: bool = False
) -> Callable[[Tensor], Tensor] | None:
    """Features of images, (n, C, H, W) -> (n, d): those of a classifier trained on the labels of
    ``train``.

    None without labels, and for images too small or too large for the classifier. The same images
    give the same classifier, so that models are compared in the same space.
    """
    num_classes = int(train.label.max()) + 1
    if train.x.ndim != 4 or num_classes < 2 or int(train.label.min()) < 0:
        return None
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in train.x.shape[2:]):
        return None
    x, label = train.x[:NUM_CLASSIFIED], train.label[:NUM_CLASSIFIED]
    epochs = max(2, NUM_STEPS * 100 // len(x))
    return frozen_classifier(
        x, label, num_classes, channels, epochs=epochs, batch_size=100, progress=progress
    ).features


def evaluate_checkpoint(
    rule: LatentRule, data: DataModule, out: Path, seed: int, quick: bool
) -> dict[str, float]:
    """Write ``metrics.json`` and the figures of ``evaluation_figures`` into ``out``, and return
    the metrics by name.
    """
    data.prepare_data()
    data.setup()
    parts = rule.model, rule.inference, data.train.x, data.test.x
    generator = torch.Generator().manual_seed(seed)
    features = make_features(data.train)
    if features is None and data.train.x.ndim == 4:
        what = f"labels and sides of {MIN_SIDE} to {MAX_SIDE} pixels"
        print(
            f"latent-ebm: no metrics in the features of a classifier, which needs {what}",
            file=sys.stderr,
        )
    metrics = evaluate(*parts, features=features, quick=quick, generator=generator)
    with atomic_path(out / "metrics.json") as path:
        path.write_text(json.dumps(metrics, indent=2) + "\n")
    show = data.as_pictures if data.train.x.ndim == 4 else data.inverse_transform
    figures = {} if quick else evaluation_figures(*parts, show=show, generator=generator)
    for name, figure in figures.items():
        save_figure(figure, out / f"{name}.png")
    return metrics


def print_metrics(metrics: dict[str, float]) -> None:
    """Print one line per metric."""
    width = max(map(len, metrics))
    for name, value in metrics.items():
        print(f"{name:{width}}  {value:.4g}")
