r"""Held-out figures of a trained latent model, each by a small function of its own, and all of
them by ``evaluate``.

They ask different questions. *Reconstruction*: can the likelihood express data it has not seen?
*NLL*: how probable are they under the whole model? *Frechet distance, precision, recall, density,
coverage*: do samples look like data, and are all kinds of data among them? *Tilt*: is the learned
energy the same at posterior draws of training and held-out data, and at prior draws (at the
maximum of the likelihood all means agree)? *R-hat, ESS, long run*: are the prior's draws those of
its density, or those of a short chain that has not arrived: what becomes of them when it runs 10
and 60 times as long?
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latent_ebm.evaluation.likelihood_bounds import nll_bracket, prior_log_z
from latent_ebm.metrics import frechet_distance, prdc, reconstruction_mse
from latent_ebm.model import LatentModel
from latent_ebm.plots import histogram_figure, panels_figure
from latent_ebm.posteriors import Posterior
from latent_ebm.priors import EnergyPrior, Prior, RatioPrior
from samplers import HMC, Sampler, acceptance, ess, split_rhat
from samplers.checks import check_counts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Features = Callable[[Tensor], Tensor]
BATCH = 500
NEIGHBOURS = 5  # k of precision, recall, density and coverage
MULTIPLES = (1, 10, 60)


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
    """Held-out figures by name, as many as the prior and the data allow.

    Those of ``tilt_means``, ``sample_quality``, ``held_out_nll``, ``chain_diagnostics`` and
    ``long_run``, and two of its own: ``reconstruction_mse`` is per entry in the units of x
    (images: [-1, 1], so that a blank guess of the wrong sign costs 4); ``num_test`` and
    ``num_samples`` say how much the figures rest on.

    Args:
        model: the trained model; ``model.eval()`` and the device of the data are the caller's.
        inference: draws z given x for reconstruction and tilt; must not need the ``index`` of the
            data.
        train: training data (n, \\*event); as many as are tested are used.
        test: held-out data (m, \\*event), at least 6.
        features: maps x (batch, \\*event) to (batch, d) for the figures of samples. Default: x
            itself if it is a vector; of images nothing is then said.
        num_samples: samples, and at most as many held-out data, that are compared; at least 6.
        num_nll: held-out data whose NLL is bounded, 0 for none.
        multiples: lengths of the long run, in chain lengths of the prior.
        num_long: chains of the long run and of the diagnostics, at most num_samples.
        quick: a fifth of everything, for a first look.
        generator: random generator of all draws.

    Raises:
        ValueError: train or test are of different shapes or too few, or a number is too small.
        FloatingPointError: a chain diverged.
    """
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
        figures |= held_out_nll(model, test[:num_nll], quick=quick, generator=generator)
    if isinstance(model.prior, (EnergyPrior, RatioPrior)):
        figures |= chain_diagnostics(model.prior, num_chains=num_long, generator=generator)
        figures |= long_run(
            model, test, features, multiples=multiples, num=num_long, generator=generator
        )
    return figures | {"num_test": float(len(test)), "num_samples": float(num_samples)}


def infer(
    model: LatentModel,
    inference: Posterior,
    x: Tensor,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Latents (n, dim) that ``inference`` draws for ``x`` (n, \\*event), in batches."""
    return torch.cat(
        [inference.sample(model, batch, generator=generator) for batch in x.split(BATCH)]
    )


@torch.no_grad()
def decode(model: LatentModel, z: Tensor) -> Tensor:
    """``E[x|z]`` (n, \\*event) of ``z`` (n, dim), in batches."""
    return torch.cat([model.decode(batch) for batch in z.split(BATCH)])


def data_space(x: Tensor) -> Features | None:
    """The identity where ``x`` (n, \\*event) are vectors; None for images, whose pixels are no
    space to measure in.
    """
    return (lambda y: y) if x.ndim == 2 else None


