r"""Bounds of ``log p(x)`` of a latent model, one pair per datum, by annealed importance sampling
in both directions.

For a latent model ``p(x) = int exp(log_joint(x, z)) dz / Z`` with the prior's ``Z``. Chains
annealed from the prior's base to the posterior of every datum find where its mass lies and how
wide it is; a diagonal Gaussian ``q(z)``, a little wider, is fitted to them. Annealing from exact
draws of ``q`` to the posterior gives a stochastic lower bound of the log-integral, annealing back
from the chains' ends an upper one (Wu et al. 2017, arXiv:1611.04273; Grosse et al. 2015,
arXiv:1511.02543). A close ``q`` is what makes few rungs enough: from the prior, the way is
hundreds of nats long.

No step size fits every datum and every latent, so that chains run in coordinates of their own:
each latent is measured in posterior standard deviations, times a factor per datum that shortens
steps where they are rejected. One step size does for all; a trajectory of about 1.5 of these units
is a quarter of a period, the most efficient one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Normal

from latent_ebm.likelihoods import per_row
from latent_ebm.model import LatentModel
from samplers import (
    Density,
    LogDensity,
    Sampler,
    annealed_importance,
    log_mean_exp,
    value_and_grad,
)
from samplers.base import normal_like
from samplers.checks import check_counts
from samplers.importance import Interpolated, check_invariant

ACCEPTANCE = 0.75  # below it, the steps of a datum are shortened
WIDENING = 1.15  # of q against the posterior, so that no part of it is missed
FLOOR = 1e-6  # of standard deviations, in units of the prior


class Scaled(Density):
    """The log-density ``v -> log_density(scale * v)`` of ``v`` (rows, dim), with a ``scale``
    (rows, dim) each.

    The Jacobian, a constant of each row, is left out.
    """

    def __init__(self, log_density: LogDensity, scale: Tensor) -> None:
        self.log_density, self.scale = log_density, scale

    def __call__(self, v: Tensor) -> Tensor:
        return self.log_density(self.scale * v)

    def value_and_grad(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Value (rows,) and gradient (rows, dim) at ``v`` (rows, dim)."""
        value, grad = value_and_grad(self.log_density, self.scale * v)
        return value, self.scale * grad


