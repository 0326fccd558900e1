r"""Networks of generative adversarial networks, made of networks that know nothing of them."""

import torch
from torch import Tensor, nn


class WithLatent(nn.Module):
    """Generator ``(x, t, z) -> x_0`` (batch, C, \\*rest) of x (batch, C, \\*rest), t (batch,) and z (batch, D, \\*rest).

    ``network`` maps events of C + D channels and t to events like them, of which the first C are kept: ``UNet`` or
    ``DenoiserMLP`` of the shape (C + D, \\*rest).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        return self.network(torch.cat([x, z], 1), t)[:, : x.shape[1]]


class Critic(nn.Module):
    """Logit (batch,) of x (batch, C, \\*rest) at t (batch,), next to the noisier ``x_k`` like x that it came from.

    ``network`` maps events of 2 C + 1 channels, or of C + 1 if the critic is not ``paired`` and passes over ``x_k``, to one
    number (batch, 1); the last channel holds t.
    """

    def __init__(self, network: nn.Module, paired: bool = True) -> None:
        super().__init__()
        self.network, self.paired = network, paired

    def forward(self, x: Tensor, t: Tensor, x_k: Tensor | None = None) -> Tensor:
        level = t.view(-1, *[1] * (x.ndim - 1)).expand_as(x[:, :1])
        if self.paired and x_k is None:
            raise ValueError("x_k must be given to a paired critic, got None")
        parts = [x, x_k, level] if self.paired else [x, level]
        return self.network(torch.cat([part for part in parts if part is not None], 1)).squeeze(1)
