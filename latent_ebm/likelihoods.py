r"""Likelihoods ``p(x|z)``: a ``decoder`` network inside an exact distribution. All its constants
are kept, so that a scale can be learnt and energies of different models can be compared.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from latent_ebm.artefacts import Artefact
from latent_ebm.conditions import Condition
from latent_ebm.networks.conditional import Conditional, of_chains, rows_of
from samplers.checks import check_numbers
from samplers.run_checks import is_readable


class Likelihood(Artefact, ABC):
    """``forward(z)`` gives the distribution of ``x`` (batch, \\*event) for latents ``z`` (batch,
    dim).
    """

    @abstractmethod
    def forward(self, z: Tensor, **condition: Tensor) -> Distribution:
        """``p(x|z)`` with batch shape (batch,): its ``log_prob(x)`` has one entry per row, and its
        ``mean`` has the shape of x. ``condition`` is passed on to a conditional decoder.
        """

    @property
    def is_conditional(self) -> bool:
        """Whether the decoder takes a condition, see ``given``."""
        return False

    @property
    def condition_rows(self) -> int:
        """The number of rows of the condition that was given, 1 without one."""
        return 1

    def given(self, condition: Condition) -> "Likelihood":
        """``p(x|z, c)``, where chain i belongs to row ``i % rows`` of the condition. An
        unconditional likelihood returns itself.
        """
        return GivenLikelihood(self, condition) if self.is_conditional else self

    def check(self, x: Tensor) -> None:
        """Raise ``ValueError`` if an entry of ``x`` is not finite, or lies outside the support of
        ``p(x|z)``.

        Call it once per data set or chain; ``log_prob`` does not check again.
        """
        if is_readable(x) and not bool(x.isfinite().all()):
            raise ValueError(
                f"x must be finite: {int((~x.isfinite()).sum())} of {x.numel()} entries are not"
            )


class PerRow(Independent):
    """``Independent`` whose ``log_prob`` also accepts batches without rows."""

    def log_prob(self, value: Tensor) -> Tensor:
        terms, num = self.terms(value), self.reinterpreted_batch_ndims
        return terms.flatten(-num).sum(-1) if num else terms

    def terms(self, value: Tensor) -> Tensor:
        """The log-probability of every entry of ``value``."""
        return self.base_dist.log_prob(value)


def per_row(distribution: Distribution) -> Independent:
    """Sum ``log_prob`` over all but the first dimension."""
    return PerRow(distribution, len(distribution.batch_shape) - 1, validate_args=False)


class Observed(PerRow):
    """``PerRow`` of the entries where ``mask`` is true. Hidden values may be NaN: they have no
    part in ``log_prob`` and its gradient.
    """

    mask: Tensor

    def terms(self, value: Tensor) -> Tensor:
        return super().terms(value.where(self.mask | value.isfinite(), 0)).where(self.mask, 0)

    def expand(self, batch_shape: torch.Size, _instance: "Observed | None" = None) -> "Observed":
        new: Any = self._get_checked_instance(Observed, _instance)
        new.mask = self.mask
        return super().expand(batch_shape, new)


class GaussianLikelihood(Likelihood):
    """``p(x|z) = N(decoder(z), scale^2 I)``.

    Args:
        decoder: Maps z (batch, dim) to (batch, \\*event).
        scale: The standard deviation of the noise, in the units of x.
        learn_scale: Whether to train the scale, starting from ``scale``.

    Raises:
        ValueError: For a non-positive ``scale``.
    """

    log_scale: Tensor

    def __init__(self, decoder: nn.Module, scale: float, learn_scale: bool = False) -> None:
        super().__init__()
        check_numbers(self, "positive", scale=scale)
        self.decoder = decoder
        log_scale = torch.tensor(math.log(scale))
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    @property
    def scale(self) -> float:
        """The standard deviation of the noise."""
        return self.log_scale.detach().exp().item()

    @property
    def learn_scale(self) -> bool:
        """Whether ``scale`` is trained."""
        return isinstance(self.log_scale, nn.Parameter)

    @property
    def is_conditional(self) -> bool:
        return isinstance(self.decoder, Conditional)

    def forward(self, z: Tensor, **condition: Tensor) -> Distribution:
        mean = self.decoder(z, **condition)
        return per_row(Normal(mean, self.log_scale.exp(), validate_args=False))


class BernoulliLikelihood(Likelihood):
    """``p(x|z) = Bernoulli(sigmoid(decoder(z)))`` for x in [0, 1].

    Args:
        decoder: Maps z (batch, dim) to logits (batch, \\*event).
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    @property
    def is_conditional(self) -> bool:
        return isinstance(self.decoder, Conditional)

    def forward(self, z: Tensor, **condition: Tensor) -> Distribution:
        return per_row(Bernoulli(logits=self.decoder(z, **condition), validate_args=False))

    def check(self, x: Tensor) -> None:
        super().check(x)
        if not is_readable(x) or x.numel() == 0:
            return
        low, high = x.min().item(), x.max().item()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"x must lie in [0, 1] for a BernoulliLikelihood, got [{low:g}, {high:g}]"
            )


class Masked(Likelihood):
    """The ``likelihood`` of observed entries only.

    ``LatentModel(prior, Masked(likelihood, mask))`` has the posterior given part of an image, as
    inpainting needs it. Hidden entries do not count, and may be NaN.

    Args:
        likelihood: The likelihood of all entries.
        mask: True where x is observed; broadcast to x.

    Raises:
        ValueError: If ``mask`` is not boolean.
    """

    mask: Tensor

    def __init__(self, likelihood: Likelihood, mask: Tensor) -> None:
        super().__init__()
        if not (isinstance(mask, Tensor) and mask.dtype == torch.bool):
            raise ValueError(f"mask must be a boolean tensor, got {getattr(mask, 'dtype', mask)}")
        self.likelihood = likelihood
        self.register_buffer("mask", mask)

    def check(self, x: Tensor) -> None:
        fits = all(a in (1, b) for a, b in zip(self.mask.shape[::-1], x.shape[::-1], strict=False))
        if self.mask.ndim > x.ndim or not fits:
            raise ValueError(
                f"mask must broadcast to x, of shape {tuple(x.shape)}, got "
                f"{tuple(self.mask.shape)}"
            )
        if is_readable(x):
            self.likelihood.check(x[self.mask.expand_as(x)])

    @property
    def is_conditional(self) -> bool:
        return self.likelihood.is_conditional

    @property
    def condition_rows(self) -> int:
        return self.likelihood.condition_rows

    def forward(self, z: Tensor, **condition: Tensor) -> Distribution:
        dense = self.likelihood(z, **condition)
        if not isinstance(dense, Independent):
            raise ValueError(
                "likelihood must give a torch Independent distribution to mask, got "
                f"{type(dense).__name__}"
            )
        num = dense.reinterpreted_batch_ndims
        observed = Observed(dense.base_dist, num, validate_args=False)
        observed.mask = self.mask
        return observed


class GivenLikelihood(Likelihood):
    """``p(x|z, c)``: a conditional ``likelihood`` with its ``condition`` c given."""

    def __init__(self, likelihood: Likelihood, condition: Condition) -> None:
        super().__init__()
        for part in likelihood.modules():
            if isinstance(part, Conditional):
                part.check(condition)
        self.likelihood, self.condition = likelihood, condition

    @property
    def condition_rows(self) -> int:
        return rows_of(self.condition)

    def forward(self, z: Tensor, **condition: Tensor) -> Distribution:
        return self.likelihood(z, **of_chains(self.condition, len(z)), **condition)

    def check(self, x: Tensor) -> None:
        self.likelihood.check(x)
