r"""Priors ``p(z)`` of a latent model.

An *energy prior* is a base density tilted by a network, ``p(z) ~ p_0(z) exp(-E(z))``; a *ratio prior* is a base density
times learned density ratios, ``p_K(z) ~ p_0(z) prod_k r_k(z)``, ``r_k = exp(f_k)``. Both are sums inside one log-density,
so a prior *is* a log-density: samplers take it as it is, and find its closed-form gradient where its networks offer one.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from latent_ebm.networks.mlp import EnergyMLP, EnergyStack, are_alike
from samplers import Sampler, gradient, log_z_bracket, value_and_grad
from samplers.gradient_flow import score_and_laplacian


class Prior(nn.Module, ABC):
    """A log-density over latents ``z`` (batch, dim) that can be sampled. ``base`` is the normalised density it tilts."""

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

    def stacked(self) -> "Prior":
        """The same density in a form that is faster to sample from, if there is one: a copy, which later changes miss."""
        return self

    def log_z_bracket(
        self, num: int, sampler: Sampler, num_rungs: int, *, generator: torch.Generator | None = None
    ) -> tuple[float, float]:
        """Stochastic bounds ``(lower, upper)`` of ``log Z = log int exp(log_density)`` by annealed importance sampling.

        ``num`` chains run from the base to this prior and, from ``sample(num)``, back again over ``num_rungs`` rungs;
        ``sampler`` must leave its target invariant (MALA, HMC). Source: Grosse et al. 2015, arXiv:1511.02543.
        """
        ends = self.base.sample(num, generator=generator), self.sample(num, generator=generator)
        return log_z_bracket(self.base, self, *ends, sampler, num_rungs, generator=generator)


class GaussianPrior(Prior):
    """Standard normal ``N(0, I)`` in ``dim`` dimensions, normalised. Raises ``ValueError`` for ``dim < 1``."""

    loc: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be >= 1, got {dim}")
        self.register_buffer("loc", torch.zeros(dim))
        self.log_norm = 0.5 * dim * math.log(2 * math.pi)

    @property
    def base(self) -> "Prior":  # pyright: ignore[reportIncompatibleVariableOverride]
        return self

    def log_density(self, z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(-1) - self.log_norm

    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Closed form for samplers."""
        return self.log_density(z.detach()), -z.detach()

    def gradient(self, z: Tensor) -> Tensor:
        """Closed form for samplers."""
        return -z

    def grad_and_laplacian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Closed form for flows."""
        return -z.detach(), z.new_full((len(z),), -z.shape[1])

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        return self.loc.new_empty(num, len(self.loc)).normal_(generator=generator)


class KernelPrior(Prior):
    """``p(z) = mean_i N(z; z_i, h^2 I)``: a kernel at every one of ``exemplars`` z_i (n, dim), normalised.

    A base that already lies where latents of data lie, as in the exemplar VAE (Norouzi et al. 2020, arXiv:2004.04795).
    ``bandwidth`` is h > 0; ``leave_one_out_bandwidth`` finds the one of greatest likelihood. Raises ``ValueError`` for
    exemplars of another shape, or a bandwidth that is not positive.
    """

    exemplars: Tensor
    bandwidth: Tensor

    def __init__(self, exemplars: Tensor, bandwidth: float) -> None:
        super().__init__()
        if exemplars.ndim != 2 or len(exemplars) == 0:
            raise ValueError(f"exemplars must have shape (n >= 1, dim), got {tuple(exemplars.shape)}")
        if not (math.isfinite(bandwidth) and bandwidth > 0):
            raise ValueError(f"bandwidth must be positive, got {bandwidth}")
        self.register_buffer("exemplars", exemplars.detach().clone())
        self.register_buffer("bandwidth", exemplars.new_tensor(bandwidth))

    @property
    def base(self) -> "Prior":  # pyright: ignore[reportIncompatibleVariableOverride]
        return self

    def log_density(self, z: Tensor) -> Tensor:
        return self.log_kernels(z).logsumexp(1) - self.log_norm()

    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Closed form for samplers: the gradient is ``(sum_i p(i|z) z_i - z) / h^2``."""
        with torch.no_grad():
            terms = self.log_kernels(z)
            grad = (terms.softmax(1) @ self.exemplars - z) / self.bandwidth**2
        return terms.logsumexp(1) - self.log_norm(), grad

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        like = self.exemplars
        i = torch.randint(len(like), (num,), generator=generator, device=like.device)
        return like[i] + self.bandwidth * like.new_empty(num, like.shape[1]).normal_(generator=generator)

    def log_kernels(self, z: Tensor) -> Tensor:
        """``-|z - z_i|^2 / (2 h^2)`` (batch, n), from one product of centred rows in units of h."""
        centre = self.exemplars.mean(0)
        u, v = (z - centre) / self.bandwidth, (self.exemplars - centre) / self.bandwidth
        return torch.addmm(-0.5 * v.square().sum(1), u, v.mT) - 0.5 * u.square().sum(1, keepdim=True)

    def log_norm(self) -> Tensor:
        """``log n + log h^dim (2 pi)^(dim/2)``, by which the sum of kernels is divided."""
        num, dim = self.exemplars.shape
        return math.log(num) + dim * (self.bandwidth.log() + 0.5 * math.log(2 * math.pi))