def sample_quality(real: Tensor, fake: Tensor) -> dict[str, float]:
    """``frechet``, ``precision``, ``recall``, ``density``, ``coverage`` of ``fake`` (m, d) against
    ``real`` (n, d).

    Fewer than d rows make the Frechet distance too large: compare it at equal numbers only. See
    ``metrics``.
    """
    return {"frechet": frechet_distance(real, fake), **prdc(real, fake, k=NEIGHBOURS)}


@torch.no_grad()
def tilt_means(prior: Prior, z: dict[str, Tensor]) -> dict[str, float]:
    """Mean learned energy ``-prior.tilt`` in nats, ``energy_<name>``, at every named set of
    latents (n, dim).
    """
    return {f"energy_{name}": -prior.tilt(draws).mean().item() for name, draws in z.items()}


def held_out_nll(
    model: LatentModel, x: Tensor, *, quick: bool = False, generator: torch.Generator | None = None
) -> dict[str, float]:
    """Mean bounds in nats of data ``x`` (n, \\*event): ``nll_lower``, ``nll_upper``, with those of
    ``log_z`` in them.

    ``nll_error`` is the standard error of the mean over data. See ``nll_bracket`` for what they
    promise.
    """
    sampler, effort = HMC(0.3, 5, 1), 20 if quick else 50
    log_z = prior_log_z(model.prior, HMC(0.1, 5, 2), num_rungs=2 * effort, generator=generator)
    pairs = [
        nll_bracket(
            model,
            rows,
            sampler,
            num_rounds=effort,
            num_rungs=effort,
            log_z=log_z,
            generator=generator,
        )
        for rows in x.split(BATCH // 10)
    ]
    lower, upper = (torch.cat(bound) for bound in zip(*pairs, strict=True))
    error = (upper.std() / math.sqrt(len(x))).item() if len(x) > 1 else math.nan
    bounds = {
        "nll_lower": lower.mean().item(),
        "nll_upper": upper.mean().item(),
        "nll_error": error,
    }
    return bounds | {"log_z_lower": log_z[0], "log_z_upper": log_z[1]}


def lengthened(sampler: Sampler, multiple: int) -> Sampler:
    """``sampler``, or the one that it wraps, with ``multiple`` times its steps."""
    inner = getattr(sampler, "sampler", None)
    if isinstance(inner, Sampler):
        change: dict[str, Any] = {"sampler": lengthened(inner, multiple)}
    else:
        change = {"num_steps": multiple * sampler.num_steps}
    return dataclasses.replace(sampler, **change)  # pyright: ignore[reportArgumentType, reportCallIssue]


def chain_start(
    prior: EnergyPrior | RatioPrior, num: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Where ``prior.sample`` starts its last chain (num, dim): the base, or draws of the stages
    before the last.
    """
    if isinstance(prior, RatioPrior) and len(prior.stages) > 1:
        return prior.prefix(len(prior.stages) - 1).sample(num, generator=generator)
    return prior.base.sample(num, generator=generator)


def chain_diagnostics(
    prior: EnergyPrior | RatioPrior,
    *,
    num_chains: int = 200,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    """Convergence of ``prior.sampler`` as it is used, from its own start: worst over latents and
    the log-density.

    ``rhat`` (split, of the second half of the chain; near 1 if chains have forgotten their start),
    ``ess_per_draw`` (of the same half, pooled), ``acceptance``. A chain of fewer than 8 steps is
    run for 8.
    """
    sampler = lengthened(prior.sampler, math.ceil(8 / prior.sampler.num_steps))
    start, draws, infos = chain_start(prior, num_chains, generator=generator), [], []
    for state, info in sampler.run(prior, start, generator=generator):
        draws.append(torch.cat([state.position, state.log_density[:, None]], 1))
        infos.append(info)
    late = torch.stack(list(islice(draws, len(draws) // 2, None)))
    return {
        "rhat": split_rhat(late).max().item(),
        "ess_per_draw": (ess(late).min() / (late.shape[0] * late.shape[1])).item(),
        "acceptance": acceptance(infos).mean().item(),
    }


def long_run_draws(
    prior: EnergyPrior | RatioPrior,
    num: int,
    *,
    multiples: Sequence[int] = MULTIPLES,
    generator: torch.Generator | None = None,
) -> dict[int, Tensor]:
    """Ends (num, dim) of the same chains after ``multiples`` of the length that ``prior.sample``
    gives its last chain.

    Raises ``ValueError`` unless ``multiples`` increase from at least 1.
    """
    if not multiples or multiples[0] < 1 or any(a >= b for a, b in pairwise(multiples)):
        raise ValueError(f"multiples must increase from at least 1, got {list(multiples)}")
    z, draws, done = chain_start(prior, num, generator=generator), {}, 0
    for multiple in multiples:
        z = lengthened(prior.sampler, multiple - done).sample(prior, z, generator=generator)
        draws[multiple], done = z, multiple
    return draws


def long_run(
    model: LatentModel,
    test: Tensor,
    features: Features | None,
    *,
    multiples: Sequence[int] = MULTIPLES,
    num: int = 500,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    """What becomes of ``num`` prior draws in longer chains: ``energy_10x``, ``norm_10x``,
    ``frechet_10x``, ...

    The norm is the mean ``|z|``. The Frechet distance is that of decoded draws to ``test`` (n,
    \\*event) in ``features``, left out if they are None. A prior without a chain has no long run:
    no figures.
    """
    prior, figures = model.prior, {}
    if not isinstance(prior, (EnergyPrior, RatioPrior)):
        return figures
    real = None if features is None else features(test).detach()
    for multiple, z in long_run_draws(
        prior, num, multiples=multiples, generator=generator
    ).items():
        with torch.no_grad():
            figures |= tilt_means(prior, {f"{multiple}x": z})
            figures[f"norm_{multiple}x"] = z.norm(dim=1).mean().item()
            if features is not None and real is not None:
                figures[f"frechet_{multiple}x"] = frechet_distance(
                    real, features(decode(model, z))
                )
    return figures


def evaluation_figures(
    model: LatentModel,
    inference: Posterior,
    train: Tensor,
    test: Tensor,
    *,
    num_samples: int = 1000,
    num_shown: int = 64,
    multiples: Sequence[int] = MULTIPLES,
    show: Callable[[Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> "dict[str, Figure]":
    """Figures by name for a prior with a chain: ``energies``, ``long_run``; none for a Gaussian.

    ``energies``: histograms of the learned energy at posterior draws of ``train`` and ``test`` (n,
    \\*event) and at prior draws, ``num_samples`` each. ``long_run``: ``num_shown`` decoded ends of
    chains at every multiple of their length (a thousand, if data are vectors), as ``show`` maps
    them: images to [-1, 1], vectors to their units.
    """
    prior = model.prior
    if not isinstance(prior, (EnergyPrior, RatioPrior)):
        return {}
    z = {
        "posterior, training data": infer(
            model, inference, train[:num_samples], generator=generator
        ),
        "posterior, held-out data": infer(
            model, inference, test[:num_samples], generator=generator
        ),
        "prior": prior.sample(num_samples, generator=generator),
    }
    with torch.no_grad():
        energies = {name: -prior.tilt(draws) for name, draws in z.items()}
    shown = num_samples if test.ndim == 2 else num_shown
    ends = long_run_draws(prior, shown, multiples=multiples, generator=generator)
    decoded = {
        f"{multiple} x its length": decode(model, draws) for multiple, draws in ends.items()
    }
    panels = decoded if show is None else {name: show(x) for name, x in decoded.items()}
    return {
        "energies": histogram_figure(energies, "learned energy (nats)"),
        "long_run": panels_figure(panels),
    }
