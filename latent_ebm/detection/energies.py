r"""The energies of a trained latent model, for scikit-learn's detectors.

A row is unusual if its joint energy is high, but also if its terms do not go together as those of
normal rows do: simple images have a low energy although none was seen in training (Nalisnick et
al. 2019, arXiv:1906.02994). So a detector learns the density of the terms over normal rows, as
Morningstar et al. (2021, arXiv:2006.09273) do::

    make_pipeline(ModelEnergies(model, posterior), LatentEBMDetector()).fit(rows)
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags, check_random_state
from torch import Tensor

from latent_ebm.denoisers.generation import like
from latent_ebm.detection.checks import check_finite_rows, validated
from latent_ebm.detection.features import PRECISIONS, evaluation
from latent_ebm.model import EnergyTerms, LatentModel
from latent_ebm.posteriors import Posterior
from samplers.checks import check_counts, check_kind


class ModelEnergies(TransformerMixin, BaseEstimator):
    """Maps rows X (n, \\*event) to the terms (n, 3) of their joint energy ``-log p(x, z)``, in
    nats: reconstruction, tilt and base, as in ``EnergyTerms``. Nothing is learned.

    Args:
        model: a trained model without a condition, on any device, of any precision.
        posterior: draws the latent z of a row. Energies do not depend on chance if it does not,
            as ``WarmStart`` and ``Langevin(temperature=0)`` do.
        batch_size: number of rows whose latents are drawn together.
        random_state: as in scikit-learn, for posteriors that draw by chance.

    Raises ``ValueError`` for a ``model`` or ``posterior`` of another kind or for rows of another
    shape, and for energies that are not finite.
    """

    def __init__(
        self,
        model: LatentModel,
        posterior: Posterior,
        batch_size: int = 500,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.model = model
        self.posterior = posterior
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> "ModelEnergies":
        """Check the parameters against the first row of X. ``y`` is ignored."""
        check_kind(self, LatentModel, model=self.model)
        check_kind(self, Posterior, posterior=self.posterior)
        check_counts(self, batch_size=self.batch_size)
        rows = validated(self, X, allow_nd=True, dtype=PRECISIONS)
        self._energies(rows[:1])
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Terms (n, 3) of rows X (n, \\*event), in float64."""
        return self._energies(validated(self, X, reset=False, allow_nd=True, dtype=PRECISIONS))

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """The names of the terms."""
        return np.array(EnergyTerms._fields, dtype=object)

    def _energies(self, rows: np.ndarray) -> np.ndarray:
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        x = torch.tensor(rows).to(like(self.model))
        generator = torch.Generator(x.device).manual_seed(seed)
        try:
            with evaluation(self.model), evaluation(self.posterior):
                terms = [self._terms(part, generator) for part in x.split(int(self.batch_size))]
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"model and posterior must take rows of shape {tuple(x.shape[1:])} and {x.dtype}, "
                f"but one says: {reason}"
            ) from error
        return check_finite_rows("energies", torch.cat(terms).double().cpu()).numpy()

    def _terms(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The terms (k, 3) of rows x (k, \\*event)."""
        z = self.posterior.sample(self.model, x, generator=generator)
        return torch.stack(self.model.energy_terms(x, z), 1)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags
