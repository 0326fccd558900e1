r"""Anomaly detection by the energy of a latent model, for users of scikit-learn.

``LatentEBMDetector`` learns where normal rows lie and scores new ones by ``log p(x, z)`` at their
code, up when normal. What is fitted is in ``detector_model``, and how in ``detector_fitting``; no
label and no anomaly is needed. A threshold with a guarantee is ``ConformalCalibrator``'s.
Protocols and figures: ``experiments/RESULTS.md``.
"""

import copy
import math
import os
import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from latent_ebm.artefacts import Described
from latent_ebm.detection import fitting, parts
from latent_ebm.detection.checks import LIMIT, Energy, check_magnitude, check_parameters
from latent_ebm.kernels import NeighbourPrior
from samplers import value_and_grad

TERMS = {
    "joint": ("reconstruction", "prior"),
    "reconstruction": ("reconstruction",),
    "prior": ("prior",),
}
NUM_ELBO_DRAWS, NUM_PATH_POINTS, NUM_MODE_STEPS = 16, 16, 20
MAX_FENCED = 5000  # rows whose leave-one-out scores set the automatic threshold


class Explanation(NamedTuple):
    """Why rows score as they do, all (n, d) in the units of X: see
    ``LatentEBMDetector.explain``.
    """

    contribution: np.ndarray
    residual: np.ndarray
    reconstruction: np.ndarray


