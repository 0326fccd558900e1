"""The automatic threshold of a detector: a fence below the scores of training rows, each computed
as if the row were new.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latent_ebm.detection.fitting import fit_linear
from latent_ebm.detection.parts import TERMS, View, energy

NUM_FOLDS = 5


def tukey_fence(scores: NDArray[np.float64], rows: Tensor) -> float:
    """The first quartile minus 1.5 interquartile ranges of the ``scores`` (n,) of rows (n,
    \\*event). Copies of a row count once.
    """
    _, different = np.unique(rows.flatten(1).numpy(), axis=0, return_index=True)
    low, high = np.quantile(scores[different], [0.25, 0.75])
    return float(low - 1.5 * (high - low))


@torch.no_grad()
def own_reconstruction(view: View, rows: Tensor, x: Tensor) -> Tensor:
    """How much the reconstruction energy (n,) of rows (n, d), which are among the training rows x
    (m, d), would be larger if the principal axes had been fitted without them.

    Fitting needs one decomposition for each fifth of x that is left out; copies of a row are left
    out together. The number of axes and the noise are those of the view. The result is at least 0:
    a view that was fitted to older rows does not know these, and may fit them worse.
    """
    dim, own = view.kernels.base.exemplars.shape[1], rows.new_empty(len(rows))
    fold = torch.cat([rows, x]).unique(dim=0, return_inverse=True)[1] % NUM_FOLDS
    for left_out in fold[: len(rows)].unique():
        other = fit_linear(view.features, x[fold[len(rows) :] != left_out], dim)
        other.likelihood.log_scale.copy_(view.likelihood.log_scale)
        held = fold[: len(rows)] == left_out
        before, after = (energy([v], rows[held], TERMS["reconstruction"]) for v in (view, other))
        own[held] = (after - before).clamp(min=0)
    return own
