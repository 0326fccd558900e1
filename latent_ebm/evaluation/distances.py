r"""Distances between the distributions of two sets of pictures, in features that you choose.

What a distance sees is what its features see, and two distances may order two models differently:
report several. ``Scorer.image_features``, an ``IdentityEncoder`` or a network of yours are
features; ``lambda x: x.flatten(1)`` compares pixels.
"""

import torch
from torch import Tensor

from latent_ebm.blocks import blocks
from latent_ebm.evaluation.prior_chains import Features
from latent_ebm.metrics import frechet_distance, mmd

SIGMA, SCALE = 10.0, 1000.0  # of CMMD as it is published


def frechet(real: Tensor, fake: Tensor, features: Features) -> float:
    """Squared Frechet distance between Gaussians that are fitted to features (Heusel et al. 2017,
    arXiv:1706.08500).

    It sees means and covariances alone. With few rows it is too large: compare it at equal numbers
    of rows only.

    Args:
        real: Pictures (n, \\*event).
        fake: Generated pictures (m, \\*event).
        features: Maps pictures to features (rows, d), such as ``scorer.image_features``.

    Raises:
        ValueError: If a set has d rows or fewer, so that its covariance is singular, or features
            are not finite matrices.
    """
    a, b = features_of(real, features), features_of(fake, features)
    for name, rows in {"real": a, "fake": b}.items():
        if rows.ndim == 2 and len(rows) <= rows.shape[1]:
            raise ValueError(
                f"{name} must have more than {rows.shape[1]} rows for a Frechet distance in "
                f"{rows.shape[1]} features, got {len(rows)}"
            )
    return frechet_distance(a, b)


def cmmd(real: Tensor, fake: Tensor, features: Features) -> float:
    """1000 times the squared maximum mean discrepancy (Jayasumana et al. 2024, arXiv:2401.09603)
    with the kernel ``exp(-|f - g|^2 / (2 * 10^2))``, by the unbiased estimator.

    It is 0 in expectation for equal distributions whatever the numbers of rows, so that it can be
    negative. The width is made for unit vectors of contrastive models: their distances are at most
    2, where the kernel is almost linear in the squared distance, and CMMD is then close to
    ``10 |mean f - mean g|^2``.

    Args:
        real: Pictures (n, \\*event), two or more.
        fake: Generated pictures (m, \\*event), two or more.
        features: Maps pictures to features (rows, d), such as ``scorer.image_features``.

    Raises:
        ValueError: If a set has fewer than two rows, or features are not finite matrices.
    """
    return SCALE * mmd(features_of(real, features), features_of(fake, features), [SIGMA])


@torch.no_grad()
def features_of(x: Tensor, features: Features) -> Tensor:
    """Features (n, d) of ``x`` (n, \\*event), in blocks, which bound the memory they need."""
    return torch.cat([features(x[rows]) for rows in blocks(len(x))])
