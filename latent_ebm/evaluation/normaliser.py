r"""log Z of a prior, as an interval, and the reasons not to trust it.

Chains that are annealed from the base find the modes that the base leads to, and no others. So
log Z is measured from a second start as well. A mixture of Gaussians q(z) is fitted to all points
where mass may lie: draws of the prior, ends of chains from the base and from a base twice as wide,
and posterior draws of data, around which a learnt prior has its mass. Chains start at draws of a
blend of the base and q, half each. Then q is fitted again, to ends of these chains that are drawn
by their weights.

- Forth, from the blend to the prior: ``E[exp(log-weight)] = Z``. The log of the mean weight is a
  lower bound of log Z *in expectation*, whatever q is.
- Back, from draws of the prior to the blend: an upper bound in expectation, *for exact draws
  only*. They are ends of other chains forth, drawn in proportion to their weights. This gives
  modes their right shares, which a short chain does not.
- Both together: Bennett's estimate. Its interval comes from the spread of independent groups of
  chains, and is widened to hold both bounds.

An interval cannot hold mass that no chain reached. ``LogZ.reasons`` says what speaks against it.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.stats import t as student_t
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as FittedMixture
from torch import Tensor

from latent_ebm.evaluation.doubts import reasons, reasons_of_draws
from latent_ebm.priors import Prior, RatioPrior, check_latent
from samplers import (
    Blend,
    Density,
    GaussianMixture,
    Sampler,
    annealed_along,
    annealed_importance,
    bennett,
    log_mean_exp,
    resample,
)
from samplers.checks import check_counts, check_kind, check_numbers
from samplers.importance import check_invariant

NUM_GROUPS = 10  # independent groups of chains, whose spread gives the interval
COMPONENTS = 6  # of the fitted mixture, at most; the BIC decides
WIDER, WIDENING = 2.0, 1.15  # of the base that explores; of the fitted mixture
SETTLING = 5  # runs of the sampler that spread copies of one draw


@dataclass(frozen=True)
class LogZ:
    """``log int exp(log_density)`` of a prior, in nats.

    ``estimate`` lies in the interval ``[lower, upper]``. ``from_base`` is what chains from the
    base alone find, a lower bound in expectation. ``reasons`` are sentences that say why the
    interval may miss the truth; it is reliable if there are none.
    """

    estimate: float
    lower: float
    upper: float
    from_base: float
    reasons: tuple[str, ...] = ()

    @property
    def is_reliable(self) -> bool:
        """Whether no check speaks against the interval."""
        return not self.reasons


def prior_log_z(
    prior: Prior,
    sampler: Sampler,
    draws: Tensor | None = None,
    *,
    num: int = 500,
    num_rungs: int = 100,
    confidence: float = 0.95,
    generator: torch.Generator | None = None,
) -> LogZ:
    """log Z of ``prior``, 0 if it is normalised, as a Gaussian is.

    Args:
        prior: An energy prior or a ratio prior with a normalised base. A conditional one must be
            given a single row of its condition, because log Z depends on the condition.
        sampler: Moves chains at every rung; must leave its target invariant (MALA, HMC).
        draws: Posterior draws (n, dim) of data, which show where the prior should have mass; the
            first ``num`` are used. With fewer than 20 different ones the result is never reliable.
        num: Chains of each kind, at least 40.
        num_rungs: Annealing steps. Chains from the base of a ratio prior go from stage to stage.
        confidence: Of the interval, in (0, 1).
        generator: Source of randomness.

    Raises:
        ValueError: For arguments that break these rules.
        FloatingPointError: If a chain diverges.
    """
    check_kind("prior_log_z", Prior, prior=prior)
    check_arguments(prior, sampler, draws, num, num_rungs, confidence)
    if prior.base is prior or (isinstance(prior, RatioPrior) and not len(prior.stages)):
        return LogZ(0.0, 0.0, 0.0, 0.0)
    draws = None if draws is None else draws[:num]
    kernel = partial(sampler.sample, generator=generator)
    anneal = partial(
        annealed_importance, sampler=sampler, num_rungs=num_rungs, generator=generator
    )
    ends, base_weight = anneal_from_base(prior, sampler, num, num_rungs, generator=generator)
    wide = Stretched(prior.base, WIDER)
    wide_ends = anneal(wide, prior, wide.sample(num, generator=generator))
    places = [prior.sample(num, generator=generator)] + ([] if draws is None else [draws])
    places += [resample(*found, generator=generator) for found in ((ends, base_weight), wide_ends)]
    z = torch.cat(places)
    for _ in range(2):  # where mass may lie; then where it does lie, by weight
        q = fit_mixture(settle(prior, kernel, z), generator=generator)
        blend = Blend(prior.base, q)
        start = partial(blended, prior.base, q, num, generator=generator)
        z = resample_groups(*anneal(blend, prior, start()), generator=generator)
    forth = anneal(blend, prior, start())[1]
    back = anneal(prior, blend, settle(prior, kernel, z))[1]
    known = None if draws is None else anneal(prior, blend, draws)[1]
    estimate, lower, upper = interval(forth, back, confidence)
    from_base = log_mean_exp(base_weight).item()
    doubts = [
        *reasons(prior, estimate, from_base, forth, back),
        *reasons_of_draws(draws, forth, known),
    ]
    return LogZ(estimate, lower, upper, from_base, tuple(doubts))


def anneal_from_base(
    prior: Prior,
    sampler: Sampler,
    num: int,
    num_rungs: int,
    *,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Ends (num, dim) and log-weights (num,) of chains from the base, by way of the stages of a
    ratio prior.
    """
    path = [prior.base, prior]
    if isinstance(prior, RatioPrior):
        path = [prior.base, *(prior.prefix(k + 1) for k in range(len(prior.stages)))]
    start = prior.base.sample(num, generator=generator)
    rungs = math.ceil(num_rungs / (len(path) - 1))
    return annealed_along(path, start, sampler, rungs, generator=generator)


