"""Malformed calls of the applications end in one sentence that names the argument, its rule and
its value.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from latent_ebm import EnergyPrior, GaussianLikelihood, GaussianPrior, LatentModel, MCMCPosterior
from latent_ebm.applications import (
    ConformalCalibrator,
    FrozenFeatures,
    LatentEBMDetector,
    evaluate,
    image_grid,
    nll_bracket,
)
from latent_ebm.detection.exchangeability import order_p_value, shift_p_value
from latent_ebm.detection.findings import Findings
from latent_ebm.detection.report import make_report
from latent_ebm.networks import EnergyMLP
from latent_ebm.plots import grid_points, histogram_figure, panels_figure
from samplers import HMC, Langevin

X = np.random.default_rng(0).normal(size=(20, 3))
IMAGES = np.random.default_rng(0).random((4, 1, 8, 8))
NAN = float("nan")
ENCODER = torch.nn.Conv2d(1, 2, 3)
PRIOR = EnergyPrior(EnergyMLP(2), GaussianPrior(2), Langevin(0.1, 2))
MODEL = LatentModel(PRIOR, GaussianLikelihood(torch.nn.Linear(2, 3), 0.3))
POSTERIOR = MCMCPosterior(Langevin(0.01, 2))
DATA = torch.zeros(8, 3)
GREY = torch.zeros(2, 1, 4, 4)
SAMPLER = HMC(0.3, 3, 1)

features = partial(FrozenFeatures, ENCODER)
bracket = partial(nll_bracket, MODEL, DATA, SAMPLER)
CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "a class": (
        lambda: ConformalCalibrator(LatentEBMDetector).fit(X),
        "detector must be an object, got the class LatentEBMDetector",
    ),
    "no module": (
        lambda: FrozenFeatures(None).fit(IMAGES),
        "encoder must be an nn.Module, got None",
    ),  # pyright: ignore
    "no layers": (
        lambda: features(layer="x").fit(IMAGES),
        "layer must be one of None, as the encoder has no parts",
    ),
    "rows": (
        lambda: features(batch_size=2.5).fit(IMAGES),
        "batch_size must be an integer >= 1, got 2.5",
    ),  # pyright: ignore
    "truth": (
        lambda: features(batch_size=True).fit(IMAGES),
        "batch_size must be an integer >= 1, got True",
    ),
    "shape": (lambda: features().fit(X), r"encoder must take rows of shape \(3,\), but says: "),
    "other shape": (
        lambda: features().fit(IMAGES).transform(IMAGES[..., :4]),
        r"X must hold rows of shape \(1, 8, 8\) as in fit, got \(1, 8, 4\)",
    ),
    "array": (
        lambda: image_grid(np.zeros((2, 1, 4, 4))),
        "x must be a tensor of images, got a ndarray",
    ),  # pyright: ignore
    "columns": (lambda: image_grid(GREY, 1.5), "columns must be an integer >= 1, got 1.5"),  # pyright: ignore
    "bins": (lambda: histogram_figure({"a": DATA}, "a", 2.5), "num_bins must be an integer >= 1"),  # pyright: ignore
    "NaN": (
        lambda: histogram_figure({"a": DATA * NAN}, "a"),
        "values must hold samples of finite numbers",
    ),
    "empty": (
        lambda: histogram_figure({"a": DATA[:0]}, "a"),
        "values must hold samples of finite numbers",
    ),
    "panels": (
        lambda: panels_figure({}),
        "x must hold at least one set of images or points, got none",
    ),
    "box": (lambda: grid_points(NAN, 3), "box must be finite and positive, got nan"),
    "points": (lambda: grid_points(1.0, 2.5), "num must be an integer >= 1, got 2.5"),  # pyright: ignore
    "samples": (
        lambda: evaluate(MODEL, POSTERIOR, DATA, DATA, num_samples=7.5),  # pyright: ignore
        "num_samples must be an integer >= 1, got 7.5",
    ),
    "bounded": (
        lambda: evaluate(MODEL, POSTERIOR, DATA, DATA, num_nll=-1),
        "num_nll must be an integer >= 0, got -1",
    ),
    "NaN data": (
        lambda: nll_bracket(MODEL, DATA * NAN, SAMPLER),
        "x must be finite: 24 of 24 entries are not",
    ),
    "chains": (lambda: bracket(num_chains=2.5), "num_chains must be an integer >= 2, got 2.5"),  # pyright: ignore
    "rungs": (lambda: bracket(num_rungs=0), "num_rungs must be an integer >= 1, got 0"),
    "one row": (lambda: order_p_value(X[:1]), "minimum of 2 is required"),
    "NaN rows": (lambda: order_p_value(X * NAN), "contains NaN"),
    "held out": (
        lambda: shift_p_value(np.ones(3), 0),
        "num_held_out must be an integer >= 1, got 0",
    ),
    "NaN p": (lambda: shift_p_value(np.full(3, NAN), 9), "contains NaN"),
}


@pytest.mark.parametrize("name", CALLS)
def test_malformed_calls_are_refused(name: str) -> None:
    call, message = CALLS[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_not_fitted_says_so() -> None:
    for call in (
        ConformalCalibrator().p_values,
        ConformalCalibrator().select,
        LatentEBMDetector().explain,
    ):
        with pytest.raises(NotFittedError):
            call(X)


def test_findings_of_other_rows_are_refused() -> None:
    findings = Findings(X[:3, 0], X[:3, 0], X[:3, 0] > 0, X[:, 0], 0.0, 0.1)
    with pytest.raises(ValueError, match="findings must be of the 2 rows of x, got 3 scores"):
        make_report(LatentEBMDetector(), X[:2], findings, list("abc"), list("ab"), {})


def test_numpy_counts_are_counts() -> None:
    assert FrozenFeatures(ENCODER, batch_size=np.int64(2)).fit(IMAGES).transform(IMAGES).shape == (
        4,
        2,
    )  # pyright: ignore
    assert image_grid(GREY, np.int64(2)).shape == (4, 9)  # pyright: ignore
