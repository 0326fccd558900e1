r"""Priors ``p(z)`` of a latent model.

An *energy prior* is a base density tilted by a network, ``p(z) ~ p_0(z) exp(-E(z))``; a *ratio
prior* is a base density times learned density ratios, ``p_K(z) ~ p_0(z) prod_k r_k(z)``, ``r_k =
exp(f_k)``. A prior *is* a log-density, and these two are sums of terms: samplers take a prior as
it is, and use the closed-form gradients of its terms where these have one.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from latent_ebm.artefacts import Artefact
from latent_ebm.conditions import Condition
from latent_ebm.networks.conditional import Conditional, Told
from latent_ebm.networks.energy import stacked
from samplers import Density, Sampler, Sum
from samplers.checks import check_counts, check_kind, check_numbers
from samplers.densities import Terms, Total
from samplers.derivatives import check_value


class Prior(Artefact, Density, ABC):
    """A log-density over latents ``z`` (batch, dim) that can be sampled. ``base`` is the
    normalised density that it tilts, itself if it is normalised.
    """

    base: "Prior"

    @abstractmethod
    def log_density(self, z: Tensor) -> Tensor:
        """Log-density (batch,) at ``z`` (batch, dim), up to the constant ``log_z``."""

    @abstractmethod
    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws (num, dim)."""

    def forward(self, z: Tensor) -> Tensor:
        """A prior is a log-density: ``prior(z)`` is ``prior.log_density(z)``."""
        return self.log_density(z)

    def tilt(self, z: Tensor) -> Tensor:
        """Learned part (batch,) of the log-density: ``log_density(z) - base.log_density(z)``."""
        return self.log_density(z) - self.base.log_density(z)

    @property
    def is_conditional(self) -> bool:
        """Whether this prior depends on a condition, see ``given``."""
        return False

    @property
    def condition_rows(self) -> int:
        """The number of rows of the condition that was given, 1 without one."""
        return 1

    def given(self, condition: Condition) -> "Prior":
        """``p(z|c)``, chain ``c`` of the condition's row ``c % rows``; this prior itself if it is
        not conditional. Its constant ``log_z`` depends on the condition.
        """
        return self


def check_latent(z: Tensor, dim: int, name: str = "z") -> None:
    """Raise ``ValueError`` unless ``z`` has shape (batch, dim)."""
    if z.ndim != 2 or z.shape[1] != dim:
        raise ValueError(f"{name} must have shape (batch, {dim}), got {tuple(z.shape)}")


class GaussianPrior(Prior):
    """Standard normal ``N(0, I)`` in ``dim`` dimensions, normalised. Raises ``ValueError`` for
    ``dim < 1``.
    """

    loc: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        check_counts(self, dim=dim)
        self.dim = int(dim)
        self.register_buffer("loc", torch.zeros(self.dim))
        self.log_norm = 0.5 * dim * math.log(2 * math.pi)

    @property
    def base(self) -> "Prior":  # pyright: ignore[reportIncompatibleVariableOverride]
        return self

    def log_density(self, z: Tensor) -> Tensor:
        check_latent(z, len(self.loc))
        return -0.5 * z.square().sum(-1) - self.log_norm

    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Closed form for samplers."""
        return self.log_density(z.detach()), -z.detach()

    def workspace(self, z: Tensor) -> Callable[[Tensor], Tensor]:
        """Closed form for samplers."""
        out = torch.empty_like(z)
        return lambda z: torch.neg(z, out=out)

    def grad_and_laplacian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Closed form for flows."""
        return -z.detach(), z.new_full((len(z),), -z.shape[1])

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        check_counts(self, least=0, num=num)
        return self.loc.new_empty(num, len(self.loc)).normal_(generator=generator)


