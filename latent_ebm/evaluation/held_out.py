r"""Metrics of a trained latent model on held-out data, each by a small function, and all of them
by ``evaluate``.

Each metric answers a question of its own. *Reconstruction*: can the likelihood express data that
it has not seen? *NLL*: how probable are these data under the whole model? *Frechet distance,
precision, recall, density, coverage*: do samples look like data, and do they include all kinds of
data? *Tilt*: is the learned energy the same at posterior draws of training data, at posterior
draws of held-out data, and at prior draws? At the maximum of the likelihood all three means agree.
*R-hat, ESS, long run*: does the chain of the prior draw from its density, or is it too short to
converge: what happens when it runs 10 and 60 times as long?
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from latent_ebm.blocks import BLOCK
from latent_ebm.evaluation.batches import decode, infer
from latent_ebm.evaluation.likelihood_bounds import nll_bracket
from latent_ebm.evaluation.normaliser import prior_log_z
from latent_ebm.evaluation.prior_chains import (
    MULTIPLES,
    Features,
    chain_diagnostics,
    long_run,
    tilt_means,
)
from latent_ebm.metrics import frechet_distance, prdc, reconstruction_mse
from latent_ebm.model import LatentModel
from latent_ebm.posteriors import Posterior
from latent_ebm.priors import EnergyPrior, RatioPrior
from samplers import HMC
from samplers.checks import check_counts

NEIGHBOURS = 5  # k of precision, recall, density and coverage


def evaluate(
    model: LatentModel,
    inference: Posterior,
    train: Tensor,
    test: Tensor,
    *,
    features: Features | None = None,
    num_samples: int = 1000,
    num_nll: int = 50,
    multiples: Sequence[int] = MULTIPLES,
    num_long: int = 200,
    quick: bool = False,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    """Metrics on held-out data by name, as many as the prior and the data allow.

    They are those of ``tilt_means``, ``sample_quality``, ``held_out_nll``, ``chain_diagnostics``
    and ``long_run``; ``reconstruction_mse`` per entry, in the units of x squared (images are in
    [-1, 1], so that an error can be at most 4); and ``num_test`` and ``num_samples``, the numbers
    of data and samples behind them.

    Args:
        model: the trained model; ``model.eval()`` and the device of the data are the caller's.
        inference: draws z given x for reconstruction and tilt, without the ``index`` of the data.
        train: training data (n, \\*event); at most num_samples of them are used.
        test: held-out data (m, \\*event), at least 6.
        features: maps x (batch, \\*event) to (batch, d), where samples are compared. Default: x
            itself if it is a vector; samples of images are then not compared.
        num_samples: number of samples, and largest number of held-out data; at least 6.
        num_nll: number of held-out data whose NLL is bounded, 0 for none.
        multiples: lengths of the long run, in chain lengths of the prior.
        num_long: number of chains of the long run and of the diagnostics, at most num_samples.
        quick: use a fifth of samples and NLL data, for a first look.
        generator: random generator of all draws.

    Raises:
        ValueError: train or test are of different shapes or too few, or a number is too small.
        FloatingPointError: a chain diverged.
    """
    check_sizes(train, test, num_samples, num_nll, num_long)
    if quick:
        num_samples, num_nll = max(num_samples // 5, NEIGHBOURS + 1), num_nll // 5
    train, test, num_long = train[:num_samples], test[:num_samples], min(num_long, num_samples)
    z_test = infer(model, inference, test, generator=generator)
    z_train = infer(model, inference, train, generator=generator)
    z_model = model.prior.sample(num_samples, generator=generator)
    features = data_space(test) if features is None else features
    with torch.no_grad():
        figures = {"reconstruction_mse": reconstruction_mse(test, decode(model, z_test))}
        figures |= tilt_means(model.prior, {"train": z_train, "test": z_test, "model": z_model})
        if features is not None:
            figures |= sample_quality(features(test), features(decode(model, z_model)))
    if num_nll:
        figures |= held_out_nll(model, test[:num_nll], z_train, quick=quick, generator=generator)
    if isinstance(model.prior, (EnergyPrior, RatioPrior)):
        figures |= chain_diagnostics(model.prior, num_chains=num_long, generator=generator)
        figures |= long_run(
            model, test, features, multiples=multiples, num=num_long, generator=generator
        )
    return figures | {"num_test": float(len(test)), "num_samples": float(num_samples)}


def check_sizes(
    train: Tensor, test: Tensor, num_samples: int, num_nll: int, num_long: int
) -> None:
    """Raise ``ValueError`` for data of different shapes, or too few rows or samples."""
    if train.shape[1:] != test.shape[1:]:
        raise ValueError(
            f"train must have the event shape {tuple(test.shape[1:])} of test, got "
            f"{tuple(train.shape[1:])}"
        )
    check_counts("evaluate", num_samples=num_samples, num_long=num_long)
    check_counts("evaluate", 0, num_nll=num_nll)
    if min(len(train), len(test), num_samples) <= NEIGHBOURS:
        sizes = len(train), len(test), num_samples
        raise ValueError(
            f"train, test and num_samples must be at least {NEIGHBOURS + 1}, got {sizes}"
        )


def data_space(x: Tensor) -> Features | None:
    """The identity if ``x`` (n, \\*event) are vectors; None for images, because distances between
    pixels say little.
    """
    return (lambda y: y) if x.ndim == 2 else None


def sample_quality(real: Tensor, fake: Tensor) -> dict[str, float]:
    """``frechet``, ``precision``, ``recall``, ``density``, ``coverage`` of ``fake`` (m, d) against
    ``real`` (n, d).

    With few rows the Frechet distance is too large: compare it at equal numbers of rows only. See
    ``metrics``.
    """
    return {"frechet": frechet_distance(real, fake), **prdc(real, fake, k=NEIGHBOURS)}


def held_out_nll(
    model: LatentModel,
    x: Tensor,
    draws: Tensor | None = None,
    *,
    quick: bool = False,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    """Mean bounds of ``-log p(x)`` in nats over data ``x`` (n, \\*event), ``nll_lower`` and
    ``nll_upper``, and the interval of ``log_z`` that is part of them.

    ``draws`` are posterior draws (n, dim) of training data, which show where the prior has mass.
    ``log_z_reliable`` is 1 if no check of ``prior_log_z`` speaks against the interval, else 0: the
    bounds of the NLL are then no better. ``nll_error`` is the standard error of the mean over
    data. ``nll_lower_reliable`` is 0 if the lower bound exceeds the upper one, which means that
    chains did not reach the posterior and the lower one is wrong, else 1. ``nll_bracket`` says
    what the bounds promise.
    """
    sampler, effort = HMC(0.3, 5, 1), 20 if quick else 50
    log_z = prior_log_z(
        model.prior, HMC(0.1, 5, 2), draws, num_rungs=2 * effort, generator=generator
    )
    pairs = [
        nll_bracket(
            model,
            rows,
            sampler,
            num_rounds=effort,
            num_rungs=effort,
            log_z=(log_z.lower, log_z.upper),
            generator=generator,
        )
        for rows in x.split(BLOCK // 10)
    ]
    lower, upper = (torch.cat(bound) for bound in zip(*pairs, strict=True))
    error = (upper.std() / math.sqrt(len(x))).item() if len(x) > 1 else math.nan
    bounds = {
        "nll_lower": lower.mean().item(),
        "nll_upper": upper.mean().item(),
        "nll_error": error,
        "nll_lower_reliable": float(not crosses(lower, upper)),
    }
    return bounds | {
        "log_z_lower": log_z.lower,
        "log_z_upper": log_z.upper,
        "log_z_reliable": float(log_z.is_reliable),
    }


def crosses(lower: Tensor, upper: Tensor) -> bool:
    """Whether lower bounds (n,) exceed upper ones (n,) in the mean, by more than twice its
    standard error: by more than the noise of bounds that lie close together.
    """
    excess = lower - upper
    error = excess.std() / math.sqrt(len(excess)) if len(excess) > 1 else 0.0
    return bool(excess.mean() > 2 * error)
