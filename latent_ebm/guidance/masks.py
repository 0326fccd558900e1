"""Masks of subjects: float tensors (1 or batch, 1, H, W), 1 on the subject and 0 elsewhere."""

from torch import Tensor

from samplers.checks import check_kind
from samplers.run_checks import is_readable


def check_mask(mask: Tensor, x: Tensor) -> None:
    """Raise ``ValueError`` unless ``mask`` is (1 or batch, 1, H, W) for ``x`` (batch, C, H, W),
    holds 0 and 1 alone, and has a 1 in every row.
    """
    check_kind("guidance", Tensor, mask=mask, x=x)
    shapes = [(rows, 1, *x.shape[2:]) for rows in (1, len(x))]
    if x.ndim < 3 or tuple(mask.shape) not in shapes or not mask.is_floating_point():
        shown = dict.fromkeys(map(str, shapes))  # one of them for a single image
        raise ValueError(
            f"mask must be a floating tensor of shape {' or '.join(shown)} for images of "
            f"shape {tuple(x.shape)}, got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    if not is_readable(mask):
        return
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError(
            f"mask must hold 0 and 1 alone, got values from {float(mask.min()):.3g} to "
            f"{float(mask.max()):.3g}"
        )
    check_every_row("mask must be 1 somewhere in every row", mask)


def check_hole(mask: Tensor) -> None:
    """Raise ``ValueError`` unless every row of ``mask`` leaves something known."""
    if is_readable(mask):
        check_every_row("mask must be 0 somewhere in every row", 1 - mask)


def check_every_row(rule: str, mask: Tensor) -> None:
    """Raise ``ValueError``, which begins with ``rule``, if a row of ``mask`` is 0 everywhere."""
    nothing = int((~mask.flatten(1).any(1)).sum())
    if nothing:
        raise ValueError(f"{rule}, got {nothing} of {len(mask)} rows without")
