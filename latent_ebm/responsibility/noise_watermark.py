r"""A watermark in the initial noise: nothing is added to the picture, which is drawn from noise
whose signs a key determines.

The noise is ``x_T = s |n|`` with standard normal n and signs s of the key, so that ``P(x_T > 0) =
1/2`` and the size is that of n: over keys, x_T is exactly standard normal, and pictures lose
nothing. The signs are found again by *inverting* the sampler (Wen et al. 2023, arXiv:2305.20030,
which keys rings in the Fourier transform; signs: Yang et al. 2024, arXiv:2404.04956). For a
picture that was made without the key, the number of signs that agree is exactly Binomial(d, 1/2).
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from latent_ebm.responsibility.keys import signs
from samplers.checks import as_shape, check_counts
from samplers.run_checks import check_position

PURPOSE = "noise"


def watermarked_noise(
    num: int, shape: Sequence[int], key: bytes, *, generator: torch.Generator | None = None
) -> Tensor:
    """Noise (num, \\*shape) whose signs ``key`` determines, of scale 1; multiply it by
    ``sigma_1`` of the schedule.

    All rows have the same signs: over keys each row is exactly normal, but rows of one key are not
    independent of each other, and a sample of them is less diverse. Where that matters, take a key
    for every picture, for example the hash of a secret and a number.

    Args:
        num: Number of rows.
        shape: Shape of one row.
        key: The secret, at least 16 bytes.
        generator: The random stream of the sizes.

    Raises:
        ValueError: For a number, shape or key that break these rules.
    """
    check_counts("watermarked_noise", least=0, num=num)
    event = as_shape("watermarked_noise", shape=shape)
    device = torch.get_default_device() if generator is None else generator.device
    size = torch.randn(num, *event, generator=generator, device=device).abs()
    keyed = signs(key, PURPOSE, int(np.prod(event))).reshape(event)
    return size * torch.as_tensor(keyed, dtype=size.dtype, device=device)


def detect_noise_watermark(x_T: Tensor, key: bytes) -> Tensor:
    """P-values (n,), float64: small for noise whose signs are those of ``key``.

    ``P(p <= a) <= a`` for noise that has nothing to do with the key, over keys, with equality at
    the values that p takes.

    Args:
        x_T: Noise (n, \\*shape) of any scale. Of a picture, it is ``inversion_path(denoise,
            sampler, x)[0]``; the denoiser need not know the prompt.
        key: The secret, at least 16 bytes.

    Raises:
        ValueError: For noise that is not finite, or a key that is too short.
    """
    check_position(x_T, "x_T")
    if not bool(x_T.isfinite().all()):
        raise ValueError(f"x_T must be finite, got {int((~x_T.isfinite()).sum())} other entries")
    positive = (x_T > 0).flatten(1).cpu().numpy()
    keyed = signs(key, PURPOSE, positive.shape[1]) > 0
    agreed = (positive == keyed).sum(1)
    p = binom.sf(agreed - 1, positive.shape[1], 0.5)
    return torch.as_tensor(p, dtype=torch.float64, device=x_T.device)
