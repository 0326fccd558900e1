r"""Whole chains as one CUDA graph: a wrapper of a sampler.

A step of a small chain is a dozen kernels that each run for a few microseconds, which is less time
than the processor needs to launch them. A CUDA graph records all launches of a chain once and
replays them by a single call. It replays the same kernels on the same memory. Shapes are therefore
fixed, but what the kernels read (parameters, buffers, random state) may change in between.
"""

from abc import abstractmethod
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from samplers.base import ChainState, Info, Sampler, Wrapper
from samplers.densities import Density, LogDensity
from samplers.run_checks import check_finite


class Given(Density):
    """A log-density given ``data``. Its ``family``, a posterior's model for example, stays the
    same when the data change.
    """

    def __init__(self, family: object, data: Tensor) -> None:
        self.family, self.data = family, data

    @abstractmethod
    def given(self, data: Tensor) -> "Given":
        """The log-density of the same family given other ``data``."""


class Graph(NamedTuple):
    """A recorded chain: it reads ``start`` (chains, \\*event) and ``data``, and writes ``end``."""

    graph: "torch.cuda.CUDAGraph"  # a string, because CPU builds of torch lack this class
    start: Tensor
    data: Tensor | None
    end: Tensor

    def replay(self, position: Tensor, data: Tensor | None) -> Tensor:
        """The end of the chain from ``position``, in memory that the next replay writes over."""
        self.start.copy_(position)
        if self.data is not None and data is not None:
            self.data.copy_(data)
        self.graph.replay()
        return self.end


@dataclass(frozen=True)
class Captured(Wrapper):
    """Run ``sample`` of ``sampler`` as one CUDA graph, with the same result as without. A replay
    checks only that the end is finite; the first call makes all checks of the sampler.

    For each log-density and shape, the first call runs the chain as it is, the second records it,
    and all later calls replay the recording. A recording lives as long as its log-density. The
    posteriors of one model (a family of ``Given``) share a recording. Parameters may change in
    place, as optimisers and ``load_state_dict`` change them. If they move to other memory, the
    chain is recorded anew, provided that the log-density or its family is an ``nn.Module``. A
    log-density must not branch on values that the processor reads (``.item()``, ``if tensor:``).

    ``run``, ``step`` and ``rsample`` are those of ``sampler``, and so is ``sample`` on devices
    other than CUDA. Recordings are not copied or saved with the sampler.
    """

    graphs: WeakKeyDictionary[object, dict[Hashable, Graph | None]] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    @property
    def has_rsample(self) -> bool:
        return self.sampler.has_rsample

    def run(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Iterator[tuple[ChainState, Info]]:
        return self.sampler.run(log_density, position, generator=generator)

    def rsample(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return self.sampler.rsample(log_density, position, generator=generator)

    def sample(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        if position.device.type != "cuda":
            return self.sampler.sample(log_density, position, generator=generator)
        given = isinstance(log_density, Given)
        family, data = (log_density.family, log_density.data) if given else (log_density, None)
        states = addresses(family), modes(family)
        key = (layout(position), layout(data), precision(), generator, *states)
        graphs = self.graphs.setdefault(family, {})
        if key not in graphs:
            graphs[key] = None
            return self.sampler.sample(log_density, position, generator=generator)
        graphs[key] = graph = graphs[key] or self.record(log_density, position, generator)
        end = graph.replay(position, data).clone()
        check_finite("position", end, f"a chain of {self.sampler} diverged")
        return end

    def record(
        self, log_density: LogDensity, position: Tensor, generator: torch.Generator | None
    ) -> Graph:
        """Record the chain for starts of the shape of ``position``, without running it."""
        graph, start, data = torch.cuda.CUDAGraph(), position.detach().clone(), None
        if generator is not None:
            graph.register_generator_state(generator)
        # without its cache, autocast converts the parameters anew in every replay
        uncached = torch.autocast("cuda", precision(), precision() is not None, False)
        if isinstance(log_density, Given):
            data = log_density.data.clone()
        with uncached, torch.cuda.graph(graph):
            if isinstance(log_density, Given) and data is not None:
                log_density = log_density.given(data)
            end = self.sampler.sample(log_density, start, generator=generator)
        return Graph(graph, start, data, end)

    def __reduce__(self) -> tuple[type["Captured"], tuple[Sampler]]:
        return Captured, (self.sampler,)


def layout(x: Tensor | None) -> Hashable:
    """The properties of a tensor that a recording depends on."""
    return () if x is None else (x.shape, x.dtype, x.device)


def precision() -> torch.dtype | None:
    """The precision that autocast asks for on CUDA, if it is on."""
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None


def addresses(family: object) -> tuple[int, ...]:
    """The memory addresses of a module's parameters and buffers; empty for other functions."""
    if not isinstance(family, nn.Module):
        return ()
    return tuple(t.data_ptr() for t in (*family.parameters(), *family.buffers()))


def modes(family: object) -> tuple[bool, ...]:
    """Whether each part of a module is in training mode; empty for other functions."""
    return tuple(m.training for m in family.modules()) if isinstance(family, nn.Module) else ()
