"""Inference and decoding in batches, which bound the memory they need."""

import torch
from torch import Tensor

from latent_ebm.blocks import BLOCK
from latent_ebm.model import LatentModel
from latent_ebm.posteriors import Posterior


def infer(
    model: LatentModel,
    inference: Posterior,
    x: Tensor,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Latents (n, dim) that ``inference`` draws for ``x`` (n, \\*event), in batches."""
    return torch.cat(
        [inference.sample(model, batch, generator=generator) for batch in x.split(BLOCK)]
    )


@torch.no_grad()
def decode(model: LatentModel, z: Tensor) -> Tensor:
    """``E[x|z]`` (n, \\*event) of ``z`` (n, dim), in batches."""
    return torch.cat([model.decode(batch) for batch in z.split(BLOCK)])
