r"""Generation that is held to a reference image of its subject (HiFi Tuner, arXiv:2312.00079).

A sample shows its subject where the mask is 1, but with variations. A photograph of the subject,
moved to the same place, was inverted at a guidance of 1, and its path is known. The sample is
drawn once more from its noise x_T. After a share of the steps the reference's x_t is put inside
the mask; from then on, and until a later share, the null is trained in every step so that the
guided step lands on the reference's path inside the mask. The rest of the steps are ordinary ones,
which blend both parts.
"""

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from latent_ebm.denoisers import Denoiser
from latent_ebm.guidance.inversion import check_path
from latent_ebm.guidance.masks import check_mask
from latent_ebm.guidance.null_text import GuidedStep, check_training, descend
from samplers.checks import is_real
from samplers.reverse import ReverseSampler
from samplers.reverse_checks import check_arrival
from samplers.run_checks import check_position


@torch.no_grad()
def reference_guided(
    denoiser: Denoiser,
    sampler: ReverseSampler,
    x_T: Tensor,
    condition: Mapping[str, Tensor],
    null: Mapping[str, Tensor],
    weight: float,
    path: Tensor,
    mask: Tensor,
    span: tuple[float, float] = (0.2, 0.8),
    *,
    name: str = "text",
    num_updates: int = 10,
    lr: float = 1e-2,
) -> Tensor:
    """Images like ``x_T`` (batch, C, H, W), which follow ``path`` inside ``mask``.

    Args:
        denoiser: The denoiser, unguided; or ``StepWise`` around it. Parameters stay as they are.
        sampler: ``DDIM`` with ``eta`` 0.
        x_T: The noise from which the sample was drawn.
        condition: What the sample shows, with one entry per row or one for all rows.
        null: The null, with the same names.
        weight: The weight w of guidance, not 1.
        path: The reference's path (num_steps + 1, batch, C, H, W) as ``inversion_path`` returns
            it, of images that are aligned with the sample.
        mask: 1 where the subject is (1 or batch, 1, H, W).
        span: The shares of the steps at which the reference is put in, and at which the training
            ends. The paper's (.2, .8) are steps 40 and 10 of 50, counted down.
        name: The entry of the null that is trained.
        num_updates: Updates by Adam in each step.
        lr: Learning rate of Adam.

    Raises:
        ValueError: For a ``span`` that is not two shares in order or has no step between them,
            a path unlike ``x_T``, and what ``null_text`` refuses.
        FloatingPointError: If the path or the result is not finite.
    """
    check_training(denoiser, sampler, weight, name, condition, null, num_updates, lr)
    check_position(x_T, "x_T")
    check_path(path, sampler)
    check_mask(mask, x_T)
    if path.shape[1:] != x_T.shape or path.dtype != x_T.dtype:
        raise ValueError(
            f"path must hold images like x_T, {x_T.dtype} of shape {tuple(x_T.shape)}, got "
            f"{path.dtype} of shape {tuple(path.shape)}"
        )
    start, end = check_span(span, sampler.num_steps)
    guided = GuidedStep(denoiser, sampler, condition, null, weight, name)
    x, entry = x_T, guided.start(len(x_T))
    for i, (t, s) in enumerate(itertools.pairwise(sampler.times(x))):
        x = torch.where(mask > 0, path[i], x) if i == start else x
        land = guided(x, t, s)
        if start <= i < end:
            entry = descend(land, entry, path[i + 1], mask, num_updates, lr)
        x = land(entry if start <= i < end else guided.start(len(x)))
    check_arrival(sampler, "x_T", x_T, x)
    return x


def check_span(span: tuple[float, float], num_steps: int) -> tuple[int, int]:
    """The numbers of the steps at the two shares. Raises ``ValueError`` if there is no step
    between them.
    """
    shares = [share for share in span if is_real(share)] if isinstance(span, Sequence) else []
    known = len(shares) == 2 == len(span) and 0 <= shares[0] < shares[1] <= 1  # not for NaN
    start, end = (round(share * num_steps) for share in shares) if known else (0, 0)
    if start >= end:
        raise ValueError(
            f"span must be two shares in order, with a step between them of {num_steps}, got "
            f"{span}"
        )
    return start, end
