r"""The way of an image to noise: the pivot that later samples are held to.

Inversion at a guidance of 1 is stable, so its path is trusted (*pivotal* inversion, Mokady et al.
2022, arXiv:2211.09794). Sampling from the end of the path returns the image, up to the errors of
both ways; under guidance it leads elsewhere.
"""

import torch
from torch import Tensor

from samplers.checks import check_kind
from samplers.reverse import Denoise, ReverseSampler
from samplers.run_checks import check_finite


@torch.no_grad()
def inversion_path(denoise: Denoise, sampler: ReverseSampler, x_0: Tensor) -> Tensor:
    """Where ``x_0`` is at every time of ``sampler``: (num_steps + 1, batch, \\*event), the
    noisiest first: ``path[i]`` belongs to ``sampler.times(x_0)[i]``, and ``path[-1]`` is ``x_0``.

    Args:
        denoise: ``(x_t, t) -> x_0``, such as ``partial(denoiser, **condition)``.
        sampler: A sampler that draws no noise.
        x_0: Images or latents (batch, \\*event).

    Raises:
        ValueError: For a sampler that draws noise, and as ``ReverseSampler.invert`` does.
    """
    check_kind("inversion_path", ReverseSampler, sampler=sampler)
    path = [x for _, _, x in sampler.invert(denoise, x_0)]
    return torch.stack([*reversed(path), x_0])


def check_path(path: Tensor, sampler: ReverseSampler) -> None:
    """Raise ``ValueError`` unless ``path`` has as many points as ``sampler`` has times, and
    ``FloatingPointError`` unless it is finite.
    """
    check_kind("guidance", Tensor, path=path)
    if path.ndim < 3 or len(path) != sampler.num_steps + 1:
        raise ValueError(
            f"path must have shape ({sampler.num_steps + 1}, batch, *event) for a sampler of "
            f"{sampler.num_steps} steps, got {tuple(path.shape)}"
        )
    check_finite("path", path.transpose(0, 1))
