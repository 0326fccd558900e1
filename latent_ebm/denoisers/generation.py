"""Samples of a diffusion model: noise, a reverse sampler, and a condition for every row."""

from collections.abc import Sequence
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from latent_ebm.blocks import blocks
from latent_ebm.conditions import Condition
from latent_ebm.denoisers.base import Denoiser
from samplers.checks import check_counts, check_kind
from samplers.reverse import ReverseSampler
from samplers.schedules import broadcast


@torch.no_grad()
def generate(
    denoiser: Denoiser,
    sampler: ReverseSampler,
    shape: Sequence[int],
    num: int,
    condition: Condition | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Samples (num, \\*shape) of ``denoiser``, drawn by ``sampler`` from noise of scale
    ``sigma_1``.

    Args:
        denoiser: Called with the condition as keywords.
        sampler: Leads from noise to data, on the schedule of the denoiser.
        shape: The shape of an event.
        num: The number of samples.
        condition: The denoiser's condition, with ``num`` rows; None: no condition.
        generator: The random stream, on the device of the denoiser.

    Raises:
        ValueError: For a ``num`` that is negative, a condition of another kind or number of rows,
            or schedules that differ.
        FloatingPointError: If a sample diverges.
    """
    check_counts("generate", least=0, num=num)
    condition = Condition() if condition is None else condition
    check_kind("generate", Condition, condition=condition)
    condition.check_rows(num)
    x_T = like(denoiser).new_empty(num, *shape).normal_(generator=generator)
    x_T = broadcast(denoiser.schedule(x_T.new_ones(()))[1], x_T) * x_T
    told = condition.to(x_T.device)

    def draw(rows: slice) -> Tensor:
        denoise = partial(denoiser.at_rows(rows, num), **told.rows(rows))
        return sampler.at_rows(rows, num).sample(denoise, x_T[rows], generator=generator)

    return torch.cat([draw(rows) for rows in blocks(num)])


def like(module: nn.Module) -> Tensor:
    """A tensor of the dtype and device of ``module``: its first floating parameter or buffer."""
    tensors = chain(module.parameters(), module.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(()))
