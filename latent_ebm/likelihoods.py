r"""Likelihoods ``p(x|z)``: a ``decoder`` network inside an exact distribution with all its
constants, so that a scale can be learned and energies of different models can be compared.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from latent_ebm.artefacts import Artefact
from latent_ebm.conditions import Condition
from latent_ebm.networks.conditional import Conditional, of_chains
from samplers.checks import check_numbers
from samplers.run_checks import is_readable


class Likelihood(Artefact, ABC):
    """``forward(z)`` gives the distribution of ``x`` (batch, \\*event) for latents ``z`` (batch,
    dim).
    """

    @abstractmethod
    def forward(self, z: Tensor, **condition: Tensor) -> Distribution:
        """``p(x|z)`` with batch shape (batch,): its ``log_prob(x)`` is one number per row, its
        ``mean`` an image. ``condition`` is that of a decoder that is told one.
        """

    @property
    def is_conditional(self) -> bool:
        """Whether the decoder is told a condition, see ``given``."""
        return False

    def given(self, condition: Condition) -> "Likelihood":
        """``p(x|z, c)``, chain ``c`` of the condition's row ``c % rows``; this likelihood itself
        if it is not conditional.
        """
        return GivenLikelihood(self, condition) if self.is_conditional else self

    def check(self, x: Tensor) -> None:
        """Raise ``ValueError`` if an entry of ``x`` is not finite, or lies where ``p(x|z)`` has no
        density.

        Once per data set or chain; ``log_prob`` does not ask again.
        """
        if is_readable(x) and not bool(x.isfinite().all()):
            raise ValueError(
                f"x must be finite: {int((~x.isfinite()).sum())} of {x.numel()} entries are not"
            )


class PerRow(Independent):
    """``Independent`` whose ``log_prob`` takes batches of no rows too."""

    def log_prob(self, value: Tensor) -> Tensor:
        terms, num = self.base_dist.log_prob(value), self.reinterpreted_batch_ndims
        return terms.flatten(-num).sum(-1) if num else terms


def per_row(distribution: Distribution) -> Independent:
    """Sum ``log_prob`` over all but the first dimension."""
    return PerRow(distribution, len(distribution.batch_shape) - 1, validate_args=False)


class GaussianLikelihood(Likelihood):
    """``p(x|z) = N(decoder(z), scale^2 I)``. ``decoder`` maps z (batch, dim) to (batch, \\*event).

    ``scale`` is the noise's standard deviation in the units of x; with ``learn_scale`` it is where
    training starts. Raises ``ValueError`` for a non-positive ``scale``.
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
    """``p(x|z) = Bernoulli(sigmoid(decoder(z)))`` for x in [0, 1]; ``decoder`` gives logits
    (batch, \\*event).
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
    """``likelihood`` of the observed entries only: where ``mask`` (broadcast to x) is False, x
    does not count.

    The posterior given part of an image, as for inpainting, is ``LatentModel(prior,
    Masked(likelihood, mask))``'s. Raises ``ValueError`` if ``mask`` is not boolean.
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

    def forward(self, z: Tensor, **condition: Tensor) -> Distribution:
        from pyro.distributions import MaskedDistribution

        dense = self.likelihood(z, **condition)
        if not isinstance(dense, Independent):
            raise ValueError(
                "likelihood must give a torch Independent distribution to mask, got "
                f"{type(dense).__name__}"
            )
        return per_row(MaskedDistribution(dense.base_dist, self.mask))  # pyright: ignore[reportArgumentType]


class GivenLikelihood(Likelihood):
    """``p(x|z, c)`` of a ``likelihood`` whose decoder is told the ``condition`` c."""

    def __init__(self, likelihood: Likelihood, condition: Condition) -> None:
        super().__init__()
        for part in likelihood.modules():
            if isinstance(part, Conditional):
                part.check(condition)
        self.likelihood, self.condition = likelihood, condition

    def forward(self, z: Tensor, **condition: Tensor) -> Distribution:
        return self.likelihood(z, **of_chains(self.condition, len(z)), **condition)

    def check(self, x: Tensor) -> None:
        self.likelihood.check(x)
