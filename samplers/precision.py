r"""Matrix products in low precision: a wrapper of a sampler.

Gradients are where a chain's time goes, and the products inside them where a gradient's goes. In bfloat16 they cost less
than half, with three significant digits; positions, noise and sums stay as they are. Rounding acts as a small random error
of the gradient: it biases the law of an unadjusted chain, and a Metropolis test accepts by densities that are a little off.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.base import Info, LogDensity, Sampler, State


@dataclass(frozen=True)
class LowPrecision(Sampler):
    """Run ``sampler`` under ``torch.autocast``, with matrix products and convolutions in ``dtype``.

    ``dtype`` is "bfloat16", or "float16" on devices that have it. Products of float64 stay as they are. Raises
    ``ValueError`` for another ``dtype``.
    """

    sampler: Sampler
    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        if self.dtype not in ("bfloat16", "float16"):
            raise ValueError(f'dtype must be "bfloat16" or "float16", got {self.dtype!r}')

    @property
    def num_steps(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Steps of ``sampler``."""
        return self.sampler.num_steps

    def autocast(self, x: Tensor) -> torch.autocast:
        """The context in which log-densities of ``x`` are evaluated."""
        return torch.autocast(x.device.type, getattr(torch, self.dtype))

    def init(self, log_density: LogDensity, position: Tensor, *, generator: torch.Generator | None = None) -> State:
        with self.autocast(position):
            return self.sampler.init(log_density, position, generator=generator)

    def step(
        self, log_density: LogDensity, state: State, *, generator: torch.Generator | None = None
    ) -> tuple[State, Info]:
        with self.autocast(state.position):
            return self.sampler.step(log_density, state, generator=generator)

    def sample(self, log_density: LogDensity, position: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        with self.autocast(position):
            return self.sampler.sample(log_density, position, generator=generator)
