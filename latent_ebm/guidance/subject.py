"""The rows of a subject in a condition, the same at all noise levels or others at each."""

import torch
from torch import Tensor

from latent_ebm.conditions import Condition
from latent_ebm.denoisers import Denoiser
from latent_ebm.guidance.step_wise import StepWise
from latent_ebm.text.subject import with_rows


def with_subject(
    denoiser: Denoiser, told: Condition, rows: Tensor, times: Tensor | None = None
) -> tuple[Denoiser, Condition]:
    """``denoiser`` and what it is told, with a subject in the last rows of the text.

    Args:
        denoiser: The denoiser, or a guided one, whose null stays without the subject.
        told: Its condition, with ``text`` (batch, m, dim) and ``mask`` (batch, m).
        rows: Rows (n, dim) of the subject, or (num_steps, n, dim), of which those of the nearest
            time are shown.
        times: Times (num_steps,) of such rows.

    Raises:
        ValueError: For rows with steps and no times, or another number of these.
    """
    if rows.ndim == 2:
        return denoiser, with_rows(told, rows)
    if times is None:
        raise ValueError(f"times must be given for rows of {len(rows)} steps, got None")
    shown = [with_rows(told, own) for own in rows]
    texts = torch.stack([own["text"] for own in shown])
    return StepWise(denoiser, times.to(texts.device), {"text": texts}), shown[0]
