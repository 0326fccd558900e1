r"""Matrix products in low precision: a wrapper of a sampler.

A chain spends its time on gradients, and a gradient on matrix products. In bfloat16, which has
three significant digits, these cost less than half *if the device has units for them*; otherwise
they are emulated, at 2 to 15 times the cost of float32. Positions, noise and sums keep their
precision. Rounding acts as a small random error of the gradient: it biases the distribution of
an unadjusted chain, and a Metropolis test compares densities that are slightly wrong.
"""

import platform
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from samplers.base import ChainState, Info, Wrapper
from samplers.densities import LogDensity
from samplers.run_checks import check_position


@dataclass(frozen=True)
class LowPrecision(Wrapper):
    """Run ``sampler`` under ``torch.autocast``, with matrix products and convolutions in
    ``dtype``.

    ``dtype`` is "bfloat16", or "float16" on devices that have it. Products of float64 keep their
    precision. Warns once on a device without units for ``dtype``. Raises ``ValueError`` for
    another ``dtype``.
    """

    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dtype not in ("bfloat16", "float16"):
            raise ValueError(f'dtype must be "bfloat16" or "float16", got {self.dtype!r}')

    def autocast(self, x: Tensor) -> AbstractContextManager[object]:
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
    ) -> ChainState:
        with self.autocast(position):
            return self.sampler.init(log_density, position, generator=generator)

    def step(
        self,
        log_density: LogDensity,
        state: ChainState,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[ChainState, Info]:
        with self.autocast(state.position):
            return self.sampler.step(log_density, state, generator=generator)

    def run(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Iterator[tuple[ChainState, Info]]:
        run = self.sampler.run(log_density, position, generator=generator)
        while True:
            with self.autocast(position):  # not where the caller is between two steps
                reached = next(run, None)
            if reached is None:
                return
            yield reached

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
