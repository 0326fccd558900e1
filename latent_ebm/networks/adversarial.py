r"""Networks of diffusion GANs, made of networks that know neither of time nor of a latent."""

import math

import torch
from torch import Tensor, nn

from latent_ebm.artefacts import Artefact
from samplers.checks import check_counts, check_numbers


def join(*channels: Tensor | None, t: Tensor) -> Tensor:
    """The given events (batch, \\_, \\*rest) along their channels, and the times (batch,) as a
    last channel.
    """
    parts = [part for part in channels if part is not None]
    level = t.to(parts[0].dtype).view(-1, *[1] * (parts[0].ndim - 1))
    return torch.cat([*parts, level.expand_as(parts[0][:, :1])], 1)


class WithTime(Artefact):
    """``(x, t) -> network([x, t])``: x (batch, C, \\*rest) and t (batch,), which becomes a channel
    of its own. Conditions are handed on as keywords.

    So a network of C + 1 channels can serve as the network of a denoiser.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.network(join(x, t=t), **condition)


class WithLatent(Artefact):
    """Generator ``(x, t, z) -> x_0`` (batch, C, \\*rest) of x (batch, C, \\*rest), t (batch,) and
    z (batch, D, \\*rest).

    ``network`` maps events of C + D channels and t to events, of which the first C channels are
    kept: a ``UNet`` or ``DenoiserMLP`` of the shape (C + D, \\*rest), or ``WithTime`` of another
    network. Conditions are handed on as keywords.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, z: Tensor, **condition: Tensor) -> Tensor:
        return self.network(torch.cat([x, z], 1), t, **condition)[:, : x.shape[1]]


class Critic(Artefact):
    """Logit (batch,) of x (batch, C, \\*rest) at t (batch,), next to the noisier ``x_k`` like x
    that it came from.

    ``network`` maps events of 2 C + 1 channels to one number (batch, 1); the last channel holds t.
    A critic that is not ``paired`` does not look at ``x_k``: its network maps C + 1 channels.
    Conditions are handed on as keywords.
    """

    def __init__(self, network: nn.Module, paired: bool = True) -> None:
        super().__init__()
        self.network, self.paired = network, paired

    def forward(
        self, x: Tensor, t: Tensor, x_k: Tensor | None = None, **condition: Tensor
    ) -> Tensor:
        if self.paired and x_k is None:
            raise ValueError("x_k must be given to a paired critic, got None")
        return self.network(join(x, x_k if self.paired else None, t=t), **condition).squeeze(1)


class Fourier(Artefact):
    """``network([x, sin(w_k x), cos(w_k x)])`` of x (batch, dim), so that a small perceptron can
    be sharp.

    ``w_k = lowest 2^k`` for k < ``num``, entry by entry, so that the network takes ``(1 + 2 num)
    dim`` entries. Source: Tancik et al. 2020, arXiv:2006.10739.

    Args:
        network: Maps the features (batch, (1 + 2 num) dim).
        num: The number of frequencies.
        lowest: The lowest frequency.

    Raises:
        ValueError: For a ``lowest`` that is not positive.
    """

    frequencies: Tensor

    def __init__(self, network: nn.Module, num: int = 3, lowest: float = math.pi / 2) -> None:
        super().__init__()
        check_counts(self, num=num)
        check_numbers(self, "positive", lowest=lowest)
        self.network, self.num, self.lowest = network, num, lowest
        self.register_buffer("frequencies", lowest * 2.0 ** torch.arange(num))

    def forward(self, x: Tensor) -> Tensor:
        angles = (x[:, :, None] * self.frequencies).flatten(1)
        return self.network(torch.cat([x, angles.sin(), angles.cos()], 1))
