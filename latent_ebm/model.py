r"""A latent model ``p(x, z) = p(z) p(x|z)``. Its ``log_posterior(x)`` is the only bridge to the
samplers.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from latent_ebm.artefacts import Artefact
from latent_ebm.conditions import Condition
from latent_ebm.likelihoods import Likelihood
from latent_ebm.priors import Prior
from samplers import Given, Sum
from samplers.checks import check_kind
from samplers.densities import Terms


class EnergyTerms(NamedTuple):
    """Terms (batch,) of the joint energy ``-log p(x, z)``, up to the prior's ``log Z``. High
    energies are unusual.

    ``reconstruction`` = -log p(x|z), ``tilt`` = the learned energy of the prior, ``base`` = -log
    p_0(z).
    """

    reconstruction: Tensor
    tilt: Tensor
    base: Tensor

    @property
    def joint(self) -> Tensor:
        """Their sum (batch,)."""
        return self.reconstruction + self.tilt + self.base

    def columns(self) -> dict[str, Tensor]:
        """The terms and their sum, each (batch,), by name."""
        return {**self._asdict(), "joint": self.joint}


class LogPosterior(Given, Sum):
    """What ``model.log_posterior(x)`` returns: ``log p(z) + log p(x|z)`` as a density in z."""

    def __init__(self, model: "LatentModel", x: Tensor) -> None:
        super().__init__(model, x)
        model.likelihood.check(x)
        for part in (model.prior, model.likelihood):
            check_condition_rows(x, part.condition_rows)
        self.model, self.x = model, x

    def terms(self) -> Terms:
        return (1.0, self.model.prior), (1.0, self.log_likelihood)

    def given(self, data: Tensor) -> "LogPosterior":
        """The posterior of other ``data`` x (batch, \\*event)."""
        return LogPosterior(self.model, data)

    def log_likelihood(self, z: Tensor) -> Tensor:
        """``log p(x|z)`` (chains,)."""
        return self.model.log_likelihood(self.rows(z), z)

    def rows(self, z: Tensor) -> Tensor:
        """The data (chains, \\*event) of the chains at ``z`` (chains, dim)."""
        copies = max(1, len(z) // max(1, len(self.x)))
        return self.x.repeat(copies, *[1] * (self.x.ndim - 1)) if copies > 1 else self.x


def check_condition_rows(x: Tensor, rows: int) -> None:
    """Raise ``ValueError`` unless each of the ``rows`` of a condition belongs to rows of ``x``
    (batch, \\*event) of its own, or all of them to a single one.
    """
    if len(x) != 1 and len(x) % rows:
        raise ValueError(
            f"x must have one row or a multiple of the condition's {rows} rows, got {len(x)}"
        )


class LatentModel(Artefact):
    """``p(x, z) = p(z) p(x|z)`` from a ``prior`` and a ``likelihood``; z (batch, dim), x (batch,
    \\*event).
    """

    def __init__(self, prior: Prior, likelihood: Likelihood) -> None:
        super().__init__()
        check_kind(self, Prior, prior=prior)
        check_kind(self, Likelihood, likelihood=likelihood)
        self.prior, self.likelihood = prior, likelihood

    @property
    def is_conditional(self) -> bool:
        """Whether the prior or the likelihood takes a condition."""
        return self.prior.is_conditional or self.likelihood.is_conditional

    def given(self, condition: Condition) -> "LatentModel":
        """``p(x, z|c) = p(z|c) p(x|z, c)``: a view of this model with the same parameters, whose
        row ``i`` has row ``i % rows`` of the condition.

        Sampling, posteriors, losses and bounds take it as any model. The prior's constant depends
        on the condition, so that energies of different conditions cannot be compared. Of the empty
        condition it is the model itself, to which everything is unknown.
        """
        if not condition:
            return self
        return LatentModel(self.prior.given(condition), self.likelihood.given(condition))

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """``log p(z) + log p(x|z)`` (batch,), up to the prior's constant. Raises ``ValueError`` on
        a shape mismatch.
        """
        return self.prior.log_density(z) + self.log_likelihood(x, z)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """``log p(x|z)`` (batch,). Raises ``ValueError`` on a shape mismatch."""
        conditional = self.likelihood(z)
        if x.shape != conditional.batch_shape + conditional.event_shape:
            wanted = tuple(conditional.batch_shape + conditional.event_shape)
            raise ValueError(
                f"x must have the shape {wanted} of the likelihood at z, got {tuple(x.shape)}"
            )
        return conditional.log_prob(x)

    def log_posterior(self, x: Tensor) -> LogPosterior:
        """``z -> log p(x, z)``: the log-density in z of the posterior given ``x``, one chain per
        row of x.

        With a multiple of ``len(x)`` chains, chain ``c`` belongs to row ``c % len(x)``. Raises
        ``ValueError`` for ``x`` outside the likelihood's support, or whose rows are not those of
        a condition that was given.
        """
        return LogPosterior(self, x)

    def energy_terms(self, x: Tensor, z: Tensor) -> EnergyTerms:
        """The parts (batch,) of the energy of ``(x, z)``. Raises ``ValueError`` outside the
        likelihood's support.
        """
        self.likelihood.check(x)
        return EnergyTerms(
            -self.log_likelihood(x, z), -self.prior.tilt(z), -self.prior.base.log_density(z)
        )

    def decode(self, z: Tensor) -> Tensor:
        """``E[x|z]`` (batch, \\*event)."""
        return self.likelihood(z).mean

    @torch.no_grad()
    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``E[x|z]`` (num, \\*event) at prior draws, detached: samples without the observation
        noise, as in the papers.
        """
        return self.decode(self.prior.sample(num, generator=generator))