class LatentEBMDetector(OutlierMixin, BaseEstimator, Described):
    """Scores rows by the energy of a latent model; up is normal, as everywhere in scikit-learn.

    Scores are deterministic: they are computed in float64 and rounded to 24 significant bits,
    because lower bits of a matrix product depend on the number of rows. So the score of a row does
    not depend on the rows that are scored with it.

    Args:
        energy: What the score is made of: "joint" (``log p(x|z) + log p(z)``); "prior" or
            "reconstruction", one of its two terms ("reconstruction" only for tables, and with
            ``latent_dim`` below their number of columns); or "elbo".
        contamination: "auto": a row is an outlier below the lower Tukey fence of leave-one-out
            training scores. A number in (0, 0.5]: the share of training rows that ``predict``
            calls outliers, exactly.
        image_shape: None for tables. (C, H, W) for rows that are flat images, with H and W from 8
            on: features are learnt from them, and at least 10 images are needed.
        latent_dim: The largest number of entries of a code, and of learnt features of an image.
        max_stages: The largest number of ratio stages that tilt the kernels of a table. Stages are
            added only while held-out rows ask for it. They cost many times the rest of the fit,
            and on the tables of ADBench they gain nothing on average.
        max_exemplars: The largest number of training rows, drawn at random, that carry a kernel.
            The time of scoring is proportional to it.
        trim: A share in [0, 0.5) of the rows that carry kernels: those that fit the others least
            are left out in a second fit.
        max_steps: The largest number of training steps for the features of images, which are
            learnt from averages over at most 32 x 32 pixels. Fits to images agree bit for bit only
            on the same number of threads, because the order of sums in a convolution depends on
            it.
        channels: The width of the network of these features.
        encoder: A network of images (n, C, H, W) in [-1, 1]. Its frozen features, flattened to
            (n, d), replace the learnt ones. A detector with an encoder cannot be saved.
        warm_start: Continue from the standardisation and the networks of the last fit.
        random_state: As in scikit-learn.
        verbose: Show a progress bar.
    """

    def __init__(
        self,
        energy: Energy = "joint",
        contamination: float | Literal["auto"] = "auto",
        image_shape: Sequence[int] | None = None,
        latent_dim: int = 64,
        max_stages: int = 0,
        max_exemplars: int = 60_000,
        trim: float = 0.0,
        max_steps: int = 1000,
        channels: int = 16,
        encoder: nn.Module | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.energy = energy
        self.contamination = contamination
        self.image_shape = image_shape
        self.latent_dim = latent_dim
        self.max_stages = max_stages
        self.max_exemplars = max_exemplars
        self.trim = trim
        self.max_steps = max_steps
        self.channels = channels
        self.encoder = encoder
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "LatentEBMDetector":
        """Learn from rows X (n >= 2, d), normal ones for the most part. ``y`` is ignored."""
        check_parameters(self)
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self._check_columns(X)
        again = self.warm_start and hasattr(self, "views_")
        if not again:
            self.scaler_ = self._make_scaler(X)
        x = self._standardise(X)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(check_random_state(self.random_state).randint(2**31 - 1))
            self._fit_model(x, again)
            if self.trim > 0:
                scores = self._leave_one_out_scores(len(self.rows_))
                self._fit_model(
                    self.rows_[torch.as_tensor(scores >= np.quantile(scores, self.trim))], True
                )
        self.offset_ = self._threshold(x)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> "LatentEBMDetector":
        """Add rows to those that carry a kernel; standardisation, codes and stages stay. The first
        call fits.

        Above ``max_exemplars`` rows a random part of old and new ones stays.
        """
        if not hasattr(self, "views_"):
            return self.fit(X)
        check_parameters(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        x = torch.cat([self.rows_, self._standardise(X)])
        order = torch.as_tensor(check_random_state(self.random_state).permutation(len(x)))
        self.rows_ = x[order[: self.max_exemplars]]
        self._place_kernels()
        self.offset_ = self._threshold(x)
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """``log p`` (n,) of rows X (n, d) in nats, up to a constant, by the ``energy`` asked for;
        high is normal.
        """
        return self._scores(self._validated(X))

    def decision_function(self, X: Any) -> np.ndarray:
        """``score_samples`` above the threshold (n,): negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """+1 (n,) for inliers, -1 for outliers."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def explain(self, X: Any) -> Explanation:
        """Why rows X (n, d) score as they do.

        ``reconstruction`` is the model's own normal row beside each: its code, climbed up the
        kernels and decoded; of an image, the training one nearest in pixels. ``contribution`` is
        the gradient of the energy, averaged over the straight path between the two, times their
        distance: per feature, in nats. Its sum over features is the row's excess of energy, for
        images up to the jumps where other neighbours begin to count. ``residual`` is X minus its
        reconstruction. Source of the path: arXiv:1703.01365.
        """
        x = self._validated(X)
        end = parts.in_blocks(self._normal, x)
        ends = zip(x.split(parts.BLOCK), end.split(parts.BLOCK), strict=True)
        contribution = torch.cat([self._path_gradient(*pair) for pair in ends]) * (x - end)
        flat = (
            contribution.flatten(1).numpy(),
            self.scaler_.inverse_transform(end.flatten(1).numpy()),
        )
        raw = self.scaler_.inverse_transform(x.flatten(1).numpy())
        return Explanation(flat[0], raw - flat[1], flat[1])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the fitted detector to ``folder``, from where ``latent_ebm.load`` returns it too;
        see ``latent_ebm.save``.
        """
        from latent_ebm.detection.files import save_detector

        check_is_fitted(self)
        if self.encoder is not None:
            raise ValueError(
                "encoder must be None in a detector that is saved, got a "
                f"{type(self.encoder).__name__}"
            )
        save_detector(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "LatentEBMDetector":
        """The detector that ``save`` wrote. Raises ``FileNotFoundError`` or ``ValueError`` for a
        folder that holds none.
        """
        from latent_ebm.detection.files import load_detector

        return load_detector(cls, folder)[0]

    def _fit_model(self, x: Tensor, again: bool) -> None:
        """Views and their priors from standardised rows."""
        if float((x - x[0]).abs().max()) < 1 / LIMIT:
            few = "at least two different rows, besides what trim leaves out"
            raise ValueError(
                f"X must hold {few}, got copies of one, or rows that differ by less than "
                f"{1 / LIMIT:.0e}"
            )
        if not again:
            self.views_ = self._fit_views(x[torch.randperm(len(x))])
        x = x[torch.randperm(len(x))]
        if self.image_shape is None:
            with (
                warnings.catch_warnings()
            ):  # held-out rows, not the chains, decide whether a stage is any good
                warnings.filterwarnings("ignore", ".*never moved", UserWarning)
                fitting.fit_stages(self.views_[0], x, self.max_exemplars, self.max_stages)
        self.rows_ = x[: self.max_exemplars]
        self._place_kernels()
        for view in self.views_:
            fitting.widen(view)
        width = max(view.kernels.base.exemplars.shape[1] for view in self.views_)
        self.elbo_noise_ = torch.randn(NUM_ELBO_DRAWS, width, dtype=torch.float64)

    def _fit_views(self, x: Tensor) -> tuple[parts.View, ...]:
        features = parts.blank_features(self.image_shape, int(self.latent_dim), int(self.channels))
        if self.image_shape is not None:
            fitting.fit_components(cast(parts.Components, features[0]), x.flatten(1))
            if self.encoder is None:
                fitting.fit_features(
                    cast(nn.Sequential, features[1]), x.float(), int(self.max_steps), self.verbose
                )
            else:
                features[1] = nn.Sequential(copy.deepcopy(self.encoder), nn.Flatten())
            features[1].double().eval()
        return tuple(fitting.fit_linear(part, x, int(self.latent_dim)) for part in features)

    def _place_kernels(self) -> None:
        """Kernels of every view at the codes of ``rows_``."""
        for view in self.views_:
            fitting.place_kernels(view, self.rows_, local=self.image_shape is not None)

    def _scores(self, x: Tensor) -> np.ndarray:
        """Scores (n,) of standardised rows."""
        with torch.no_grad():
            return -rounded(self._energy(x).numpy())

    def _threshold(self, x: Tensor) -> float:
        """The score below which a row is an outlier, from standardised training rows."""
        if not isinstance(self.contamination, str):
            return float(np.percentile(self._scores(x), 100 * self.contamination))
        low, high = np.quantile(self._leave_one_out_scores(MAX_FENCED), [0.25, 0.75])
        return float(low - 1.5 * (high - low))

    def _leave_one_out_scores(self, num: int) -> np.ndarray:
        """Scores of the first ``num`` rows that carry kernels, each without its own."""
        rows = self.rows_[:num]
        with torch.no_grad():
            energy = self._energy(rows)
            if self.energy != "reconstruction":
                energy += torch.stack([view.own_part(len(rows)) for view in self.views_]).sum(0)
            return -energy.numpy()

    def _energy(self, x: Tensor) -> Tensor:
        """The energy (n,) that is asked for, of standardised rows."""
        if self.energy == "elbo":
            return parts.negative_elbo(self.views_, x, self.elbo_noise_)
        return parts.energy(self.views_, x, TERMS[self.energy])

    def _path_gradient(self, x: Tensor, end: Tensor) -> Tensor:
        """Gradient of the energy (n, \\*event), averaged over the straight path from ``end`` to
        ``x``.
        """
        ticks = (torch.arange(NUM_PATH_POINTS, dtype=x.dtype) + 0.5) / NUM_PATH_POINTS
        return torch.stack(
            [value_and_grad(self._energy, end + t * (x - end))[1] for t in ticks]
        ).mean(0)

    @torch.no_grad()
    def _normal(self, x: Tensor) -> Tensor:
        """The model's own normal row beside each of ``x`` (n, \\*event)."""
        view = self.views_[0]
        z = view.encode(x)
        if self.image_shape is not None:
            return self.rows_[cast(NeighbourPrior, view.kernels).closeness(z).argmax(1)]
        for _ in range(NUM_MODE_STEPS):
            z = view.kernels.base.mean_shift(z)
        return view.likelihood(z).mean

    def _make_scaler(self, X: np.ndarray) -> StandardScaler:
        """Columns of a table to mean 0 and deviation 1 (constant ones keep their unit), images to
        [-1, 1] as a whole.
        """
        scaler = StandardScaler().fit(X)
        if self.image_shape is not None:
            low, high = X.min(), X.max()
            scaler.mean_ = np.full(X.shape[1], (low + high) / 2)
            scaler.scale_ = np.full(X.shape[1], (high - low) / 2 or 1.0)
        return scaler

    def _validated(self, X: Any) -> Tensor:
        check_is_fitted(self)
        return self._standardise(validate_data(self, X, dtype=np.float64, reset=False))

    def _standardise(self, X: Any) -> Tensor:
        check_magnitude(X)
        x = torch.as_tensor(np.ascontiguousarray(self.scaler_.transform(X)))
        check_magnitude(x.numpy())
        return x if self.image_shape is None else x.view(-1, *self.image_shape)

    def _check_columns(self, X: np.ndarray) -> None:
        """Raise ``ValueError`` for numbers too large, too few columns, or rows that are no images
        of ``image_shape``.
        """
        check_magnitude(X)
        if self.image_shape is None:
            if self.energy == "reconstruction" and self.latent_dim >= X.shape[1]:
                raise ValueError(
                    f'energy must not be "reconstruction" for {X.shape[1]} columns, of which '
                    "codes of latent_dim = "
                    f"{self.latent_dim} numbers leave nothing out"
                )
            return
        if math.prod(self.image_shape) != X.shape[1]:
            raise ValueError(
                f"X must hold images of image_shape {tuple(self.image_shape)}, got rows of "
                f"{X.shape[1]} numbers"
            )
        if len(X) < 10:
            raise ValueError(
                f"X must hold at least 10 images to learn features from, got {len(X)}"
            )


def rounded(x: np.ndarray) -> np.ndarray:
    """``x`` to 24 significant binary digits, at any magnitude."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(mantissa * 2.0**24) / 2.0**24, exponent)
