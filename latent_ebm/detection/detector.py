r"""Anomaly detection by the energy of a latent model, for users of scikit-learn.

``LatentEBMDetector`` learns from rows that are normal for the most part, without labels. It scores
a row by ``log p(x, z)`` at its code z: high is normal. The prior of codes is made of kernels at
training rows. For a table, whose codes are its rotated rows, that is a kernel density estimate
with the likeliest bandwidth, a check of exact rules between columns, and, only if asked for,
ratio stages. For images, the kernels compare features of neighbours. ``parts`` says what is
fitted and ``fitting`` how. ``ConformalCalibrator`` turns scores into p-values and into a threshold
with a guarantee. Protocols and results: ``experiments/RESULTS.md``.
"""

import copy
import os
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from latent_ebm.artefacts import Described
from latent_ebm.detection import fitting, parts
from latent_ebm.detection.checks import (
    LIMIT,
    Energy,
    all_or_nothing,
    check_columns,
    check_magnitude,
    check_parameters,
    validated,
)
from latent_ebm.detection.dependence import dependence
from latent_ebm.detection.explanation import Explanation, normal_rows, path_gradient
from latent_ebm.detection.fences import own_reconstruction, tukey_fence
from latent_ebm.detection.files import load_detector, save_detector

NUM_ELBO_DRAWS = 16
MAX_FENCED = 5000  # rows that set the automatic threshold


