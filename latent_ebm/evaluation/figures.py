"""Figures of a model with a learned prior: energies, and what longer chains draw."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latent_ebm.evaluation.batches import decode, infer
from latent_ebm.evaluation.prior_chains import MULTIPLES, long_run_draws
from latent_ebm.model import LatentModel
from latent_ebm.plots import histogram_figure, panels_figure
from latent_ebm.posteriors import Posterior
from latent_ebm.priors import EnergyPrior, RatioPrior

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    """Figures by name for a prior with a chain: ``energies`` and ``long_run``. A Gaussian prior
    has none.

    ``energies`` shows histograms of the learned energy at posterior draws of ``train`` and
    ``test`` (n, \\*event) and at prior draws, ``num_samples`` of each. ``long_run`` shows decoded
    draws after every multiple of the chain's length: ``num_shown`` images, or ``num_samples``
    vectors. ``show`` maps decoded x to what is drawn: images in [-1, 1], or vectors in their
    units.
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