def square_distances(a: Tensor, b: Tensor) -> Tensor:
    """``|a_i - b_j|^2`` (n, m) of rows a (n, dim) and b (m, dim), from products of centred rows."""
    centre = b.mean(0)
    a, b = a - centre, b - centre
    return (a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.mT).clamp(min=0)


def leave_one_out_bandwidth(exemplars: Tensor, max_rows: int = 2000) -> float:
    """The ``h`` that maximises the likelihood of each of ``exemplars`` (n, dim) under the kernels at the others.

    Copies of a row count once, as a row would else be explained by its copy at any h; rows that differ by no more than
    distances are rounded are copies. The likelihood is that of ``max_rows`` random rows. Raises ``ValueError`` unless two
    rows differ.
    """
    from scipy.optimize import minimize_scalar

    centred = exemplars - exemplars.mean(0)
    resolution = (math.sqrt(torch.finfo(exemplars.dtype).eps) * centred.abs().max()).clamp(
        min=torch.finfo(exemplars.dtype).tiny
    )
    rows = (centred / resolution).round().unique(dim=0) * resolution
    if len(rows) < 2:
        raise ValueError("exemplars must hold two different rows, got one")
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    square = square_distances(rows[:max_rows], rows).fill_diagonal_(math.inf)
    nearest = square.min(1).values.median().clamp(min=torch.finfo(rows.dtype).tiny)

    def loss(log_scale: float) -> float:
        variance = nearest * math.exp(2 * log_scale)
        return float(rows.shape[1] / 2 * variance.log() - (-square / (2 * variance)).logsumexp(1).mean())

    widest = 1 + 0.5 * math.log(float(rows.var(0).sum() / nearest))  # in few dimensions, many neighbours share a kernel
    return float(nearest.sqrt()) * math.exp(minimize_scalar(loss, bounds=(-5, max(widest, 1)), method="bounded").x)


