"""A small image classifier whose penultimate layer gives features for sample-based metrics.

Distances between images are only as good as the space in which they are measured. A network that
is trained to classify the data set at hand maps images to a few coordinates. They keep what
distinguishes the classes and drop the rest. A Frechet distance or nearest-neighbour balls need
such features on digits, where an ImageNet network is out of its domain.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from latent_ebm.artefacts import Artefact
from samplers.checks import check_counts, check_numbers

MIN_SIDE, MAX_SIDE = 8, 64  # pixels of its images


class FeatureClassifier(Artefact):
    """Strided convolutions down to at most 4x4, one hidden layer (the features), one linear layer
    (the logits).

    Args:
        shape: image shape (channels, height, width), sides from 8 to 64.
        num_classes: number of logits, at least 2.
        channels: width of the first convolution; later ones are twice and four times as wide, the
            features eight times.

    Raises:
        ValueError: a side is outside 8..64, or a number is too small.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int, channels: int = 16) -> None:
        super().__init__()
        if (
            len(shape) != 3
            or shape[0] < 1
            or not all(MIN_SIDE <= side <= MAX_SIDE for side in shape[1:])
        ):
            rule = f"(channels >= 1, height, width), sides {MIN_SIDE} to {MAX_SIDE}"
            raise ValueError(f"shape must be {rule}, got {tuple(shape)}")
        check_counts(self, least=2, num_classes=num_classes)
        check_counts(self, channels=channels)
        self.shape, self.num_classes, self.channels = tuple(shape), num_classes, channels
        self.feature_dim = 8 * channels
        num_halvings = math.ceil(math.log2(max(shape[1:]) / 4))
        stem_stride = (
            1 if num_halvings <= 2 else 2
        )  # of a large image, full resolution would be most of the cost
        widths = [channels * 2 ** min(level, 2) for level in range(num_halvings - stem_stride + 2)]
        layers: list[nn.Module] = [
            nn.Conv2d(shape[0], channels, 5, stride=stem_stride, padding=2),
            nn.ReLU(),
        ]
        for width_in, width_out in pairwise(widths):
            layers += [nn.Conv2d(width_in, width_out, 3, stride=2, padding=1), nn.ReLU()]
        flat = widths[-1] * math.prod(math.ceil(side / 2**num_halvings) for side in shape[1:])
        self.body = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(flat, self.feature_dim), nn.ReLU()
        )
        self.head = nn.Linear(self.feature_dim, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Penultimate activations, (n, *shape) -> (n, feature_dim)."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits, (n, *shape) -> (n, num_classes)."""
        return self.head(self.features(x))


def fit_classifier(
    network: FeatureClassifier,
    x: Tensor,
    label: Tensor,
    *,
    epochs: int = 2,
    batch_size: int = 128,
    lr: float = 2e-3,
    progress: bool = True,
    generator: torch.Generator | None = None,
) -> list[float]:
    """Train the network in place by cross-entropy with Adam (arXiv:1412.6980). Only the order of
    the rows is random.

    Args:
        network: the classifier, on the device and of the dtype of x.
        x: images, shape (n, *network.shape), n >= 1.
        label: classes, int64, shape (n,), in 0..num_classes-1.
        epochs: passes over the data, at least 1.
        batch_size: images per step, at least 1; the last batch of an epoch may be smaller.
        lr: Adam's learning rate, positive.
        progress: show a bar for every epoch.
        generator: random generator of the shuffles.

    Returns:
        The mean training loss of every epoch.

    Raises:
        ValueError: an argument breaks its rule.
        FloatingPointError: the loss of an epoch is not finite.
    """
    _check_fit(network, x, label, epochs, batch_size, lr)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    device = x.device if generator is None else generator.device
    losses = []
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=generator, device=device).to(x.device)
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        for index in tqdm(
            order.split(batch_size), desc=f"epoch {epoch + 1}/{epochs}", disable=not progress
        ):
            loss = cross_entropy(network(x[index]), label[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(index)
        losses.append(float(total / len(x)))
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(
                f"the loss of epoch {epoch + 1} must be finite, got {losses[-1]}"
            )
    return losses


def frozen_classifier(
    x: Tensor,
    label: Tensor,
    num_classes: int,
    channels: int = 16,
    *,
    epochs: int = 2,
    batch_size: int = 128,
    progress: bool = True,
) -> FeatureClassifier:
    """A classifier of images x (n, C, H, W) by ``label`` (n,), trained by ``fit_classifier``.

    Weights and order come from a fixed seed, so that all images are compared in the same space.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        num_channels, height, width = x.shape[1:]
        network = FeatureClassifier((num_channels, height, width), num_classes, channels).to(x)
    fit_classifier(
        network,
        x,
        label,
        epochs=epochs,
        batch_size=batch_size,
        progress=progress,
        generator=torch.Generator("cpu").manual_seed(0),
    )
    return network.eval().requires_grad_(False)


def _check_fit(
    network: FeatureClassifier, x: Tensor, label: Tensor, epochs: int, batch_size: int, lr: float
) -> None:
    if len(x) == 0 or x.shape[1:] != network.shape:
        raise ValueError(f"x must have shape (n >= 1, {network.shape}), got {tuple(x.shape)}")
    if label.shape != x.shape[:1] or label.dtype != torch.int64:
        raise ValueError(
            f"label must be int64 of shape ({len(x)},), got {label.dtype} of {tuple(label.shape)}"
        )
    if not bool(((label >= 0) & (label < network.num_classes)).all()):
        raise ValueError(
            f"label must lie in 0..{network.num_classes - 1}, got "
            f"{int(label.min())}..{int(label.max())}"
        )
    check_counts("fit_classifier", epochs=epochs, batch_size=batch_size)
    check_numbers("fit_classifier", "positive", lr=lr)
