"""What is of another kind than it must be is refused where it is given, not where it fails."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latent_ebm import (
    EnergyPrior,
    GaussianLikelihood,
    GaussianPrior,
    LatentModel,
    MCMCPosterior,
    RatioPrior,
)
from latent_ebm.data import MNIST, Arrays
from latent_ebm.denoisers import GaussianMixtureDenoiser, Preconditioned
from latent_ebm.files import Reader
from latent_ebm.learning import ShortRunMLE
from latent_ebm.metrics import auroc_auprc, frechet_distance, reconstruction_mse
from latent_ebm.networks import MLP, EnergyMLP
from samplers import (
    Captured,
    Gaussian,
    Langevin,
    VPLinear,
    effective_sample_size,
    ess,
    log_mean_exp,
    resample,
)

NET, BASE, CHAIN, COMPLEX = (
    EnergyMLP(2, [4]),
    GaussianPrior(2),
    Langevin(0.1, 2),
    torch.ones(4, 2) * 1j,
)
LIKELIHOOD: Any = GaussianLikelihood(MLP(2, 2, [4]), 0.3)
MODEL: Any = LatentModel(BASE, LIKELIHOOD)
ARRAY: Any = np.ones((4, 2))
ANY: Any = "x"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LatentModel(LIKELIHOOD, ANY), "LatentModel: prior must be a Prior"),
        (lambda: LatentModel(BASE, ANY), "LatentModel: likelihood must be a Likelihood"),
        (lambda: EnergyPrior(BASE, NET, CHAIN), "EnergyPrior: base must be a Prior"),  # pyright: ignore
        (lambda: RatioPrior(ANY, [], CHAIN), "RatioPrior: base must be a Prior"),
        (lambda: MCMCPosterior(ANY), "MCMCPosterior: sampler must be a Sampler"),
        (lambda: Captured(ANY), "Captured: sampler must be a Sampler"),
        (lambda: Preconditioned(NET, ANY), "Preconditioned: schedule must be a Schedule"),
        (
            lambda: GaussianMixtureDenoiser([1.0], [[0.0]], [1.0], ANY),
            "schedule must be a Schedule",
        ),
        (
            lambda: ShortRunMLE(ANY, MCMCPosterior(CHAIN), torch.optim.Adam),
            "ShortRunMLE: model must be a LatentModel",
        ),
        (
            lambda: ShortRunMLE(MODEL, MCMCPosterior(CHAIN), torch.optim.Adam, prior_lr=ANY),
            "ShortRunMLE: prior_lr must be finite and non-negative",
        ),
        (lambda: Arrays("x.csv", standardize=ANY), "Arrays: standardize must be a bool, got 'x'"),
        (lambda: Arrays("x.csv", header=ANY), "Reader: header must be a bool, got 'x'"),
        (lambda: Reader(id=3), "Reader: id must be a str, got 3"),  # pyright: ignore
        (lambda: Reader(drop="id"), "drop must be a list of names of columns, got 'id'"),
        (lambda: MNIST(heldout=True), "heldout must be a digit"),
        (lambda: Gaussian(COMPLEX[0], torch.eye(2)), "mean must be real"),
        (lambda: ess(COMPLEX), "draws must be real"),
        (lambda: log_mean_exp(COMPLEX[:, 0]), "log_weight must be real"),
        (lambda: effective_sample_size(ARRAY[:, 0]), "importance: log_weight must be a Tensor"),
        (
            lambda: resample(torch.ones(4, 2), ARRAY[:, 0]),
            "importance: log_weight must be a Tensor",
        ),
        (lambda: reconstruction_mse(ARRAY, ARRAY), "reconstruction_mse: x must be a Tensor"),
        (lambda: reconstruction_mse(COMPLEX, COMPLEX), "x must be real"),
        (lambda: frechet_distance(ARRAY, ARRAY), "metrics: a must be a Tensor"),
        (lambda: auroc_auprc(ARRAY, ARRAY), "auroc_auprc: score_anomaly must be a Tensor"),
    ],
)
def test_other_kinds_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_kinds_that_are_right_are_taken(tmp_path: Path) -> None:
    assert Preconditioned(NET, VPLinear()).schedule == VPLinear()
    assert Reader(drop=("id",), header=False, id=None).header is False
    assert Arrays(str(tmp_path / "x.csv"), standardize=False, header=None).standardize is False
