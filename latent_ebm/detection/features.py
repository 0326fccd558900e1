r"""The features of one frozen encoder, for scikit-learn's detectors and for every task.

An encoder that was trained without labels on some images describes other images well enough for
nearest neighbours or a Gaussian to find anomalies in its feature space (Xiao, Yan, Amit 2021,
arXiv:2105.09270). ``FrozenFeatures`` is the first step of such a pipeline::

    make_pipeline(FrozenFeatures(encoder), LocalOutlierFactor(novelty=True)).fit(images)
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from torch import Tensor, nn
from torch.nn.functional import normalize

from latent_ebm.artefacts.classes import full_name
from latent_ebm.denoisers.generation import like
from latent_ebm.detection.checks import check_finite_rows, validated
from latent_ebm.writing import atomic_path
from samplers.checks import check_counts

Pooling = Literal["avg", "max", "none"]
PRECISIONS = [np.float64, np.float32]


@contextmanager
def evaluation(network: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside the block; afterwards every module has its old
    mode.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def plain_attributes(part: nn.Module) -> dict[str, object]:
    """The attributes of ``part`` that are numbers, texts, or tuples or lists of them, by name."""

    def plain(value: object) -> bool:
        return isinstance(value, bool | int | float | str) or (
            isinstance(value, tuple | list) and all(map(plain, value))
        )

    names = sorted(name for name in vars(part) if name != "training" and plain(vars(part)[name]))
    return {name: vars(part)[name] for name in names}


class FrozenFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Maps rows X (n, \\*event) to the features (n, d), in float64, that ``encoder`` computes.
    Nothing is learned.

    Args:
        encoder: any ``nn.Module``, (n, \\*event) -> tensor, on any device, of any precision. Put a
            module that resizes or rescales its inputs before it, in an ``nn.Sequential``.
        layer: name of the module whose output is used, as in ``encoder.named_modules()``; None:
            the output of the encoder.
        pooling: over the positions of maps (n, d, H, W) or of tokens (n, positions, d): "avg",
            "max", or "none", which flattens them.
        normalize: divide features by their Euclidean norm, unless it is zero.
        batch_size: number of rows that are encoded together. The last batch is filled up, so that
            the features of a row do not depend on the other rows.
        cache_dir: folder that keeps the features of every X, under a hash of X, the weights of the
            encoder, and the classes of its parts with their attributes that are numbers or texts.
            Delete it if you change the code of a part. None: keep none.

    Raises ``ValueError`` for an unknown ``layer`` or ``pooling``, and for features that are not
    finite.
    """

    def __init__(
        self,
        encoder: nn.Module,
        layer: str | None = None,
        pooling: Pooling = "avg",
        normalize: bool = True,
        batch_size: int = 128,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.encoder = encoder
        self.layer = layer
        self.pooling = pooling
        self.normalize = normalize
        self.batch_size = batch_size
        self.cache_dir = cache_dir

    def fit(self, X: ArrayLike, y: object = None) -> "FrozenFeatures":
        """Check the parameters against the first row of X. ``y`` is ignored."""
        rows = validated(self, X, allow_nd=True, dtype=PRECISIONS)
        self._check_parameters()
        self._n_features_out = self._features(rows[:1]).shape[1]
        self._shape = rows.shape[1:]
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Features (n, d) of rows X (n, \\*event)."""
        rows = validated(self, X, reset=False, allow_nd=True, dtype=PRECISIONS)
        self._check_parameters()
        if rows.shape[1:] != getattr(self, "_shape", rows.shape[1:]):
            raise ValueError(
                f"X must hold rows of shape {self._shape} as in fit, got {rows.shape[1:]}"
            )
        if self.cache_dir is None:
            return self._features(rows)
        path = Path(self.cache_dir).expanduser() / f"{self._key(rows)}.npy"
        if not path.exists():
            with atomic_path(path) as draft, draft.open("wb") as file:
                np.save(file, self._features(rows), allow_pickle=False)
        return np.load(path, allow_pickle=False)

    def _check_parameters(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise ValueError(
                f"pooling must be one of {', '.join(get_args(Pooling))}, got {self.pooling!r}"
            )
        if not isinstance(self.encoder, nn.Module):
            raise ValueError(f"encoder must be an nn.Module, got {self.encoder!r}")
        check_counts(self, batch_size=self.batch_size)

    def _features(self, X: np.ndarray) -> np.ndarray:
        with evaluation(self.encoder):
            parts = [
                self._batch(X[i : i + self.batch_size]) for i in range(0, len(X), self.batch_size)
            ]
        features = check_finite_rows("features", torch.cat(parts))
        return (normalize(features, dim=1) if self.normalize else features).numpy()

    def _batch(self, rows: np.ndarray) -> Tensor:
        """Pooled features (k, d) in float64 of k <= ``batch_size`` rows, computed as a full
        batch.
        """
        x = torch.tensor(rows).to(like(self.encoder))
        filled = torch.cat([x, x.new_zeros(self.batch_size - len(x), *x.shape[1:])])
        return self._pool(self._output(filled)[: len(x)]).double().cpu()

    def _output(self, x: Tensor) -> Tensor:
        """The output of the layer for ``x``, at its last call if it is called more than once."""
        modules = dict(self.encoder.named_modules())
        if self.layer is not None and self.layer not in modules:
            names = ", ".join(filter(None, modules)) or "None, as the encoder has no parts"
            raise ValueError(f"layer must be one of {names}, got {self.layer!r}")
        outputs: list[object] = []
        hook = modules[self.layer or ""].register_forward_hook(
            lambda module, inputs, output: outputs.append(output)
        )
        try:
            self.encoder(x)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"encoder must take rows of shape {tuple(x.shape[1:])}, but says: {reason}"
            ) from error
        finally:
            hook.remove()
        if not outputs or not isinstance(outputs[-1], Tensor):
            found = type(outputs[-1]).__name__ if outputs else "no call"
            raise ValueError(
                f"layer must name a module that returns a tensor, got {found} from {self.layer!r}"
            )
        return outputs[-1]

    def _pool(self, output: Tensor) -> Tensor:
        positions = {3: (1,), 4: (2, 3)}.get(output.ndim)
        if positions is None or self.pooling == "none":
            return output.flatten(1)
        return output.mean(positions) if self.pooling == "avg" else output.amax(positions)

    def _key(self, X: np.ndarray) -> str:
        """A hash of everything that the features depend on."""
        settings = (
            self.layer,
            self.pooling,
            self.normalize,
            self.batch_size,
            X.dtype.str,
            X.shape,
        )
        parts = [(full_name(type(m)), plain_attributes(m)) for m in self.encoder.modules()]
        digest = hashlib.sha256(repr((str(self.encoder), parts, settings)).encode())
        for name, tensor in chain(self.encoder.named_parameters(), self.encoder.named_buffers()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        digest.update(np.ascontiguousarray(X).tobytes())
        return digest.hexdigest()

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags
