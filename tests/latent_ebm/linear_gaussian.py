"""A latent model of which everything is known: linear decoder, linear energy, hence Gaussians
throughout.
"""

import math

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from latent_ebm import EnergyPrior, GaussianLikelihood, GaussianPrior, LatentModel
from latent_ebm.networks import EnergyMLP
from samplers import MALA

WEIGHT = ((1.0, 0.3), (-0.5, 0.8), (0.2, -0.6))
BIAS = (0.5, -1.0, 0.2)
TILT = (0.7, -0.4)
CONSTANT = 0.3
SCALE = 0.6


class LinearGaussian(LatentModel):
    """``E(z) = t z + c`` gives ``p(z) = N(-t, I)``, ``log Z = |t|^2 / 2 - c``; ``p(x|z) = N(W z +
    b, s^2 I)``.
    """

    def __init__(self) -> None:
        energy, decoder = EnergyMLP(2, ()), nn.Linear(2, 3)
        super().__init__(
            EnergyPrior(energy, GaussianPrior(2), MALA(0.3, 10)),
            GaussianLikelihood(decoder, SCALE, learn_scale=True),
        )
        self.double()
        self.energy, self.decoder = energy.layers[-1], decoder
        values = {self.energy: ((TILT,), (CONSTANT,)), decoder: (WEIGHT, BIAS)}
        for layer, (weight, bias) in values.items():
            layer.weight.data, layer.bias.data = (
                torch.tensor(weight).double(),
                torch.tensor(bias).double(),
            )
        self.likelihood.log_scale.data.fill_(math.log(SCALE))

    @property
    def prior_mean(self) -> Tensor:
        return -self.energy.weight[0]

    @property
    def log_z(self) -> Tensor:
        return self.energy.weight.square().sum() / 2 - self.energy.bias[0]

    def marginal(self) -> MultivariateNormal:
        """``p(x)``, differentiable in all parameters."""
        noise = (2 * self.likelihood.log_scale).exp() * torch.eye(3, dtype=torch.float64)
        return MultivariateNormal(
            self.decoder(self.prior_mean), self.decoder.weight @ self.decoder.weight.mT + noise
        )

    def posterior(self, x: Tensor) -> MultivariateNormal:
        """``p(z|x)`` for x (batch, 3)."""
        weight, precision = self.decoder.weight, (-2 * self.likelihood.log_scale).exp()
        total = torch.eye(2, dtype=torch.float64) + precision * weight.mT @ weight
        pull = precision * (x - self.decoder.bias) @ weight + self.prior_mean
        return MultivariateNormal(pull @ torch.linalg.inv(total), precision_matrix=total)


def largest_z_score(draws: Tensor, exact: MultivariateNormal) -> float:
    """Largest deviation of the first and second moments of independent ``draws`` (n, d), in
    standard errors.
    """
    white = torch.linalg.solve_triangular(
        exact.scale_tril.detach(), (draws - exact.mean.detach()).mT, upper=False
    ).mT
    eye = torch.eye(white.shape[1], dtype=white.dtype)
    product = torch.einsum("ni,nj->nij", white, white).flatten(1)
    spread = (1 + eye.flatten()).sqrt()  # of products of standard normal numbers
    first = white.mean(0) * math.sqrt(len(white))
    second = (product.mean(0) - eye.flatten()) / spread * math.sqrt(len(white))
    return torch.cat([first, second]).abs().max().item()