class LatentEBMDetector(OutlierMixin, BaseEstimator, Described):
    """Scores rows by the energy of a latent model; high is normal, as everywhere in scikit-learn.

    The scores are deterministic, and the score of a row does not depend on the rows that are
    scored with it: it is computed in float64 and rounded to 24 significant bits, because lower
    bits depend on the number of rows in a matrix product.

    Args:
        energy: what the score is made of. "joint" (``log p(x|z) + log p(z)``) has two terms:
            "reconstruction", how far a row is from what the model can express, and "prior", how
            rare its code is. Either is a choice of its own, "reconstruction" only for tables with
            more columns than ``latent_dim``. "elbo" is the evidence lower bound.
        contamination: a fraction in (0, .5]: ``predict`` calls exactly this part of the training
            rows outliers. "auto": rows below the lower Tukey fence (first quartile minus 1.5
            interquartile ranges) of the training scores, each computed without its own row, for
            "reconstruction" without a fifth of the rows. Copies of a row count once.
        image_shape: (C, H, W) if the rows are flattened images; at least 10 of them, H and W at
            least 8. Features are then learned from them. None for tables.
        latent_dim: largest number of entries in a code, and of learned features of an image.
        max_stages: largest number of density ratios that refine the kernels of a table. They are
            added only while held-out rows profit. They take many times as long as the rest of
            the fit, and gain nothing on average on the tables of ADBench: the default is none.
        max_exemplars: largest number of training rows that carry a kernel, drawn at random. The
            time of scoring is proportional to it.
        trim: fraction in [0, .5) of the training rows, those farthest from the bulk of the others,
            that is left out in a second fit. Choose a bit more than the part of anomalies that
            you expect. It is none by default, because normal rows of small groups are left out as
            well: clean tables lose by it.
        max_steps: largest number of training steps for the features of images.
        channels: width of the network that learns features of images. It sees at most 32 x 32
            averages over pixels. Convolutions add up in another order with another number of
            threads, so fits to images agree bit for bit only with the same number.
        encoder: a network of images (n, C, H, W) in [-1, 1]; its frozen features, flattened to
            (n, d), replace learned ones. A detector with an encoder cannot be saved.
        warm_start: start from the standardisation and the networks of the last fit.
        random_state: as in scikit-learn.
        verbose: show a progress bar.
    """

    energy: Energy

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

    @all_or_nothing
    def fit(self, X: ArrayLike, y: object = None) -> "LatentEBMDetector":
        """Learn from rows X (n >= 2, d), most of which are normal; ``y`` is ignored. If it raises,
        the detector stays as it was.
        """
        check_parameters(self)
        rows = validated(self, X, ensure_min_samples=2)
        check_columns(rows, self.energy, self.latent_dim, self.image_shape)
        again = self.warm_start and hasattr(self, "views_")
        if again:
            self.views_ = copy.deepcopy(self.views_)  # they change in place
        else:
            self.scaler_ = fitting.make_scaler(rows, images=self.image_shape is not None)
        kept = x = self._standardise(rows)
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(check_random_state(self.random_state).randint(2**31 - 1))
            self._fit_model(x, again)
            if self.trim > 0:
                kept = x[fitting.bulk(self.views_, x, self.trim)]
                self._fit_model(kept, again or self.image_shape is not None)
        self.offset_ = self._threshold(x, kept)
        self.num_updates_ = 0
        return self

    @all_or_nothing
    def partial_fit(self, X: ArrayLike, y: object = None) -> "LatentEBMDetector":
        """Add rows X (n, d) to those that carry a kernel. The first call is a ``fit``; later ones
        keep its standardisation, codes and stages.

        Of more than ``max_exemplars`` old and new rows, a random part is kept: another draw at
        every call, reproducible with an integer ``random_state``.
        """
        if not hasattr(self, "views_"):
            return self.fit(X)
        check_parameters(self)
        new = self._standardise(validated(self, X, reset=False))
        x = torch.cat([self.rows_, new])
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        self.num_updates_ = getattr(self, "num_updates_", 0) + 1  # older files do not hold it
        order = np.random.default_rng((seed, self.num_updates_)).permutation(len(x))
        self.rows_ = x[torch.from_numpy(order[: self.max_exemplars])]
        self.views_ = copy.deepcopy(self.views_)  # they change in place
        self._place_kernels()
        self.offset_ = self._threshold(x, x)
        return self

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """Scores (n,) of rows X (n, d): minus the chosen ``energy``, in nats up to a constant.
        High is normal.
        """
        return self._scores(self._validated(X))

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """``score_samples`` above the threshold (n,): negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> np.ndarray:
        """+1 (n,) for inliers, -1 for outliers."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def explain(self, X: ArrayLike) -> Explanation:
        """Why rows X (n, d) score as they do.

        ``reconstruction`` is a normal row beside each row: for tables, its code moved up to the
        nearest mode of the kernels and decoded; for images, the nearest training image.
        ``contribution`` says, per feature and in nats, what the differences between the two rows
        add to the energy: the gradient of the energy, averaged over the straight path between
        them, times the difference (arXiv:1703.01365). The contributions of a row sum to its
        excess of energy; for images, up to jumps where other neighbours begin to count.
        ``residual`` is X minus the reconstruction.
        """
        x = self._validated(X)
        normal = parts.in_blocks(lambda part: normal_rows(self.views_[0], self.rows_, part), x)
        pairs = zip(normal.split(parts.BLOCK), x.split(parts.BLOCK), strict=True)
        gradient = torch.cat([path_gradient(self._energy, *pair) for pair in pairs])
        contribution = (gradient * (x - normal)).flatten(1).numpy()
        raw, reconstruction = (
            self.scaler_.inverse_transform(rows.flatten(1).numpy()) for rows in (x, normal)
        )
        return Explanation(contribution, raw - reconstruction, reconstruction)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the fitted detector to ``folder``; ``load`` and ``latent_ebm.load`` read it. See
        ``latent_ebm.save``.
        """
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
        folder without one.
        """
        return load_detector(cls, folder)[0]

    def _fit_model(self, x: Tensor, again: bool) -> None:
        """Fit the views and their priors to standardised rows."""
        if float((x - x[0]).abs().max()) < 1 / LIMIT:
            raise ValueError(
                "X must hold at least two different rows, besides those that trim leaves out, "
                f"got copies of one row, or rows that differ by less than {1 / LIMIT:.0e}"
            )
        if not again:
            self.views_ = self._fit_views(x[torch.randperm(len(x))])
        x = x[torch.randperm(len(x))]
        if self.image_shape is None:
            with warnings.catch_warnings():  # held-out rows decide whether a stage is any good
                warnings.filterwarnings("ignore", ".*never moved", UserWarning)
                fitting.fit_stages(self.views_[0], x, self.max_exemplars, self.max_stages)
        self.rows_ = x[: self.max_exemplars]
        self._place_kernels()
        for view in self.views_:
            fitting.widen(view)
        width = max(view.kernels.base.exemplars.shape[1] for view in self.views_)
        self.elbo_noise_ = torch.randn(NUM_ELBO_DRAWS, width, dtype=torch.float64)

    def _fit_views(self, x: Tensor) -> tuple[parts.View, ...]:
        dim = int(self.latent_dim)
        if self.image_shape is None:
            rules = dependence(x)
            features = [nn.Identity()] if rules is None else [nn.Identity(), rules]
            return tuple(fitting.fit_linear(part, x, dim) for part in features)
        components, learned = parts.image_features(self.image_shape, dim, int(self.channels))
        fitting.fit_components(components, x.flatten(1))
        if self.encoder is None:
            fitting.fit_features(learned, x.float(), dim, int(self.max_steps), self.verbose)
        else:
            learned = nn.Sequential(copy.deepcopy(self.encoder), nn.Flatten())
        learned.double().eval()
        return tuple(fitting.fit_linear(part, x, dim) for part in (components, learned))

    def _place_kernels(self) -> None:
        """Put the kernels of every view at the codes of ``rows_``."""
        table = (fitting.equal_kernels, fitting.unit_kernels)
        image = (fitting.local_kernels, fitting.local_kernels)
        kinds = table if self.image_shape is None else image
        for view, kernels in zip(self.views_, kinds, strict=False):
            fitting.place_kernels(view, self.rows_, kernels)

    def _scores(self, x: Tensor) -> np.ndarray:
        """Scores (n,) of standardised rows."""
        with torch.no_grad():
            return -parts.rounded(self._energy(x).numpy())

    def _threshold(self, x: Tensor, kept: Tensor) -> float:
        """The score below which a row is an outlier, from training rows and those ``kept``."""
        if not isinstance(self.contamination, str):
            return float(np.percentile(self._scores(x), 100 * self.contamination))
        rows = self.rows_[:MAX_FENCED]
        return tukey_fence(self._left_out_scores(rows, kept), rows)

    def _left_out_scores(self, rows: Tensor, kept: Tensor) -> np.ndarray:
        """Scores of ``rows``, the first that carry a kernel, as if they were new: by what was
        learnt from other rows that were ``kept``.
        """
        with torch.no_grad():
            if self.energy == "reconstruction":
                own = [own_reconstruction(view, rows, kept) for view in self.views_]
            else:
                noise = self.elbo_noise_ if self.energy == "elbo" else None
                own = [view.own_part(rows, noise) for view in self.views_]
            return -(self._energy(rows) + torch.stack(own).sum(0)).numpy()

    def _energy(self, x: Tensor) -> Tensor:
        """The chosen energy (n,) of standardised rows."""
        if self.energy == "elbo":
            return parts.negative_elbo(self.views_, x, self.elbo_noise_)
        return parts.energy(self.views_, x, parts.TERMS[self.energy])

    def _validated(self, X: ArrayLike) -> Tensor:
        check_is_fitted(self)
        return self._standardise(validated(self, X, reset=False))

    def _standardise(self, X: np.ndarray) -> Tensor:
        check_magnitude(X)
        x = torch.from_numpy(np.ascontiguousarray(self.scaler_.transform(X)))
        check_magnitude(x.numpy())
        return x if self.image_shape is None else x.view(-1, *self.image_shape)
