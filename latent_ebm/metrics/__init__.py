"""Metrics: distances between sets of samples, divergences, scores of detectors, and shares with
their confidence intervals.

What a metric of samples can see depends on what it compares. The Frechet distance sees two
moments. Precision and recall, and their robust forms density and coverage, compare supports
through balls around nearest neighbours, and tell bad samples from missing modes. MMD sees every
moment, weighted by a kernel. The k-NN divergence estimates KL(p||q) from distances to neighbours;
in two dimensions, a grid gives the KL divergence of two densities without samples. Everything is
computed in float64, without gradients.
"""

from latent_ebm.metrics.divergences import grid_kl, knn_kl
from latent_ebm.metrics.intervals import Interval, Share, share_of
from latent_ebm.metrics.samples import frechet_distance, mmd, prdc
from latent_ebm.metrics.scores import auroc_auprc, reconstruction_mse

__all__ = [
    "Interval",
    "Share",
    "auroc_auprc",
    "frechet_distance",
    "grid_kl",
    "knn_kl",
    "mmd",
    "prdc",
    "reconstruction_mse",
    "share_of",
]
