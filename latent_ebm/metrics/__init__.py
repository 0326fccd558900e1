"""Metrics: distances between sets of samples, divergences, and scores of detectors.

What a metric of samples can see depends on what it compares. The Frechet distance sees two
moments. Precision and recall, and their robust forms density and coverage, compare supports
through balls around nearest neighbours, and tell bad samples from missing modes. MMD sees every
moment, weighted by a kernel. The k-NN divergence estimates KL(p||q) from distances to neighbours;
in two dimensions, a grid gives the KL divergence of two densities without samples. Everything is
computed in float64, without gradients.
"""

from latent_ebm.metrics.divergences import grid_kl, knn_kl
from latent_ebm.metrics.samples import frechet_distance, mmd, prdc
from latent_ebm.metrics.scores import auroc_auprc, reconstruction_mse

__all__ = [
    "auroc_auprc",
    "frechet_distance",
    "grid_kl",
    "knn_kl",
    "mmd",
    "prdc",
    "reconstruction_mse",
]
