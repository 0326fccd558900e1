r"""One frozen encoder for every task: its features, for the simple detectors of scikit-learn.

An encoder that was trained without labels on some images describes others well enough that a
nearest neighbour or a Gaussian in its feature space finds anomalies there (Xiao, Yan, Amit 2021,
arXiv:2105.09270). ``FrozenFeatures`` is the first step of such a pipeline::

    make_pipeline(FrozenFeatures(encoder), LocalOutlierFactor(novelty=True)).fit(images)
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import validate_data
from torch import Tensor, nn
from torch.nn.functional import normalize

from latent_ebm.writing import atomic_path
from samplers.checks import check_counts

Pooling = Literal["avg", "max", "none"]


@contextmanager
def evaluation(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, without gradients; afterwards every module is in the mode
    it was in.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


class FrozenFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Rows X (n, \\*event) to the features (n, d), in float64, that ``encoder`` has for them.
    Nothing is learnt.

    Args:
        encoder: Any ``nn.Module`` from (n, \\*event) to a tensor, on any device and of any
            precision. If it expects inputs of another size or range, put a module that makes them
            before it, in an ``nn.Sequential``.
        layer: The name of the module whose output is taken, as in ``encoder.named_modules()``;
            None: the encoder's own output.
        pooling: How positions of maps (n, d, H, W) or tokens (n, positions, d) are joined: "avg",
            "max", or "none" (flattened).
        normalize: Divide features by their Euclidean norm; those of norm zero stay.
        batch_size: The number of rows at once. The last batch is filled up, so that features do
            not depend on the other rows.
        cache_dir: A folder that keeps the features of every X seen, by a hash of weights, settings
            and X; None: keep none.

    Raises:
        ValueError: For an unknown ``layer`` or ``pooling``, or features that are not finite.
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

    def fit(self, X: Any, y: Any = None) -> "FrozenFeatures":
        """Check the parameters against the first row of X. ``y`` is ignored."""
        X = validate_data(self, X, allow_nd=True, dtype=[np.float64, np.float32])
        self._n_features_out = self._features(X[:1]).shape[1]
        self._shape = X.shape[1:]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Features (n, d) of rows X (n, \\*event)."""
        X = validate_data(self, X, reset=False, allow_nd=True, dtype=[np.float64, np.float32])
        if X.shape[1:] != getattr(self, "_shape", X.shape[1:]):
            raise ValueError(
                f"X must hold rows of shape {self._shape} as in fit, got {X.shape[1:]}"
            )
        if self.cache_dir is None:
            return self._features(X)
        path = Path(self.cache_dir) / f"{self._key(X)}.npy"
        if not path.exists():
            with atomic_path(path) as draft, draft.open("wb") as file:
                np.save(file, self._features(X), allow_pickle=False)
        return np.load(path, allow_pickle=False)

    def _features(self, X: np.ndarray) -> np.ndarray:
        if self.pooling not in get_args(Pooling):
            raise ValueError(
                f"pooling must be one of {', '.join(get_args(Pooling))}, got {self.pooling!r}"
            )
        if not isinstance(self.encoder, nn.Module):
            raise ValueError(f"encoder must be an nn.Module, got {self.encoder!r}")
        check_counts(self, batch_size=self.batch_size)
        with evaluation(self.encoder):
            parts = [
                self._batch(X[i : i + self.batch_size]) for i in range(0, len(X), self.batch_size)
            ]
        features = torch.cat(parts)
        finite = features.isfinite().all(1)
        if not bool(finite.all()):
            raise ValueError(
                f"features must be finite: {int((~finite).sum())} of {len(X)} rows have others"
            )
        return (normalize(features, dim=1) if self.normalize else features).numpy()

    def _batch(self, rows: np.ndarray) -> Tensor:
        """Pooled features (k, d) in float64 of k <= ``batch_size`` rows, computed at the full
        batch size.
        """
        x = torch.tensor(rows).to(_like(self.encoder))
        filled = torch.cat([x, x.new_zeros(self.batch_size - len(x), *x.shape[1:])])
        return self._pool(self._output(filled)[: len(x)]).double().cpu()

    def _output(self, x: Tensor) -> Tensor:
        """What the layer says of ``x``; a module that is called more than once is taken at its
        last call.
        """
        modules = dict(self.encoder.named_modules())
        if self.layer is not None and self.layer not in modules:
            names = ", ".join(filter(None, modules)) or "None, as the encoder has no parts"
            raise ValueError(f"layer must be one of {names}, got {self.layer!r}")
        outputs: list[Any] = []
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
        """A hash of all that features depend on."""
        settings = (
            self.layer,
            self.pooling,
            self.normalize,
            self.batch_size,
            X.dtype.str,
            X.shape,
        )
        digest = hashlib.sha256(repr((str(self.encoder), settings)).encode())
        for name, tensor in chain(self.encoder.named_parameters(), self.encoder.named_buffers()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        digest.update(np.ascontiguousarray(X).tobytes())
        return digest.hexdigest()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags


def _like(network: nn.Module) -> Tensor:
    """A tensor of the device and precision of ``network``."""
    tensors = chain(network.parameters(), network.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
