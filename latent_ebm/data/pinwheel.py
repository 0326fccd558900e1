r"""A latent-variable model with a known prior and decoder, to test learnt latent priors.

The latent lies on a pinwheel with two arms. Let ``u = (r, t)`` with ``r ~ N(1, .3^2)`` along an
arm and ``t ~ N(0, .1^2)`` across it, and ::

    z = 2 R(phi_k + .25 exp(|u|)) u,    phi_k = 0 or pi,

where ``R`` rotates. The angle depends only on the length of ``u``, which a rotation keeps. So
``|u| = |z| / 2``, and the rotation can be undone exactly. It moves every circle rigidly, so its
Jacobian determinant is one, and only the factor 2 changes areas::

    log p(z) = log mean_k N(u_k(z); (1, 0), diag(.3^2, .1^2)) - log 4,
    u_k(z) = R(-phi_k - .25 exp(|z| / 2)) z / 2.

The usual pinwheel turns by ``exp(r)`` and has no inverse in closed form. The difference
``|u| - r`` is about ``t^2 / 2r``, below a hundredth on average. The data are
``x = g(z) + .25 noise`` with a frozen random perceptron ``g`` of 2-128-128-128-2 units, ReLU,
weights N(0, .2^2) and biases N(0, .1^2). So every learnt prior can be compared with the true one.
"""

import math
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn

from latent_ebm.data.base import DataModule, Pair, make_generator
from samplers.checks import check_counts

NUM_ARMS = 2
RADIAL_SCALE, TANGENTIAL_SCALE, RATE, STRETCH = 0.3, 0.1, 0.25, 2.0
WIDTHS = (2, 128, 128, 128, 2)
WEIGHT_SCALE, BIAS_SCALE = 0.2, 0.1
SEED = 46


def rotate(u: Tensor, angle: Tensor) -> Tensor:
    """``u`` (..., 2) turned counterclockwise by ``angle`` (...)."""
    a, b = u.unbind(-1)
    return torch.stack([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


class PinwheelDecoder(nn.Sequential):
    """The frozen random perceptron ``(batch, 2) -> (batch, 2)`` of ``seed``.

    Most of these perceptrons fold the plane, and then data do not determine the prior. The first
    sixty that keep the orientation of 90 % of the draws were compared, and ``SEED`` is the one
    whose data tell most about their latents.
    """

    def __init__(self, seed: int = SEED) -> None:
        generator, layers = make_generator(seed), []
        for width_in, width_out in pairwise(WIDTHS):
            linear = nn.utils.skip_init(
                nn.Linear, width_in, width_out
            )  # draws nothing from the global generator
            for parameter, scale in zip(
                linear.parameters(), (WEIGHT_SCALE, BIAS_SCALE), strict=True
            ):
                nn.init.normal_(parameter, std=scale, generator=generator)
            layers += [linear, nn.ReLU()]
        super().__init__(*layers[:-1])
        self.requires_grad_(False)


class Pinwheel(DataModule):
    """``num_train`` rows x (2,), and a fifth of that each for validation and test; the label is
    the arm.

    ``seed`` draws the rows, and ``decoder_seed`` the decoder, which repetitions with other seeds
    share. ``decoder`` is the frozen network ``z -> E[x|z]`` and ``noise`` the standard deviation
    of ``x`` around it.
    """

    noise: float = 0.25

    def __init__(
        self,
        num_train: int = 10_000,
        batch_size: int = 100,
        seed: int = 0,
        decoder_seed: int = SEED,
    ) -> None:
        super().__init__(batch_size, seed)
        check_counts(self, num_train=num_train)
        self.num_train = num_train
        self.decoder = PinwheelDecoder(decoder_seed)

    def load(self) -> tuple[Pair, Pair, Pair]:
        num_held = max(1, self.num_train // 5)
        train, val, test = (
            self._draw_rows(num, make_generator(self.seed, stream))
            for stream, num in enumerate((self.num_train, num_held, num_held))
        )
        return train, val, test

    def sample_prior(self, num: int, *, generator: Generator | None = None) -> Tensor:
        """Exact draws of ``z`` (num, 2)."""
        return self._draw_prior(num, generator)[0]

    def prior_log_prob(self, z: Tensor) -> Tensor:
        """Exact normalised log-density (batch,) of ``z`` (batch, 2)."""
        u = z / STRETCH
        arms = torch.arange(NUM_ARMS, dtype=z.dtype, device=z.device) * (2 * math.pi / NUM_ARMS)
        turn = RATE * torch.linalg.vector_norm(u, dim=-1).exp()
        r, t = rotate(u.unsqueeze(-2), -arms - turn.unsqueeze(-1)).unbind(-1)
        exponent = -((r - 1) / RADIAL_SCALE).square() / 2 - (t / TANGENTIAL_SCALE).square() / 2
        volume = 2 * math.pi * RADIAL_SCALE * TANGENTIAL_SCALE * NUM_ARMS * STRETCH**2
        return exponent.logsumexp(-1) - math.log(volume)

    def _draw_prior(self, num: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        arm = torch.randint(NUM_ARMS, (num,), generator=generator)
        scale = torch.tensor([RADIAL_SCALE, TANGENTIAL_SCALE])
        u = torch.randn(num, 2, generator=generator) * scale + torch.tensor([1.0, 0.0])
        turn = RATE * torch.linalg.vector_norm(u, dim=-1).exp()
        return STRETCH * rotate(u, arm * (2 * math.pi / NUM_ARMS) + turn), arm

    def _draw_rows(self, num: int, generator: Generator) -> tuple[Tensor, Tensor]:
        z, arm = self._draw_prior(num, generator)
        mean = self.decoder(z)
        return mean + self.noise * torch.randn(mean.shape, generator=generator), arm
