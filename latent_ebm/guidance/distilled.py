r"""Guidance that a student has learnt, with the weight as an input.

Classifier-free guidance calls a denoiser twice, with a condition and without. A student can learn
the result ``D_w(x_t | c)`` for all weights w of a range. It takes w as one more entry of its
condition, ``guidance`` (batch,), and needs one call. Source: Meng et al. 2023, arXiv:2210.03142.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from latent_ebm.conditions import Condition, Conditioner
from samplers.checks import check_numbers


def weighted(condition: Condition, weight: Tensor) -> Condition:
    """``condition``, and the ``weight`` (rows,) of guidance as its entry ``guidance``."""
    return Condition({**condition, "guidance": weight}, condition.null)


def at_weight(condition: Condition, weight: float, num: int) -> Condition:
    """``condition`` of ``num`` rows, all with the same ``weight`` of guidance."""
    return weighted(condition, torch.full((num,), float(weight), device="cpu"))


def check_weight(weight: float, weights: tuple[float, float]) -> None:
    """Raise ``ValueError`` for a ``weight`` of guidance outside the range ``weights``."""
    least, greatest = weights
    check_numbers("guidance", "finite", guidance=weight)
    if not least <= weight <= greatest:
        raise ValueError(
            f"guidance must lie in [{least}, {greatest}], the weights that the denoiser has "
            f"learnt, got {weight}"
        )


def check_weights(
    weights: Sequence[float], conditioner: Conditioner | None
) -> tuple[float, float]:
    """``weights``, a range of weights of guidance. Raises ``ValueError`` unless they are two
    finite numbers in order, and there is a ``conditioner``.
    """
    least, greatest = check_range("guidance must be a weight or", weights)
    if conditioner is None:
        raise ValueError(f"guidance must be 1 without a conditioner, got {weights}")
    return least, greatest


def check_range(rule: str, weights: object) -> tuple[float, float]:
    """``weights``. Raises ``ValueError``, which begins with ``rule``, unless they are two finite
    numbers in order.
    """
    if isinstance(weights, Sequence) and not isinstance(weights, str) and len(weights) == 2:
        least, greatest = weights
        check_numbers("guidance", "finite", least=least, greatest=greatest)
        if least < greatest:
            return least, greatest
    raise ValueError(f"{rule} a range [least, greatest], got {weights!r}")
