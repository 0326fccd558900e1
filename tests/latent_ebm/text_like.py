"""A condition like a text: token ids become a sequence of vectors with a mask, and a denoiser
looks at them by cross attention. No part of the library knows of it.
"""

import torch
from torch import Tensor, nn

from latent_ebm.conditions import Condition, Conditioner
from latent_ebm.denoisers import Denoiser
from samplers.schedules import VPCosine

WORDS, LENGTH, DIM = 6, 4, 8
SCHEDULE = VPCosine(-10.0, 10.0)


def sentences(num: int) -> Condition:
    """Token ids (num, 4) of one to four words, 0 where there is none, as a data set carries
    them.
    """
    row = torch.arange(num)[:, None]
    ids = 1 + (row + torch.arange(LENGTH)) % (WORDS - 1)
    return Condition({"ids": ids.where(torch.arange(LENGTH) <= row % LENGTH, 0)})


class TokenVectors(Conditioner):
    """One vector for each of ``WORDS`` tokens, and the mask of those that are there; the first one
    always is. The empty sentence is the null.
    """

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Embedding(WORDS, DIM)

    def encode(self, ids: Tensor) -> dict[str, Tensor]:
        mask = (ids > 0) | (torch.arange(LENGTH, device=ids.device) == 0)
        return {"tokens": self.vectors(ids), "mask": mask}

    def forward(self, condition: Condition) -> Condition:
        null = self.encode(condition["ids"].new_zeros(LENGTH))
        return Condition(self.encode(condition["ids"]), null)

    def unknown(self, num: int) -> Condition:
        ids = torch.zeros(num, LENGTH, dtype=torch.long, device=self.vectors.weight.device)
        return self(Condition({"ids": ids}))


class CrossAttention(nn.Module):
    """``(x, level, tokens, mask)`` -> (batch, out): a perceptron of x (batch, dim), the level and
    what x finds in the sequence.
    """

    def __init__(self, dim: int, out: int | None = None) -> None:
        super().__init__()
        self.query = nn.Linear(dim, DIM)
        self.leave = nn.Sequential(nn.Linear(dim + DIM + 1, 32), nn.SiLU())
        self.last = nn.Linear(32, dim if out is None else out)

    def forward(self, x: Tensor, level: Tensor, *, tokens: Tensor, mask: Tensor) -> Tensor:
        score = torch.einsum("bd,bld->bl", self.query(x), tokens) / DIM**0.5
        found = torch.einsum("bl,bld->bd", score.masked_fill(~mask, -1e9).softmax(1), tokens)
        return self.last(self.leave(torch.cat([x, found, level[:, None].to(x)], 1)))


class TextDenoiser(Denoiser):
    """A guess at x_0 (batch, dim) by cross attention; nothing about it is exact."""

    def __init__(self, dim: int = 3) -> None:
        super().__init__()
        self.schedule, self.network = SCHEDULE, CrossAttention(dim)

    def forward(self, x_t: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.network(x_t, t.expand(len(x_t)), **condition)