class DatumChains:
    """``num_chains`` chains for every one of ``num_data`` data, adapted to it. Row ``r`` belongs
    to datum ``r % num_data``, as for all posteriors.

    ``z`` (rows, dim) are positions, ``std`` (num_data, dim) the widths in which steps are
    measured, and ``factor`` (num_data, 1), at most 1, multiplies them. ``sampler`` must leave its
    target invariant.
    """

    def __init__(self, z: Tensor, num_data: int, sampler: Sampler) -> None:
        self.z, self.sampler, self.num_data = z, sampler, num_data
        self.std, self.factor = z.new_ones(num_data, z.shape[1]), z.new_ones(num_data, 1)

    @property
    def scale(self) -> Tensor:
        """Length (rows, dim) of the sampler's unit."""
        return self.rows(self.factor * self.std)

    def rows(self, per_datum: Tensor) -> Tensor:
        """Repeat (num_data, \\*event) for every chain: (rows, \\*event)."""
        return per_datum.repeat(len(self.z) // self.num_data, *[1] * (per_datum.ndim - 1))

    def move(
        self, target: LogDensity, *, gain: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Run the sampler once, steer ``factor`` (up to 1) by the acceptance, and return the
        positions.
        """
        scale, accept = self.scale, torch.zeros_like(self.factor)
        for state, info in self.sampler.run(
            Scaled(target, scale), self.z / scale, generator=generator
        ):
            self.z = state.position * scale
            mean = info.accept_prob.view(-1, self.num_data).mean(0)
            accept += mean[:, None] / self.sampler.num_steps
        self.factor = (self.factor * (gain * (accept - ACCEPTANCE)).exp()).clamp(max=1.0)
        return self.z

    def fit(self, draws: Sequence[Tensor]) -> Tensor:
        """Set ``std`` from several ``draws`` (rows, dim) of all chains and return their mean
        (num_data, dim).
        """
        pooled = torch.cat([z.view(-1, self.num_data, z.shape[1]) for z in draws])
        self.std = pooled.std(0).clamp(min=FLOOR)
        return pooled.mean(0)


def fit_posterior(
    model: LatentModel,
    x: Tensor,
    sampler: Sampler,
    *,
    num_chains: int,
    num_rounds: int,
    generator: torch.Generator | None = None,
) -> tuple[DatumChains, Tensor]:
    """Chains at the posteriors of ``x`` (batch, \\*event), and the posterior means (batch, dim)
    they found.

    ``num_rounds`` runs of ``sampler`` anneal the base to the posterior, then three times as many
    stay there, in which the widths are fitted to the draws, twice; the last ones move without
    adapting.
    """
    base = model.prior.base
    chains = DatumChains(base.sample(len(x) * num_chains, generator=generator), len(x), sampler)
    target = model.log_posterior(chains.rows(x))
    for k in range(num_rounds):
        beta = ((k + 1) / num_rounds) ** 4
        chains.move(Interpolated(base, target, beta), gain=1.0, generator=generator)
    chains.fit([chains.move(target, gain=0.5, generator=generator) for _ in range(num_rounds)])
    chains.factor = torch.ones_like(chains.factor)  # from now on in units of the posterior
    chains.fit([chains.move(target, gain=0.5, generator=generator) for _ in range(num_rounds)])
    mean = chains.fit([chains.move(target, generator=generator) for _ in range(num_rounds)])
    return chains, mean


def nll_bracket(
    model: LatentModel,
    x: Tensor,
    sampler: Sampler,
    *,
    num_chains: int = 8,
    num_rounds: int = 40,
    num_rungs: int = 40,
    log_z: tuple[float, float] = (0.0, 0.0),
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Stochastic bounds ``(lower, upper)`` (batch,) of ``-log p(x)`` in nats for ``x`` (batch,
    \\*event).

    Both bounds are pooled over ``num_chains`` chains per datum, annealed over ``num_rungs`` rungs
    to and from the Gaussian that ``num_rounds`` rounds of adaptation gave (see ``fit_posterior``).
    ``sampler`` moves once a round or rung, in units of posterior standard deviations, and must
    leave its target invariant: ``HMC(0.3, 5, 1)``. ``log_z`` bounds the prior's ``log Z`` (see
    ``prior_log_z``; 0 if it is normalised). The upper bound holds with high probability; the lower
    one as far as the chains did reach the posterior.

    Raises ``ValueError`` if counts are too small, ``log_z`` is not in order, or ``sampler`` is
    neither MALA nor HMC.
    """
    check_bracket_arguments(sampler, num_chains, num_rounds, num_rungs, log_z)
    if not bool(x.isfinite().all()):
        raise ValueError(
            f"x must be finite: {int((~x.isfinite()).sum())} of {x.numel()} entries are not"
        )
    chains, mean = fit_posterior(
        model, x, sampler, num_chains=num_chains, num_rounds=num_rounds, generator=generator
    )
    mean, std, scale = chains.rows(mean), WIDENING * chains.rows(chains.std), chains.scale
    q = Scaled(per_row(Normal(mean, std, validate_args=False)).log_prob, scale)
    joint = Scaled(model.log_posterior(chains.rows(x)), scale)
    start = (mean + std * normal_like(std, generator)) / scale
    _, forth = annealed_importance(q, joint, start, sampler, num_rungs, generator=generator)
    _, back = annealed_importance(
        joint, q, chains.z / scale, sampler, num_rungs, generator=generator
    )
    integral_lower, integral_upper = (
        log_mean_exp(forth.view(-1, len(x)), 0),
        -log_mean_exp(back.view(-1, len(x)), 0),
    )
    return log_z[0] - integral_upper, log_z[1] - integral_lower


def check_bracket_arguments(
    sampler: Sampler, num_chains: int, num_rounds: int, num_rungs: int, log_z: tuple[float, float]
) -> None:
    """Raise ``ValueError`` for arguments of ``nll_bracket`` that break a rule."""
    check_invariant(sampler)
    check_counts("nll_bracket", 2, num_chains=num_chains, num_rounds=num_rounds)
    check_counts("nll_bracket", num_rungs=num_rungs)
    if not log_z[0] <= log_z[1]:
        raise ValueError(f"log_z must be (lower, upper) with lower <= upper, got {log_z}")
