"""The same random numbers on every device and in every precision."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PLACE = ("device", "dtype", "layout", "pin_memory", "generator")


class SharedNoise(TorchDispatchMode):
    """While this is on, random numbers come from one stream on the CPU, real ones in float64.

    A program that is run twice under the same ``seed``, on another device or in another precision,
    sees the same noise up to rounding, so that what it computes can be compared.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.generator = torch.Generator("cpu").manual_seed(seed)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name.endswith("_"):
            return args[0].copy_(self.draw(name, args[0], *args[1:], **kwargs))
        tensors = [a for a in args if isinstance(a, Tensor)]
        device = kwargs.get("device") or (tensors[0].device if tensors else "cpu")
        if name.endswith("_like"):
            return self.make(name.removesuffix("_like"), args[0].shape).to(args[0])
        made = self.make(name, *args, **kwargs).to(device)
        return made.to(
            kwargs.get("dtype") or made.dtype if name not in ("rand", "randn") else real(kwargs)
        )

    def draw(self, name: str, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """What the method ``name`` that fills a tensor writes into one like ``x``."""
        dtype = torch.float64 if x.is_floating_point() else x.dtype
        empty = torch.empty(x.shape, dtype=dtype, device="cpu")
        return getattr(empty, name)(*on_cpu(args), **plain(kwargs), generator=self.generator)

    def make(self, name: str, *args: Any, **kwargs: Any) -> Tensor:
        """What the function ``name`` returns."""
        dtype = {"dtype": torch.float64} if name in ("rand", "randn") else {}
        with torch.device("cpu"):
            return getattr(torch, name)(
                *on_cpu(args), **plain(kwargs), **dtype, generator=self.generator
            )


def plain(kwargs: dict[str, Any]) -> dict[str, Any]:
    """``kwargs`` without what says where a tensor lies."""
    return {name: value for name, value in kwargs.items() if name not in PLACE}


def on_cpu(args: tuple) -> list[Any]:
    return [a.cpu() if isinstance(a, Tensor) else a for a in args]


def real(kwargs: dict[str, Any]) -> torch.dtype:
    return kwargs.get("dtype") or torch.get_default_dtype()
