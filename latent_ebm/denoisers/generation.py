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
    x_T: Tensor | None = None,
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
        x_T: The noise (num, \\*shape) of scale ``sigma_1`` to begin with; None: it is drawn.
        generator: The random stream, on the device of the denoiser.

    Raises:
        ValueError: For a ``num`` that is negative, a condition of another kind or number of rows,
            noise of another shape, or schedules that differ.
        FloatingPointError: If a sample diverges.
    """
    check_counts("generate", least=0, num=num)
    condition = Condition() if condition is None else condition
    check_kind("generate", Condition, condition=condition)
    condition.check_rows(num)
    if x_T is None:
        x_T = initial_noise(denoiser, num, shape, generator=generator)
    x_T = checked_noise(x_T, (num, *shape)).to(like(denoiser))
    told = condition.to(x_T.device)

    def draw(rows: slice) -> Tensor:
        denoise = partial(denoiser.at_rows(rows, num), **told.rows(rows))
        return sampler.at_rows(rows, num).sample(denoise, x_T[rows], generator=generator)

    return torch.cat([draw(rows) for rows in blocks(num)])


def initial_noise(
    denoiser: Denoiser, num: int, shape: Sequence[int], *, generator: torch.Generator | None = None
) -> Tensor:
    """Noise (num, \\*shape) of scale ``sigma_1`` of the schedule of ``denoiser``."""
    noise = like(denoiser).new_empty(num, *shape).normal_(generator=generator)
    return broadcast(denoiser.schedule(noise.new_ones(()))[1], noise) * noise


def checked_noise(x_T: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``x_T``. Raises ``ValueError`` unless it is floating noise of this ``shape``."""
    check_kind("generate", Tensor, x_T=x_T)
    if x_T.shape != shape or not x_T.is_floating_point():
        raise ValueError(
            f"x_T must be noise of shape {shape}, got {x_T.dtype} of {tuple(x_T.shape)}"
        )
    return x_T


def like(module: nn.Module) -> Tensor:
    """A tensor of the dtype and device of ``module``: its first floating parameter or buffer."""
    tensors = chain(module.parameters(), module.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(()))
