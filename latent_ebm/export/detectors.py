r"""The score of a detector as an ONNX file: rows in, ``score_samples`` out. Standardisation,
kernels and stages are inside.

The latents of a row are the encoder's mean, so the score is deterministic and needs no sampler.
Everything is computed in float64, as in the detector, except the features of images: ONNX Runtime
has no convolutions in float64. The written file is compared with the detector.
"""

import os
from copy import deepcopy
from importlib.util import find_spec

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from latent_ebm.detection.checks import Energy
from latent_ebm.detection.detector import LatentEBMDetector
from latent_ebm.detection.parts import View
from latent_ebm.export.onnx import write_onnx
from latent_ebm.writing import atomic_path

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3}
MAX_CHECKED = 200


class Score(nn.Module):
    """``score_samples`` of a fitted ``detector``: rows (n, d) in float64 -> scores (n,) in
    float64.
    """

    location: Tensor
    spread: Tensor

    def __init__(self, detector: LatentEBMDetector) -> None:
        super().__init__()
        num = detector.rows_[0].numel()
        self.register_buffer("location", torch.as_tensor(detector.scaler_.mean_))
        self.register_buffer("spread", torch.as_tensor(detector.scaler_.scale_))
        self.shape = (num,) if detector.image_shape is None else tuple(detector.image_shape)
        self.dtype = torch.float64 if detector.image_shape is None else torch.float32
        self.parts = nn.ModuleList(
            ViewScore(view, detector.energy, detector.elbo_noise_, self.dtype)
            for view in detector.views_
        )

    def forward(self, rows: Tensor) -> Tensor:
        images = ((rows - self.location) / self.spread).unflatten(1, self.shape)
        return torch.stack([part(images.to(self.dtype)) for part in self.parts]).sum(0)


class ViewScore(nn.Module):
    """The part of a score that one ``view`` adds: rows (n, \\*event) in ``dtype`` -> (n,) in
    float64.
    """

    noise: Tensor

    def __init__(self, view: View, energy: Energy, noise: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.view, self.energy = deepcopy(view), energy
        self.view.features.to(dtype)
        self.register_buffer("noise", noise)

    def forward(self, images: Tensor) -> Tensor:
        x = self.view.features(images).double()
        q = self.view.posterior(x)
        if self.energy == "elbo":
            z = q.mean + q.stddev * self.noise[:, : q.mean.shape[1]].unsqueeze(1)
            copies = x.expand(len(self.noise), *x.shape).flatten(0, 1)
            joint = self.log_joint(copies, z.flatten(0, 1)).unflatten(0, (len(self.noise), -1))
            return (joint - q.log_prob(z)).mean(0)
        return self.log_joint(x, q.mean)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """The terms (n,) of ``log p(x|z) + log p(z)`` that the detector counts."""
        if self.energy == "prior":
            return self.view.prior(z)
        conditional = self.view.likelihood(z).log_prob(x)
        return conditional if self.energy == "reconstruction" else conditional + self.view.prior(z)


def export_onnx(detector: LatentEBMDetector, path: str | os.PathLike[str]) -> None:
    """Write the score of a fitted ``detector`` to ``path``: input ``rows`` (n, d), output
    ``score`` (n,), both float64.

    If ONNX Runtime is installed, the file is compared with the detector on its training rows.

    Raises:
        RuntimeError: If file and detector disagree; no file is left then.
        ImportError: Without the extra "onnx".
        NotFittedError: (scikit-learn's) If the detector is not fitted.
    """
    check_is_fitted(detector)
    rows = detector.scaler_.inverse_transform(detector.rows_[:MAX_CHECKED].flatten(1).numpy())
    network = Score(detector).eval()
    with atomic_path(path) as temporary:
        write_onnx(network, {"rows": torch.as_tensor(rows[:2])}, temporary, ("score",))
        if find_spec("onnxruntime") is not None:
            check_parity(temporary, rows, detector.score_samples(rows), TOLERANCE[network.dtype])


def check_parity(
    path: str | os.PathLike[str], rows: np.ndarray, scores: np.ndarray, tolerance: float
) -> None:
    """Raise ``RuntimeError`` unless the file gives ``scores`` (n,) for ``rows`` (n, d) to
    ``tolerance * (1 + |score|)``.
    """
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    found = session.run(["score"], {"rows": rows})[0]
    worst = float((np.abs(found - scores) / (1 + np.abs(scores))).max())
    if not worst <= tolerance:
        raise RuntimeError(
            f"the ONNX file must agree with the detector up to {tolerance:g}, got {worst:g}"
        )
