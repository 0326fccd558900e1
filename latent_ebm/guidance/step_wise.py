r"""Conditions that change along the way: each noise level has entries of its own.

What a text should say depends on the noise level: coarse shapes are decided early, details late.
So a subject may have one embedding for every step (HiFi Tuner, arXiv:2312.00079), and so may the
null of classifier-free guidance (``latent_ebm.guidance.null_text``).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from latent_ebm.denoisers import Denoiser
from samplers.checks import check_kind
from samplers.run_checks import check_finite


class Timetable(nn.Module):
    """Entries of a condition by their time.

    Args:
        times: Times (num_steps,).
        condition: The entries (num_steps, rows, \\*entry) of every name, with one row for all or
            one for each.

    Raises:
        ValueError: Without names, or for entries of another number of steps.
    """

    times: Tensor

    def __init__(self, times: Tensor, condition: Mapping[str, Tensor]) -> None:
        super().__init__()
        check_kind("step-wise condition", Tensor, times=times)
        check_kind("step-wise condition", Mapping, condition=condition)
        check_kind("step-wise condition", Tensor, **condition)
        check_finite("times", times)
        if not condition or times.ndim != 1:
            got = f"{', '.join(condition) or 'no names'} at times of shape {tuple(times.shape)}"
            raise ValueError(f"a step-wise condition must have names and times (num,), got {got}")
        self.register_buffer("times", times)
        self.names = tuple(condition)
        for name, value in condition.items():
            if value.ndim < 2 or len(value) != len(times):
                raise ValueError(
                    f"step-wise {name} must have shape ({len(times)}, rows, *entry), like times, "
                    f"got {tuple(value.shape)}"
                )
            self.register_buffer(f"entry_{name}", value)

    @property
    def condition(self) -> dict[str, Tensor]:
        """The entries of every name."""
        return {name: self.get_buffer(f"entry_{name}") for name in self.names}

    def at_rows(self, index: slice, num: int) -> "Timetable":
        """The entries of the rows at ``index`` of ``num`` rows."""
        self.check_rows(num)
        chosen = {n: v if v.shape[1] == 1 else v[:, index] for n, v in self.condition.items()}
        return Timetable(self.times, chosen)

    def at(self, t: Tensor, num: int) -> dict[str, Tensor]:
        """The entries of ``num`` rows at the times nearest to ``t``, a scalar or (num,)."""
        self.check_rows(num)
        step = (self.times - t.to(self.times)[..., None]).abs().argmin(-1).expand(num)
        row = torch.arange(num, device=step.device)
        entries = {n: v.expand(-1, num, *v.shape[2:]) for n, v in self.condition.items()}
        return {name: value[step, row] for name, value in entries.items()}

    def check_rows(self, num: int) -> None:
        """Raise ``ValueError`` unless every name has one row or ``num`` rows."""
        for name, value in self.condition.items():
            if value.shape[1] not in (1, num):
                raise ValueError(
                    f"step-wise {name} must have 1 or {num} rows, got {value.shape[1]}"
                )


class StepWise(Denoiser):
    """``denoiser``, told the entries of the nearest time in place of those of its condition.

    Guidance goes inside, ``StepWise(ClassifierFree(denoiser, weight, null), ...)``, so that the
    null stays as it is. ``null_text``, ``reference_guided`` and ``replace_subject`` take a
    denoiser of this class, and tell its entries with the condition alone.

    Args:
        denoiser: The denoiser, or a guided one.
        times: Times (num_steps,), such as ``sampler.times(x)[:-1]``.
        condition: The entries (num_steps, rows, \\*entry) of every name that changes, with one
            row for all or one for each.

    Raises:
        ValueError: Without names, or for entries of another number of steps.
    """

    def __init__(self, denoiser: Denoiser, times: Tensor, condition: Mapping[str, Tensor]) -> None:
        super().__init__()
        check_kind(self, Denoiser, denoiser=denoiser)
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        self.table = Timetable(times, condition)

    @property
    def times(self) -> Tensor:
        """The times (num_steps,)."""
        return self.table.times

    @property
    def condition(self) -> dict[str, Tensor]:
        """The entries of every name that changes."""
        return self.table.condition

    def at_rows(self, index: slice, num: int) -> "StepWise":
        table = self.table.at_rows(index, num)
        return StepWise(self.denoiser.at_rows(index, num), table.times, table.condition)

    def forward(self, x_t: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.denoiser(x_t, t, **{**condition, **self.table.at(t, len(x_t))})


def told_the_null(denoiser: Denoiser) -> Denoiser:
    """The denoiser for the null: that inside a ``StepWise``, whose entries are no part of it."""
    return denoiser.denoiser if isinstance(denoiser, StepWise) else denoiser
