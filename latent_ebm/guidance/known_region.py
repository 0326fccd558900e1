r"""Inpainting by a reverse sampler: after every step, what is known is put back.

Where the mask m is 0, the image x_0 is known. A step from t to s is made as if nothing were, and
then ``x_s <- m x_s + (1 - m) (alpha_s x_0 + sigma_s n)`` with fresh noise n. At s = 0 no noise is
left: outside of the mask the result equals ``x_0``, bit by bit. Source: Lugmayr et al. 2022,
arXiv:2201.09865, without their repeated steps.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from latent_ebm.guidance.masks import check_hole, check_mask
from samplers.base import normal_like
from samplers.checks import check_kind
from samplers.reverse import Denoise, ReverseSampler
from samplers.run_checks import check_position
from samplers.schedules import Schedule, broadcast


@dataclass(frozen=True, eq=False)
class KnownRegion(ReverseSampler):
    """``sampler``, which keeps ``x_0`` where ``mask`` is 0.

    Args:
        sampler: Any reverse sampler; its schedule, number of steps and grid are used.
        x_0: Images or latents (1 or batch, C, H, W).
        mask: 1 in the hole and 0 where ``x_0`` is known, (1 or batch, 1, H, W), floating.

    Raises:
        ValueError: For a ``mask`` that does not fit ``x_0``, holds other values than 0 and 1, or
            has a row without a hole or without anything known.
    """

    sampler: ReverseSampler
    x_0: Tensor = field(repr=False)
    mask: Tensor = field(repr=False)
    schedule: Schedule = field(init=False, repr=False)
    num_steps: int = field(init=False, repr=False)
    grid: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_kind(self, ReverseSampler, sampler=self.sampler)
        check_position(self.x_0, "x_0")
        check_mask(self.mask, self.x_0)
        check_hole(self.mask)
        for name in ("schedule", "num_steps", "grid"):
            object.__setattr__(self, name, getattr(self.sampler, name))

    def at_rows(self, index: slice, num: int) -> "KnownRegion":
        x_0, mask = (v if len(v) == 1 else v[index] for v in (self.x_0, self.mask))
        return KnownRegion(self.sampler.at_rows(index, num), x_0, mask)

    def step(
        self,
        denoise: Denoise,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """As ``ReverseSampler.step``; raises ``ValueError`` for an ``x_t`` unlike ``x_0``."""
        fits = x_t.shape[1:] == self.x_0.shape[1:] and len(self.x_0) in (1, len(x_t))
        if not fits or x_t.dtype != self.x_0.dtype:
            raise ValueError(
                f"x_t must be like x_0, {self.x_0.dtype} of shape {tuple(self.x_0.shape)}, got "
                f"{x_t.dtype} of shape {tuple(x_t.shape)}"
            )
        x_s = self.sampler.step(denoise, x_t, t, s, generator=generator)
        alpha, sigma = (broadcast(a, x_s) for a in self.schedule(s))
        noised = alpha * self.x_0 + sigma * normal_like(x_s, generator)
        known = torch.where(broadcast(s, x_s) > 0, noised, self.x_0)
        return torch.where(self.mask > 0, x_s, known)
