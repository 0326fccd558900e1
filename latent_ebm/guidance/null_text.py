r"""Null-text optimisation: a null for every step, so that guided sampling follows a given path.

Guidance of weight w leads away from the path along which an image was inverted. Everything that
the weight changes is paid for by the null: for t = T, ..., 1 it is trained by Adam until the
guided step from where the sample is lands on the path, ::

    null_t = argmin |path_{t-1} - step(x_t; D(null) + w (D(condition) - D(null)))|^2.

It starts at the null of the step before, and nothing else is trained. Source: Mokady et al. 2022,
arXiv:2211.09794; with a mask, inside of which alone the error counts, HiFi Tuner,
arXiv:2312.00079.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from latent_ebm.denoisers import Denoiser
from latent_ebm.guidance.classifier_free import classifier_free, spread
from latent_ebm.guidance.inversion import check_path
from latent_ebm.guidance.masks import check_mask
from latent_ebm.guidance.step_wise import Timetable, told_the_null
from samplers.base import choose
from samplers.checks import check_counts, check_kind, check_numbers
from samplers.reverse import DDIM, ReverseSampler
from samplers.reverse_checks import check_arrival, check_schedule

Land = Callable[[Tensor], Tensor]  # the trained entry of the null -> x_s


@torch.no_grad()
def null_text(
    denoiser: Denoiser,
    sampler: ReverseSampler,
    path: Tensor,
    condition: Mapping[str, Tensor],
    null: Mapping[str, Tensor],
    weight: float,
    mask: Tensor | None = None,
    *,
    name: str = "text",
    num_updates: int = 10,
    lr: float = 1e-2,
) -> dict[str, Tensor]:
    """The null of every step, (num_steps, batch, \\*entry) for every name, with which guided
    sampling from ``path[0]`` follows ``path``. ``NullText`` guides with it.

    Args:
        denoiser: The denoiser, unguided; or ``StepWise`` around it. Parameters stay as they are.
        sampler: ``DDIM`` with ``eta`` 0, which denoises once in a step.
        path: What ``inversion_path`` returned (num_steps + 1, batch, \\*event).
        condition: The condition, with one entry per row or one for all rows.
        null: The null to start from: the same names, one entry per row or one for all rows.
        weight: The weight w of guidance, not 1.
        mask: 1 where the error counts (1 or batch, 1, H, W); None: everywhere.
        name: The entry of the null that is trained; the others stay.
        num_updates: Updates by Adam in each step. Of all nulls on the way, the first included,
            each row keeps the one that landed nearest.
        lr: Learning rate of Adam.

    Raises:
        ValueError: For a sampler of another kind, a path or mask of another size, a weight of 1,
            conditions that differ in names or shapes, or a ``name`` without floating values.
        FloatingPointError: If the path or what is sampled is not finite.
    """
    check_training(denoiser, sampler, weight, name, condition, null, num_updates, lr)
    check_path(path, sampler)
    if mask is not None:
        check_mask(mask, path[0])
    guided = GuidedStep(denoiser, sampler, condition, null, weight, name)
    x, entry, entries = path[0], guided.start(path.shape[1]), []
    for (t, s), goal in zip(itertools.pairwise(sampler.times(x)), path[1:], strict=True):
        land = guided(x, t, s)
        entry = descend(land, entry, goal, mask, num_updates, lr)
        x = land(entry)
        entries.append(entry)
    check_arrival(sampler, "path", path[0], x)
    size = len(entries), path.shape[1]
    fixed = {n: v.expand(*size, *v.shape[1:]) for n, v in null.items()}
    return {**fixed, name: torch.stack(entries)}


@dataclass(frozen=True)
class GuidedStep:
    """Guided steps of ``sampler`` as functions of the entry ``name`` of the ``null``."""

    denoiser: Denoiser
    sampler: ReverseSampler
    condition: Mapping[str, Tensor]
    null: Mapping[str, Tensor]
    weight: float
    name: str

    def start(self, num: int) -> Tensor:
        """The entry (num, ...) of the null itself."""
        return self.null[self.name].expand(num, *self.null[self.name].shape[1:])

    def __call__(self, x_t: Tensor, t: Tensor, s: Tensor) -> Land:
        """The entry (batch, ...) -> x_s, for the step from ``x_t`` at t to s."""
        told, null = spread(self.condition, self.null, len(x_t))
        with torch.no_grad():
            conditional = self.denoiser(x_t, t, **told)

        def land(entry: Tensor) -> Tensor:
            untold = told_the_null(self.denoiser)(x_t, t, **{**null, self.name: entry})
            x_0 = untold + self.weight * (conditional - untold)
            return self.sampler.step(lambda x, time: x_0, x_t, t, s)

        return land


def descend(
    land: Land,
    entry: Tensor,
    goal: Tensor,
    mask: Tensor | None,
    num_updates: int,
    lr: float,
) -> Tensor:
    """The ``entry`` (batch, ...) that landed nearest to ``goal`` in each row, on the way of
    ``num_updates`` steps of Adam, which are taken in single precision at least. Rows do not depend
    on each other.
    """
    dtype, wide = entry.dtype, torch.promote_types(entry.dtype, torch.float32)
    entry = best = entry.detach().to(wide, copy=True).requires_grad_()
    least = torch.full_like(goal.flatten(1)[:, 0], torch.inf, dtype=wide)
    adam = torch.optim.Adam([entry], lr)
    for update in range(num_updates + 1):
        with torch.enable_grad():
            error = (land(entry.to(dtype)) - goal).to(wide).square()
            error = (error if mask is None else error * mask).flatten(1).sum(1)
        nearer = error.detach() < least
        best = choose(nearer, entry.detach(), best)
        least = torch.where(nearer, error.detach(), least)
        if update < num_updates:
            (entry.grad,) = torch.autograd.grad(error, entry, torch.ones_like(error))
            adam.step()
    return best.detach().to(dtype)


class NullText(Denoiser):
    """Classifier-free guidance with a null of its own for every step.

    Args:
        denoiser: The denoiser, unguided.
        weight: The weight w of guidance.
        times: Times (num_steps,) of the steps, ``sampler.times(x)[:-1]``.
        null: What ``null_text`` returned: entries (num_steps, rows, \\*entry) of every name, with
            one row for all or one for each.

    Raises:
        ValueError: For a ``weight`` that is not finite, a ``null`` without names, or entries of
            another number of steps.
    """

    def __init__(
        self, denoiser: Denoiser, weight: float, times: Tensor, null: Mapping[str, Tensor]
    ) -> None:
        super().__init__()
        check_kind(self, Denoiser, denoiser=denoiser)
        check_numbers(self, "finite", weight=weight)
        self.denoiser, self.schedule, self.weight = denoiser, denoiser.schedule, weight
        self.table = Timetable(times, null)

    @property
    def times(self) -> Tensor:
        """The times (num_steps,)."""
        return self.table.times

    @property
    def null(self) -> dict[str, Tensor]:
        """The null of every step, by name."""
        return self.table.condition

    def at_rows(self, index: slice, num: int) -> "NullText":
        table = self.table.at_rows(index, num)
        denoiser = self.denoiser.at_rows(index, num)
        return NullText(denoiser, self.weight, table.times, table.condition)

    def forward(self, x_t: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        null = self.table.at(t, len(x_t))
        return classifier_free(self.denoiser, x_t, t, condition, null, self.weight)


def check_training(
    denoiser: Denoiser,
    sampler: ReverseSampler,
    weight: float,
    name: str,
    condition: Mapping[str, Tensor],
    null: Mapping[str, Tensor],
    num_updates: int,
    lr: float,
) -> None:
    """Raise ``ValueError`` unless a null can be trained with these."""
    check_kind("null_text", Denoiser, denoiser=denoiser)
    check_kind("null_text", Mapping, condition=condition, null=null)
    if not (isinstance(sampler, DDIM) and sampler.is_deterministic):
        raise ValueError(f"null_text needs a sampler DDIM with eta 0, got {sampler}")
    check_schedule(sampler.schedule, denoiser)
    check_numbers("null_text", "finite", weight=weight)
    check_numbers("null_text", "positive", lr=lr)
    check_counts("null_text", num_updates=num_updates)
    if weight == 1:
        raise ValueError("weight must not be 1, for then the null has no part, got 1")
    if name not in null or not null[name].is_floating_point():
        floating = [n for n, v in null.items() if v.is_floating_point()]
        raise ValueError(
            f"name must be an entry of the null with floating values, one of "
            f"{', '.join(floating) or 'none'}, got {name!r}"
        )
