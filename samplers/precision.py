r"""Matrix products in low precision: a wrapper of a sampler.

Gradients are where a chain's time goes, and the products inside them where a gradient's goes. In
bfloat16 they cost less than half, with three significant digits, *where the device has units for
them*; elsewhere they are emulated, at 2 to 15 times the cost of float32. Positions, noise and sums
stay as they are. Rounding acts as a small random error of the gradient: it biases the law of an
unadjusted chain, and a Metropolis test accepts by densities that are a little off.
"""

import platform
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from samplers.base import Info, Sampler, State
from samplers.checks import check_kind
from samplers.densities import LogDensity
from samplers.run_checks import check_position


@dataclass(frozen=True)
class LowPrecision(Sampler):
    """Run ``sampler`` under ``torch.autocast``, with matrix products and convolutions in
    ``dtype``.

    ``dtype`` is "bfloat16", or "float16" on devices that have it. Products of float64 stay as they
    are. Warns, once, on a device without units for ``dtype``. Raises ``ValueError`` for another
    ``dtype``.
    """

    sampler: Sampler
    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        check_kind(self, Sampler, sampler=self.sampler)
        if self.dtype not in ("bfloat16", "float16"):
            raise ValueError(f'dtype must be "bfloat16" or "float16", got {self.dtype!r}')

    @property
    def num_steps(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Steps of ``sampler``."""
        return self.sampler.num_steps

    def autocast(self, x: Tensor) -> AbstractContextManager[Any]:
        """The context in which log-densities of ``x`` are evaluated; none on the meta device,
        which knows none.
        """
        check_position(x)
        if x.is_meta:
            return nullcontext()
        warn_if_slow(x.device.type, self.dtype)
        return torch.autocast(x.device.type, getattr(torch, self.dtype))

    def init(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        with self.autocast(position):
            return self.sampler.init(log_density, position, generator=generator)

    def step(
        self, log_density: LogDensity, state: State, *, generator: torch.Generator | None = None
    ) -> tuple[State, Info]:
        with self.autocast(state.position):
            return self.sampler.step(log_density, state, generator=generator)

    def sample(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        with self.autocast(position):
            return self.sampler.sample(log_density, position, generator=generator)


@cache
def warn_if_slow(device: str, dtype: str) -> None:
    """Warn, the first time, if products in ``dtype`` are emulated on a ``device``, "cpu" or
    "cuda".
    """
    if not has_units(device, dtype):
        warnings.warn(
            f"this {device} has no units for {dtype}, so that LowPrecision makes chains some 2 "
            "to 15 times slower than "
            "float32: leave it out here",
            stacklevel=3,
        )


def has_units(device: str, dtype: str) -> bool:
    """Whether a ``device`` multiplies in ``dtype`` itself; other devices than "cpu" and "cuda" are
    taken to.
    """
    if device == "cuda":
        return dtype == "float16" or torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return True
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == "float16":
        return torch.ops.mkldnn._is_mkldnn_fp16_supported()
    if platform.machine().lower() in (
        "x86_64",
        "amd64",
    ):  # where oneDNN calls bfloat16 supported if it can emulate it
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