class Stretched(Density):
    """``base`` stretched by ``factor``: the normalised density of ``factor * z``."""

    def __init__(self, base: Prior, factor: float) -> None:
        self.base, self.factor = base, factor

    def __call__(self, x: Tensor) -> Tensor:
        return self.base(x / self.factor) - x.shape[1] * math.log(self.factor)

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws (num, dim)."""
        return self.factor * self.base.sample(num, generator=generator)


def settle(prior: Prior, kernel: Callable[[Prior, Tensor], Tensor], z: Tensor) -> Tensor:
    """``z`` (n, dim) after some runs of a sampler, so that copies of one draw differ."""
    for _ in range(SETTLING):
        z = kernel(prior, z)
    return z


def fit_mixture(z: Tensor, *, generator: torch.Generator | None = None) -> GaussianMixture:
    """A mixture of Gaussians with diagonal covariances of ``z`` (n, dim), a little wider, with the
    number of components of least BIC.
    """
    seed = int(torch.randint(2**31 - 1, (), generator=generator, device=z.device))
    rows = z.double().cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fits = [
            FittedMixture(k, covariance_type="diag", reg_covar=1e-4, random_state=seed).fit(rows)
            for k in range(1, COMPONENTS + 1)
        ]
    best = min(fits, key=lambda fitted: fitted.bic(rows))
    variances = WIDENING**2 * np.asarray(best.covariances_)
    parts = best.weights_, best.means_, np.sqrt(variances)
    return GaussianMixture(*(z.new_tensor(a) for a in parts))


def blended(
    base: Prior, q: GaussianMixture, num: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draws (num, dim), half of the base and half of ``q``, in random order."""
    half = num // 2
    z = [base.sample(half, generator=generator), q.sample(num - half, generator=generator)]
    return torch.cat(z)[torch.randperm(num, generator=generator, device=z[0].device)]


def resample_groups(
    z: Tensor, log_weight: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """``z`` (n, dim) drawn again by weight within each group, so that groups stay independent."""
    groups = zip(z.tensor_split(NUM_GROUPS), log_weight.tensor_split(NUM_GROUPS), strict=True)
    return torch.cat([resample(*group, generator=generator) for group in groups])


def interval(forth: Tensor, back: Tensor, confidence: float) -> tuple[float, float, float]:
    """Estimate, lower and upper end: Bennett's estimate, the t interval of its groups, and both
    stochastic bounds.
    """
    groups = zip(forth.tensor_split(NUM_GROUPS), back.tensor_split(NUM_GROUPS), strict=True)
    error = np.std([bennett(*group) for group in groups], ddof=1) / math.sqrt(NUM_GROUPS)
    half = float(student_t.ppf((1 + confidence) / 2, NUM_GROUPS - 1) * error)
    estimate = bennett(forth, back)
    bounds = log_mean_exp(forth).item(), -log_mean_exp(back).item()
    return estimate, min(estimate - half, *bounds), max(estimate + half, *bounds)


def check_arguments(
    prior: Prior,
    sampler: Sampler,
    draws: Tensor | None,
    num: int,
    num_rungs: int,
    confidence: float,
) -> None:
    """Raise ``ValueError`` for arguments of ``prior_log_z`` that break a rule."""
    check_invariant(sampler)
    check_counts("prior_log_z", 4 * NUM_GROUPS, num=num)
    check_counts("prior_log_z", num_rungs=num_rungs)
    check_numbers("prior_log_z", "in (0, 1)", confidence=confidence)
    if prior.is_conditional:
        raise ValueError("prior must be told one condition by given(condition), got none")
    if prior.condition_rows > 1:
        raise ValueError(
            "prior must be given one row of its condition, because each row has a log Z of its "
            f"own, got {prior.condition_rows} rows: use given(condition.rows(slice(i, i + 1)))"
        )
    if prior.base.base is not prior.base:
        raise ValueError(
            f"prior must have a normalised base, got a {type(prior.base).__name__} as its base"
        )
    if draws is not None:
        check_draws(draws, prior.base.sample(0))


def check_draws(draws: Tensor, z: Tensor) -> None:
    """Raise ``ValueError`` unless ``draws`` are finite latents, of the dtype and on the device of
    ``z`` (0, dim).
    """
    check_kind("prior_log_z", Tensor, draws=draws)
    check_latent(draws, z.shape[1], "draws")
    if draws.dtype != z.dtype or draws.device != z.device:
        raise ValueError(
            f"draws must be {z.dtype} on {z.device}, as those of the prior, got {draws.dtype} on "
            f"{draws.device}"
        )
    if len(draws) == 0 or not bool(draws.isfinite().all()):
        raise ValueError(
            f"draws must be finite and at least one row, got {len(draws)} rows, "
            f"{int((~draws.isfinite()).sum())} entries of them not finite"
        )
