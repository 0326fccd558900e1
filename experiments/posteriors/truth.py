"""Exact posteriors: by quadrature in two dimensions, by long NUTS in a few more."""

import torch
from torch import Tensor

from latent_ebm.data import Pinwheel
from latent_ebm.likelihoods import GaussianLikelihood
from latent_ebm.model import LatentModel
from latent_ebm.networks import MLP
from latent_ebm.posteriors import AmortizedPosterior, Posterior
from latent_ebm.priors import GaussianPrior, Prior

BLOCK = 5  # cells of the grid along a side of a coarse cell


class PinwheelPrior(Prior):
    """The true prior of the pinwheel."""

    def __init__(self) -> None:
        super().__init__()
        self.truth, self.base = Pinwheel(), GaussianPrior(2)

    def log_density(self, z: Tensor) -> Tensor:
        return self.truth.prior_log_prob(z)

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        return self.truth.sample_prior(num, generator=generator)


def pinwheel_model() -> LatentModel:
    """The model that draws the data of the pinwheel."""
    prior = PinwheelPrior()
    return LatentModel(prior, GaussianLikelihood(prior.truth.decoder, prior.truth.noise))


def small_model(seed: int, dim: int = 6, width: int = 32, event: int = 12) -> LatentModel:
    """A frozen random decoder of ``dim`` latents under a Gaussian prior."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [torch.nn.Linear(a, b) for a, b in ((dim, width), (width, width), (width, event))]
        for layer in layers:
            torch.nn.init.normal_(layer.weight, std=1.5 * layer.in_features**-0.5)
        decoder = torch.nn.Sequential(
            layers[0], torch.nn.Tanh(), layers[1], torch.nn.Tanh(), layers[2]
        )
    model = LatentModel(GaussianPrior(dim), GaussianLikelihood(decoder, 0.5))
    return model.requires_grad_(False)


class Wide(GaussianPrior):
    """N(0, 2^2 I) as the proposal of latents that an encoder learns from."""

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        return 2 * super().sample(num, generator=generator)


class GridPosterior(Posterior):
    """Exact draws of a posterior of two latents under a Gaussian likelihood: a cell of a grid by
    its mass, and a uniform point in the cell.

    Args:
        bound: Half the side of the square that the grid covers.
        num: Cells along a side.
    """

    points: Tensor

    def __init__(self, bound: float = 5.0, num: int = 160) -> None:
        super().__init__()
        self.bound, self.num, self.width = bound, num, 2 * bound / num
        ticks = (torch.arange(num) + 0.5) * self.width - bound
        self.register_buffer("points", torch.cartesian_prod(ticks, ticks))

    @torch.no_grad()
    def masses(self, model: LatentModel, x: Tensor) -> Tensor:
        """The mass (batch, cells) of every cell given x (batch, event)."""
        if not isinstance(model.likelihood, GaussianLikelihood):
            raise ValueError(f"model must have a GaussianLikelihood, got {model.likelihood}")
        mean, precision = model.decode(self.points), model.likelihood.scale**-2
        log_prior = model.prior(self.points) - mean.square().sum(1) * precision / 2
        return torch.addmm(log_prior[None], x, mean.mT, alpha=precision).softmax(1)

    def sample(
        self,
        model: LatentModel,
        x: Tensor,
        *,
        index: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        blocks = (self.masses(model, rows) for rows in x.split(250))
        cell = torch.cat([torch.multinomial(p, 1, generator=generator)[:, 0] for p in blocks])
        inside = torch.rand(len(x), 2, generator=generator) - 0.5
        return self.points[cell] + inside * self.width

    def coarse(self, masses: Tensor) -> Tensor:
        """Masses (batch, cells) of blocks of cells."""
        side = self.num // BLOCK
        return masses.view(-1, side, BLOCK, side, BLOCK).sum((2, 4)).flatten(1)

    def shares(self, z: Tensor) -> Tensor:
        """How often draws z (draws, batch, 2) fall into each block of cells (batch, blocks)."""
        side = self.num // BLOCK
        row, column = ((z + self.bound) / (BLOCK * self.width)).long().clamp(0, side - 1).unbind(2)
        found = torch.nn.functional.one_hot(row * side + column, side**2)
        return found.sum(0) / len(z)


def fit_encoder(model: LatentModel, seed: int, num_steps: int = 1000) -> torch.nn.Module:
    """An encoder x -> mean, log std that fits draws (z, x) of the ``model`` by maximum
    likelihood.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        z = model.prior.sample(200 * num_steps)
        with torch.no_grad():
            x = model.likelihood(z).sample()
        encoder = MLP(x.shape[1], 2 * z.shape[1], (64, 64))
        optimizer = torch.optim.Adam(encoder.parameters(), 3e-3)
        for z_batch, x_batch in zip(z.split(200), x.split(200), strict=True):
            loss = -AmortizedPosterior(encoder)(x_batch).log_prob(z_batch).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return encoder.requires_grad_(False)


def nuts(model: LatentModel, x: Tensor, num: int, seed: int) -> Tensor:
    """Draws (num, dim) of the posterior of one datum x (1, event) by the No-U-Turn sampler of
    pyro, after num / 2 steps of warm-up.
    """
    import pyro
    from pyro.infer import MCMC, NUTS

    pyro.set_rng_seed(seed)
    kernel = NUTS(potential_fn=lambda named: -model.log_joint(x, named["z"][None])[0])
    start = {"z": model.prior.sample(1)[0]}
    chain = MCMC(kernel, num, num // 2, initial_params=start, disable_progbar=True)
    chain.run()
    return chain.get_samples()["z"]