class EnergyPrior(Prior, Sum):
    """``p(z) = p_0(z) exp(-E(z)) / Z`` (Pang et al. 2020, arXiv:2006.08205), ``E = network``.

    ``network`` maps z (batch, dim) to energies (batch,), which are low where latents of data lie.
    ``base`` is a normalised prior. ``sampler`` draws from the product, starting from the base. A
    network that is ``Conditional`` makes a prior ``p(z|c)``, see ``given``.
    """

    def __init__(self, network: nn.Module, base: Prior, sampler: Sampler) -> None:
        super().__init__()
        check_kind(self, Sampler, sampler=sampler)
        check_kind(self, Prior, base=base)
        self.network, self.base, self.sampler = network, base, sampler

    def log_density(self, z: Tensor) -> Tensor:
        return self.base.log_density(z) + self.tilt(z)

    @property
    def is_conditional(self) -> bool:
        return isinstance(self.network, Conditional)

    @property
    def condition_rows(self) -> int:
        return self.network.rows if isinstance(self.network, Told) else 1

    def given(self, condition: Condition) -> "Prior":
        if not self.is_conditional:
            return self
        return EnergyPrior(Told(self.network, condition), self.base, self.sampler)

    def tilt(self, z: Tensor) -> Tensor:
        energy = self.network(z)
        check_value(energy, z, "network")
        return -energy

    def terms(self) -> Terms:
        return (1.0, self.base), (-1.0, self.network)

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws (num, dim) by ``sampler``, which starts from draws of the base."""
        return self.sampler.sample(
            self, self.base.sample(num, generator=generator), generator=generator
        )


class RatioPrior(Prior, Sum):
    """``p_K(z) = p_0(z) prod_k exp(w_k f_k(z)) / Z_K`` (Xiao & Han 2022, arXiv:2209.08739), ``f_k
    = stages[k]``.

    Each stage maps z (batch, dim) to a logit (batch,), which estimates the log-ratio of the
    posterior of that stage to ``p_k``. ``weights`` w_k (K,) are 1 for a full ratio, and
    ``log_z_steps`` (K,) hold ``log Z_{k+1} - log Z_k``, 0 until estimated. ``sampler`` runs on
    one stage after another, starting where it ended: the product is its own annealing path.

    A short chain does not cross from mode to mode, so draws keep the shares that modes have in the
    base. ``resample(*annealed_along([base, prior], base.sample(num), ...))`` gives modes their
    shares, and so does a ``ParallelTempering`` chain that is long enough.
    """

    weights: Tensor
    log_z_steps: Tensor

    def __init__(self, base: Prior, stages: Iterable[nn.Module], sampler: Sampler) -> None:
        super().__init__()
        check_kind(self, Sampler, sampler=sampler)
        check_kind(self, Prior, base=base)
        self.base, self.sampler, self.stages = base, sampler, nn.ModuleList(stages)
        self.register_buffer("weights", torch.ones(len(self.stages)))
        self.register_buffer("log_z_steps", torch.zeros(len(self.stages)))

    @property
    def log_z(self) -> Tensor:
        """Telescoped estimate of ``log Z_K``, the log-integral of ``exp(log_density)``."""
        return self.log_z_steps.sum()

    def append(self, stage: nn.Module, weight: float = 1.0, log_z_step: float = 0.0) -> None:
        """Add a frozen stage to the product. Raises ``ValueError`` for numbers that are not
        finite.
        """
        check_numbers(self, "finite", weight=weight, log_z_step=log_z_step)
        self.stages.append(stage.requires_grad_(False))
        self.weights = torch.cat([self.weights, self.weights.new_tensor([weight])])
        self.log_z_steps = torch.cat([self.log_z_steps, self.log_z_steps.new_tensor([log_z_step])])

    def prefix(self, num_stages: int) -> "RatioPrior":
        """The prior ``p_k`` of the first ``num_stages`` stages, sharing their networks.
        ``ValueError`` if there are fewer.
        """
        check_counts(self, least=0, num_stages=num_stages)
        if num_stages > len(self.stages):
            raise ValueError(
                f"num_stages must be at most {len(self.stages)}, the number of stages, got "
                f"{num_stages}"
            )
        prior = RatioPrior(self.base, self.stages[:num_stages], self.sampler)
        prior.weights, prior.log_z_steps = self.weights[:num_stages], self.log_z_steps[:num_stages]
        return prior

    def log_density(self, z: Tensor) -> Tensor:
        return self.base.log_density(z) + self.tilt(z)

    def tilt(self, z: Tensor) -> Tensor:
        total = z.new_zeros(
            z.shape[0]
        )  # len(z) would fix the number of rows of an exported network
        for weight, stage in zip(self.weights, self.stages, strict=True):
            logit = stage(z)
            check_value(logit, z, "a stage")
            total = total + weight * logit
        return total

    def terms(self) -> Terms:
        return (1.0, self.base), *zip(self.weights, self.stages, strict=True)

    def settled(self) -> Density:
        """The density with its stages in one ``EnergyStack`` if they have the same shape: a copy,
        which does not follow later changes.
        """
        return Total((1.0, self.base.settled()), *stacked(self.stages, self.weights))

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws (num, dim): ``sampler`` runs on one stage after another, starting where it ended
        on the last.
        """
        z = self.base.sample(num, generator=generator)
        for k in range(len(self.stages)):
            z = self.sampler.sample(self.prefix(k + 1), z, generator=generator)
        return z
