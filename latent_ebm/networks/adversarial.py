r"""Networks of diffusion GANs, built from networks that take neither a time nor a latent."""

import math

import torch
from torch import Tensor, nn

from latent_ebm.artefacts import Artefact
from samplers.checks import check_counts, check_numbers


def join(*channels: Tensor | None, t: Tensor) -> Tensor:
    """Concatenate events (batch, \\_, \\*rest) along their channels, and add the times (batch,) as
    the last channel.
    """
    parts = [part for part in channels if part is not None]
    level = t.to(parts[0].dtype).view(-1, *[1] * (parts[0].ndim - 1))
    return torch.cat([*parts, level.expand_as(parts[0][:, :1])], 1)


class WithTime(Artefact):
    """``(x, t) -> network([x, t])``: x (batch, C, \\*rest), and t (batch,) as one more channel.
    Conditions are passed on as keywords.

    A network of C + 1 channels can thus serve as the network of a denoiser.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.network(join(x, t=t), **condition)


class WithLatent(Artefact):
    """Generator ``(x, t, z) -> x_0`` (batch, C, \\*rest) of x (batch, C, \\*rest), t (batch,) and
    z (batch, D, \\*rest).

    ``network`` maps events of C + D channels and t to events; the first C channels of its output
    are kept. It can be a ``UNet`` or ``DenoiserMLP`` of the shape (C + D, \\*rest), or
    ``WithTime`` of another network. Conditions are passed on as keywords.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, z: Tensor, **condition: Tensor) -> Tensor:
        return self.network(torch.cat([x, z], 1), t, **condition)[:, : x.shape[1]]


class Critic(Artefact):
    """Logit (batch,) of x (batch, C, \\*rest) at t (batch,), next to the noisier ``x_k`` like x
    that it came from.

    ``network`` maps events of 2 C + 1 channels to one entry per row (batch, 1); the last channel
    holds t. A critic that is not ``paired`` ignores ``x_k``: its network maps C + 1 channels.
    Conditions are passed on as keywords.
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

    The frequencies ``w_k = lowest 2^k`` for k < ``num`` apply to every entry, so the network takes
    ``(1 + 2 num) dim`` entries. Source: Tancik et al. 2020, arXiv:2006.10739.

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