class EnergyPrior(Prior):
    """``p(z) = p_0(z) exp(-E(z)) / Z`` (Pang et al. 2020, arXiv:2006.08205), ``E = network``.

    ``network`` maps z (batch, dim) to energies (batch,), low where latents of data lie; ``base`` is a normalised prior;
    ``sampler`` draws from the product, started at the base.
    """

    def __init__(self, network: nn.Module, base: Prior, sampler: Sampler) -> None:
        super().__init__()
        self.network, self.base, self.sampler = network, base, sampler

    def log_density(self, z: Tensor) -> Tensor:
        return self.base.log_density(z) - self.network(z)

    def tilt(self, z: Tensor) -> Tensor:
        return -self.network(z)

    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the gradients of the base and of ``-E``, each in closed form where it is known."""
        base, base_grad = value_and_grad(self.base, z)
        energy, energy_grad = value_and_grad(self.network, z)
        return base - energy, base_grad - energy_grad

    def gradient(self, z: Tensor) -> Tensor:
        """As of ``value_and_grad``."""
        return gradient(self.base, z) - gradient(self.network, z)

    @torch.no_grad()
    def grad_and_laplacian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient (batch, dim) and Laplacian (batch,) of the log-density, each part in closed form where it is known."""
        base_grad, base = score_and_laplacian(self.base, z)
        grad, laplacian = score_and_laplacian(self.network, z)
        return base_grad - grad, base - laplacian

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws (num, dim) by ``sampler``, cold-started at the base."""
        return self.sampler.sample(self, self.base.sample(num, generator=generator), generator=generator)


class RatioPrior(Prior):
    """``p_K(z) = p_0(z) prod_k exp(w_k f_k(z)) / Z_K`` (Xiao & Han 2022, arXiv:2209.08739), ``f_k = stages[k]``.

    Each stage maps z (batch, dim) to a logit (batch,), an estimated log-ratio of its stage's posterior to ``p_k``.
    ``weights`` w_k (K,) are 1 for a full ratio, and ``log_z_steps`` (K,) hold ``log Z_{k+1} - log Z_k``, 0 until
    estimated. ``sampler`` runs at every stage in turn, warm-started: the product is its own annealing path.
    """

    weights: Tensor
    log_z_steps: Tensor

    def __init__(self, base: Prior, stages: Iterable[nn.Module], sampler: Sampler) -> None:
        super().__init__()
        self.base, self.sampler, self.stages = base, sampler, nn.ModuleList(stages)
        self.register_buffer("weights", torch.ones(len(self.stages)))
        self.register_buffer("log_z_steps", torch.zeros(len(self.stages)))

    @property
    def log_z(self) -> Tensor:
        """Telescoped estimate of ``log Z_K``, the log-integral of ``exp(log_density)``."""
        return self.log_z_steps.sum()

    def append(self, stage: nn.Module, weight: float = 1.0, log_z_step: float = 0.0) -> None:
        """Add a frozen stage to the product."""
        self.stages.append(stage.requires_grad_(False))
        self.weights = torch.cat([self.weights, self.weights.new_tensor([weight])])
        self.log_z_steps = torch.cat([self.log_z_steps, self.log_z_steps.new_tensor([log_z_step])])

    def prefix(self, num_stages: int) -> "RatioPrior":
        """The prior ``p_k`` of the first ``num_stages`` stages, sharing their networks."""
        prior = RatioPrior(self.base, self.stages[:num_stages], self.sampler)
        prior.weights, prior.log_z_steps = self.weights[:num_stages], self.log_z_steps[:num_stages]
        return prior

    def stacked(self) -> Prior:
        """All stages in one batch of products; the prior itself where stages differ in shape."""
        stages = cast(list[EnergyMLP], list(self.stages))
        return EnergyPrior(EnergyStack(stages, -self.weights), self.base, self.sampler) if are_alike(stages) else self

    def log_density(self, z: Tensor) -> Tensor:
        return self.base.log_density(z) + self.tilt(z)

    def tilt(self, z: Tensor) -> Tensor:
        logits = (weight * stage(z) for weight, stage in zip(self.weights, self.stages, strict=True))
        return sum(logits, z.new_zeros(z.shape[0]))  # len(z) would fix the number of rows of an exported network

    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the gradients of the base and of every stage, each in closed form where it is known."""
        value, grad = value_and_grad(self.base, z)
        for weight, stage in zip(self.weights, self.stages, strict=True):
            logit, logit_grad = value_and_grad(stage, z)
            value, grad = value + weight * logit, grad + weight * logit_grad
        return value, grad

    @torch.no_grad()
    def grad_and_laplacian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient (batch, dim) and Laplacian (batch,) of the log-density, each part in closed form where it is known."""
        grad, laplacian = score_and_laplacian(self.base, z)
        for weight, stage in zip(self.weights, self.stages, strict=True):
            stage_grad, stage_laplacian = score_and_laplacian(stage, z)
            grad, laplacian = grad + weight * stage_grad, laplacian + weight * stage_laplacian
        return grad, laplacian

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws (num, dim): ``sampler`` is run for stage after stage, each warm-started at the last."""
        z = self.base.sample(num, generator=generator)
        for k in range(len(self.stages)):
            z = self.sampler.sample(self.prefix(k + 1).stacked(), z, generator=generator)
        return z
