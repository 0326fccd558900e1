r"""The latent model inside ``LatentEBMDetector``: one or two *views* of a row of a table, or two
views of an image, whose energies add up.

A view has *features* x of rows; *codes* z, the principal components of the features, which a
linear decoder maps back; and a prior of kernels at the codes of training rows. Its joint energy is
``-log p(x|z) - log p(z)``. ``fitting`` says how views are learned.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latent_ebm.artefacts import Artefact
from latent_ebm.kernels import KernelPrior, NeighbourPrior
from latent_ebm.likelihoods import GaussianLikelihood
from latent_ebm.model import LatentModel
from latent_ebm.networks import MLP, PlacedEncoder
from latent_ebm.posteriors import AmortizedPosterior
from latent_ebm.priors import RatioPrior
from samplers import MALA

HIDDEN = (64, 64)  # of a ratio stage
NUM_NEIGHBOURS = 20  # nearest kernels that count for an image, as in LOF
KernelsPrior = RatioPrior | NeighbourPrior
BLOCK = 128  # rows that are scored together
TERMS = {  # of the energies of a row at its code
    "joint": ("reconstruction", "prior"),
    "reconstruction": ("reconstruction",),
    "prior": ("prior",),
}
FRAME = 32  # largest side, in pixels, that the encoder sees: it was tuned on images of 28


class View(Artefact):
    """One view of rows: their ``features``, the ``posterior`` whose mean is the code, the
    ``likelihood`` of features given a code, and the ``prior`` of codes.
    """

    prior: KernelsPrior

    def __init__(
        self,
        features: nn.Module,
        posterior: AmortizedPosterior,
        likelihood: GaussianLikelihood,
        prior: KernelsPrior,
    ) -> None:
        super().__init__()
        self.features, self.posterior = features, posterior
        self.likelihood, self.prior = likelihood, prior

    @property
    def kernels(self) -> KernelPrior | NeighbourPrior:
        """The prior without its stages."""
        if isinstance(self.prior, NeighbourPrior):
            return self.prior
        base = self.prior.base
        if not isinstance(base, KernelPrior):
            raise ValueError(f"prior must have a KernelPrior as base, got {type(base).__name__}")
        return base

    def encode(self, x: Tensor) -> Tensor:
        """Codes (n, latent_dim) of rows x (n, \\*event)."""
        return self.posterior(self.features(x)).mean

    def energy(self, x: Tensor, terms: Collection[str]) -> Tensor:
        """Sum (n,) of the ``terms`` of the energy, "reconstruction" or "prior", of x (n,
        \\*event) at its codes.
        """
        x = self.features(x)
        z = self.posterior(x).mean
        energies = {
            "reconstruction": lambda: -self.likelihood(z).log_prob(x),
            "prior": lambda: -self.prior(z),
        }
        return torch.stack([energies[term]() for term in terms]).sum(0)

    def negative_elbo(self, x: Tensor, noise: Tensor) -> Tensor:
        """``E_q[log q(z|x) - log p(x, z)]`` (n,), estimated with the same ``noise`` (k, max_dim)
        for every row.
        """
        x = self.features(x)
        q, model = self.posterior(x), LatentModel(self.prior, self.likelihood)
        draws = [q.mean + q.stddev * eps for eps in noise[:, : q.mean.shape[1]]]
        return torch.stack([q.log_prob(z) - model.log_joint(x, z) for z in draws]).mean(0)

    def own_part(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """How much the own kernel of each of rows x (n, \\*event), the first that carry one, adds
        to the log-density (n,) at its code, or on average over the draws of ``negative_elbo``.
        """
        z = self.kernels.base.exemplars[: len(x)]
        draws = [z]
        if noise is not None:
            stddev = in_blocks(lambda part: self.posterior(self.features(part)).stddev, x)
            draws = [z + stddev * eps for eps in noise[:, : z.shape[1]]]
        return torch.stack([self._own_part_at(z) for z in draws]).mean(0)

    def _own_part_at(self, z: Tensor) -> Tensor:
        blocks = [(i, min(i + BLOCK, len(z))) for i in range(0, len(z), BLOCK)]
        return torch.cat([self.kernels.own_part(i, end, z[i:end]) for i, end in blocks])


class Components(Artefact):
    """Principal components of images and the norm of the rest: (n, \\*event) -> (n, num + 1)."""

    mean: Tensor
    axes: Tensor

    def __init__(self, num_pixels: int, num: int) -> None:
        super().__init__()
        self.num_pixels, self.num = num_pixels, num
        self.register_buffer("mean", torch.zeros(num_pixels))
        self.register_buffer("axes", torch.zeros(num, num_pixels))

    def forward(self, x: Tensor) -> Tensor:
        u = x.flatten(1) - self.mean
        components = u @ self.axes.mT
        rest = torch.linalg.vector_norm(u - components @ self.axes, dim=1, keepdim=True)
        return torch.cat([components, rest], 1)


def linear(features: nn.Module, num: int, dim: int, prior: KernelsPrior) -> View:
    """A view with a linear encoder and decoder, not yet fitted, between ``num`` features and codes
    of ``dim`` entries.
    """
    posterior = AmortizedPosterior(MLP(num, 2 * dim, ()))
    return View(features, posterior, GaussianLikelihood(MLP(dim, num, ()), 1.0), prior)


def image_features(
    image_shape: Sequence[int], num: int, channels: int
) -> tuple[Components, nn.Sequential]:
    """The features of the two views of an image, not yet fitted.

    The first view has ``num`` principal components of the pixels and the norm of the rest. The
    second has ``num`` features of an encoder; it sees averages over pixels where an image has more
    than ``FRAME`` of them per side.
    """
    in_channels, height, width = image_shape
    frame = nn.AdaptiveAvgPool2d((min(height, FRAME), min(width, FRAME)))  # leaves smaller ones
    encoder = nn.Sequential(frame, PlacedEncoder(in_channels, num, channels))
    return Components(math.prod(image_shape), num), encoder


def ratio_prior(kernels: KernelPrior) -> RatioPrior:
    """Kernels without stages, and their chains."""
    return RatioPrior(kernels, [], chains(kernels))


def neighbour_prior(kernels: KernelPrior, log_heights: Tensor) -> NeighbourPrior:
    """Kernels of which only the nearest count, and their chains."""
    return NeighbourPrior(
        kernels, log_heights, min(NUM_NEIGHBOURS, len(log_heights) - 1), chains(kernels)
    )


def chains(kernels: KernelPrior) -> MALA:
    """Chains that move within a kernel's width."""
    return MALA(0.02 * typical_width(kernels) ** 2, 20)


