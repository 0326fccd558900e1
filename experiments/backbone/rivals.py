"""Priors of other kinds for the latents of an autoencoder: diffusion, a flow, a mixture."""

from functools import partial
from typing import Any, cast

import torch
from pyro.distributions.transforms import Permute, spline_coupling
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.distributions import Independent, Normal, TransformedDistribution

from latent_ebm.autoencoders import LatentSpace
from latent_ebm.conditions import BatchLike, Condition
from latent_ebm.denoisers import Preconditioned
from latent_ebm.learning import Denoising
from latent_ebm.learning.base import LearningRule
from latent_ebm.networks import DenoiserMLP
from samplers import DDIM, VPCosine

HIDDEN, LR = (512, 512, 512), 1e-3  # of networks; learning rate
COUPLINGS, BINS, BOUND = 6, 8, 6.0  # of the flow; its splines are the identity beyond the bound
COMPONENTS = 100  # of the mixture


def diffusion(latents: LatentSpace, dim: int) -> Denoising:
    """Diffusion in the space of ``latents`` (arXiv:2106.05931)."""
    schedule = VPCosine(log_snr_min=-9.0, log_snr_max=9.0)
    denoiser = Preconditioned(DenoiserMLP(dim, HIDDEN), schedule, "edm", data_scale=1.0)
    return Denoising(
        denoiser,
        DDIM(schedule, num_steps=50),
        (dim,),
        partial(torch.optim.Adam, lr=LR),
        log_snr=(0.5, 3.0),
        latents=latents,
    )


class Flow(LearningRule):
    """Rational-quadratic spline couplings (Durkan et al. 2019, arXiv:1906.04032) by maximum
    likelihood, on the latents (n, dim) of the rows.
    """

    def __init__(self, latents: LatentSpace | None, dim: int) -> None:
        super().__init__(partial(torch.optim.Adam, lr=LR), latents=latents)
        couplings = [
            spline_coupling(dim, hidden_dims=HIDDEN[:2], count_bins=BINS, bound=BOUND)
            for _ in range(COUPLINGS)
        ]
        self.couplings = nn.ModuleList(couplings)
        self.orders = [torch.randperm(dim) for _ in couplings]
        self.dim = dim

    @property
    def distribution(self) -> TransformedDistribution:
        """The distribution of latents."""
        base = Independent(Normal(torch.zeros(self.dim), torch.ones(self.dim)), 1)
        steps: Any = zip(self.couplings, map(Permute, self.orders), strict=True)
        return TransformedDistribution(base, [part for step in steps for part in step])

    def log_density(self, z: Tensor) -> Tensor:
        """Log-density (n,) of latents (n, dim)."""
        return self.distribution.log_prob(z)

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        return {"flow": -self.log_density(self.unpack(batch).x).mean()}

    @torch.no_grad()
    def generate(
        self,
        num: int,
        condition: Condition | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        z = torch.randn(num, self.dim, generator=generator)
        for transform in self.distribution.transforms:
            z = cast("Tensor", transform(z))
        return self.decoded(z)


def mixture(z: Tensor, seed: int) -> GaussianMixture:
    """A mixture of Gaussians fitted to latents (n, dim)."""
    return GaussianMixture(COMPONENTS, max_iter=200, random_state=seed).fit(z.double().numpy())
