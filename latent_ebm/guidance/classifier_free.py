r"""Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598).

One denoiser knows the data with a condition c and without. The difference of the two scores is
``grad log q(c | x_t)``. Multiples of it move samples to where c is more or less likely.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from latent_ebm.conditions import Condition, Conditioner
from latent_ebm.denoisers import Denoiser
from samplers.checks import check_kind, check_numbers
from samplers.schedules import broadcast


def classifier_free(
    denoiser: Denoiser,
    x_t: Tensor,
    t: Tensor,
    condition: Mapping[str, Tensor],
    null: Mapping[str, Tensor],
    weight: float | Tensor,
) -> Tensor:
    """``D(x_t | null) + w (D(x_t | condition) - D(x_t | null))`` like ``x_t``, in one call of
    ``denoiser``.

    Args:
        denoiser: Takes the names of both conditions as keywords.
        x_t: Noised data (batch, \\*event).
        t: Times, a scalar or (batch,).
        condition: What the sample should be, with one entry per row or one for all rows.
        null: What stands for no condition, or what the sample should not be (a negative prompt):
            the same names, with one entry per row or one for all rows.
        weight: The weight w, a number or (batch,). For the number 1, ``null`` does not matter and
            is not computed.

    Raises:
        ValueError: For conditions that differ in their names or the shape of an entry, or whose
            number of rows is neither 1 nor that of ``x_t``.
    """
    if not isinstance(weight, Tensor) and weight == 1:
        return denoiser(x_t, t, **condition)
    both = stack(condition, null, len(x_t))
    told, untold = denoiser(
        torch.cat([x_t, x_t]), torch.cat([t, t]) if t.ndim else t, **both
    ).chunk(2)
    return untold + (broadcast(weight, x_t) if isinstance(weight, Tensor) else weight) * (
        told - untold
    )


def stack(
    condition: Mapping[str, Tensor], null: Mapping[str, Tensor], num: int
) -> dict[str, Tensor]:
    """``num`` rows of ``condition``, and then ``num`` rows of ``null``."""
    told, untold = spread(condition, null, num)
    return {name: torch.cat([value, untold[name]]) for name, value in told.items()}


def spread(
    condition: Mapping[str, Tensor], null: Mapping[str, Tensor], num: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Both with ``num`` rows. Raises ``ValueError`` for names, entries or rows that do not fit."""
    if condition.keys() != null.keys():
        raise ValueError(
            f"condition and null must have the same names, got {', '.join(condition) or 'none'} "
            f"and {', '.join(null) or 'none'}"
        )
    for name, value in condition.items():
        shapes = [tuple(part.shape) for part in (value, null[name])]
        if shapes[0][1:] != shapes[1][1:] or not {s[0] for s in shapes} <= {1, num}:
            raise ValueError(
                f"condition and null {name} must have entries of one shape and 1 or {num} rows, "
                f"got shapes {shapes[0]} and {shapes[1]}"
            )
    told, untold = (
        {name: value.expand(num, *value.shape[1:]) for name, value in part.items()}
        for part in (condition, null)
    )
    return told, untold


def guided(
    denoiser: Denoiser, condition: Condition, weight: float | Tensor
) -> Callable[[Tensor, Tensor], Tensor]:
    """``(x_t, t) -> x_0``: ``denoiser`` with ``condition``, guided away from the condition's own
    null with ``weight``, a number or (batch,).

    Raises ``ValueError`` for a name without a null, unless ``weight`` is the number 1.
    """
    if not isinstance(weight, Tensor) and weight == 1:
        return partial(denoiser, **condition)
    return partial(
        classifier_free, denoiser, condition=condition, null=condition.unknown(), weight=weight
    )


def check_guidance(weight: float, conditioner: Conditioner | None) -> float:
    """``weight``. Raises ``ValueError`` unless it is finite, and 1 without a ``conditioner``."""
    check_numbers("guidance", "finite", weight=weight)
    if weight != 1 and conditioner is None:
        raise ValueError(f"guidance must be 1 without a conditioner, got {weight}")
    return weight


class ClassifierFree(Denoiser):
    """``D_w(x_t | c) = D(x_t | null) + w (D(x_t | c) - D(x_t | null))``: the score of ``q(x_t)
    q(c | x_t)^w``, at each noise level separately.

    No diffusion process has these scores, so reverse samplers do not sample from the tilted
    distribution of clean data.

    Args:
        denoiser: A denoiser trained with conditions and with their null.
        weight: The weight w: 1 is the denoiser's own conditional distribution; more gives samples
            that are more typical of the condition and less varied.
        null: What stands for no condition, or what samples should not be (a negative prompt): one
            row for all, or one per row of every ``x_t``, which ``generate`` hands out to its
            blocks. ``condition.rows(slice(1)).unknown()`` is
            a condition's own null.

    Raises:
        ValueError: For a ``weight`` that is not finite, or a ``null`` without names or rows.
    """

    def __init__(self, denoiser: Denoiser, weight: float, null: Mapping[str, Tensor]) -> None:
        super().__init__()
        check_kind(self, Denoiser, denoiser=denoiser)
        check_numbers(self, "finite", weight=weight)
        if not null:
            raise ValueError("null must say what stands for no condition, got no names")
        null = Condition(null)
        self.denoiser, self.schedule, self.weight = denoiser, denoiser.schedule, weight
        self.names = tuple(null)
        for name, value in null.items():
            self.register_buffer(f"null_{name}", value)

    @property
    def null(self) -> dict[str, Tensor]:
        """What stands for no condition, by name."""
        return {name: self.get_buffer(f"null_{name}") for name in self.names}

    def at_rows(self, index: slice, num: int) -> "ClassifierFree":
        for name, value in self.null.items():
            if len(value) not in (1, num):
                raise ValueError(f"null {name} must have 1 or {num} rows, got {len(value)}")
        null = {name: v if len(v) == 1 else v[index] for name, v in self.null.items()}
        return ClassifierFree(self.denoiser.at_rows(index, num), self.weight, null)

    def forward(self, x_t: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return classifier_free(self.denoiser, x_t, t, condition, self.null, self.weight)