def typical_width(kernels: KernelPrior) -> float:
    """The geometric mean of the bandwidths."""
    return float(kernels.bandwidth.log().mean().exp())


def energy(views: Iterable[View], x: Tensor, terms: Collection[str]) -> Tensor:
    """Sum (n,) of the ``terms`` of the energy over ``views`` of x (n, \\*event)."""
    return torch.stack(
        [in_blocks(lambda part, view=view: view.energy(part, terms), x) for view in views]
    ).sum(0)


def negative_elbo(views: Iterable[View], x: Tensor, noise: Tensor) -> Tensor:
    """Sum (n,) over ``views`` of x (n, \\*event), with ``noise`` (k, max_dim)."""
    return torch.stack(
        [in_blocks(lambda part, view=view: view.negative_elbo(part, noise), x) for view in views]
    ).sum(0)


def in_blocks(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function`` of rows x (n, \\*event), evaluated on blocks of one size; copies of the last
    row fill the last block.

    So the result of a row does not depend on the number of rows, not even in its last bit.
    """
    out = []
    for part in x.split(BLOCK):
        missing = BLOCK - len(part)
        full = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part
        out.append(function(full)[: len(part)])
    return torch.cat(out)


def rounded(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """``x`` rounded to 24 significant bits, at any magnitude."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(mantissa * 2.0**24) / 2.0**24, exponent)
