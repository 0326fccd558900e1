"""Why a row scores as it does: a normal row beside it, and what each feature adds to its
energy.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latent_ebm.detection.parts import View
from latent_ebm.kernels import NeighbourPrior
from samplers import value_and_grad

NUM_PATH_POINTS, NUM_MODE_STEPS = 16, 20


class Explanation(NamedTuple):
    """Why rows score as they do; see ``LatentEBMDetector.explain``.

    Args:
        contribution: what each feature adds to the energy (n, d), in nats.
        residual: X minus its reconstruction (n, d), in the units of X.
        reconstruction: a normal row beside each row (n, d), in the units of X.
    """

    contribution: np.ndarray
    residual: np.ndarray
    reconstruction: np.ndarray


@torch.no_grad()
def normal_rows(view: View, rows: Tensor, x: Tensor) -> Tensor:
    """A normal row beside each of ``x`` (n, \\*event), by one ``view``.

    For tables, the code of a row climbs up the kernels and is decoded. For images, whose kernels
    are local, it is the nearest of the training ``rows`` (m, \\*event).
    """
    z, kernels = view.encode(x), view.kernels
    if isinstance(kernels, NeighbourPrior):
        return rows[kernels.closeness(z).argmax(1)]
    for _ in range(NUM_MODE_STEPS):
        z = kernels.mean_shift(z)
    return view.likelihood(z).mean


def path_gradient(energy: Callable[[Tensor], Tensor], start: Tensor, end: Tensor) -> Tensor:
    """Gradient (n, \\*event) of ``energy``, averaged over the straight path from ``start`` to
    ``end`` (arXiv:1703.01365).
    """
    num = NUM_PATH_POINTS
    ticks = (torch.arange(num, dtype=end.dtype, device=end.device) + 0.5) / num
    gradients = [value_and_grad(energy, start + t * (end - start))[1] for t in ticks]
    return torch.stack(gradients).mean(0)
