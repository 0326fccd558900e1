r"""Whole chains as one CUDA graph: a wrapper of a sampler.

A step of a small chain is a dozen kernels that each run for a few microseconds, less than a
processor needs to launch them. A CUDA graph records the launches of a chain once and replays all
of them by a single call. It replays the same kernels on the same memory, so shapes are fixed, and
what the kernels read there (parameters, buffers, random state) may change in between.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from samplers.base import Info, LogDensity, Sampler, State, check_finite


class Graph(NamedTuple):
    """A recorded chain: it reads ``start``, writes ``end``, both (chains, \\*event)."""

    graph: Any  # torch.cuda.CUDAGraph, which builds of torch for the CPU lack
    start: Tensor
    end: Tensor


@dataclass(frozen=True)
class Captured(Sampler):
    """Run ``sample`` of ``sampler`` as one CUDA graph, with the same result as without.

    The first call for a log-density and shape runs the chain as it is, the second records it, and
    all others replay the recording. So a log-density must live as long as its recordings are worth
    something: a prior, not the posterior of one batch. Its parameters may change in place, as
    optimisers and ``load_state_dict`` change them; parameters that are moved elsewhere are noticed
    if the log-density is an ``nn.Module``. Whatever else a log-density does must not depend on
    values that the processor reads (``.item()``, ``if tensor:``).

    ``run``, ``step`` and ``rsample`` are those of ``sampler``, and so is ``sample`` on other
    devices than CUDA's. Recordings are not copied or saved with the sampler.
    """

    sampler: Sampler
    graphs: WeakKeyDictionary[Any, dict[Any, Graph | None]] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    @property
    def num_steps(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Steps of ``sampler``."""
        return self.sampler.num_steps

    def init(
        self,
        log_density: LogDensity,
        position: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        return self.sampler.init(log_density, position, generator=generator)

    def step(
        self,
        log_density: LogDensity,
        state: State,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[State, Info]:
        return self.sampler.step(log_density, state, generator=generator)

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
        precision = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        key = (position.shape, position.dtype, position.device, precision, generator)
        key = (*key, *addresses(log_density))
        graphs = self.graphs.setdefault(log_density, {})
        if key not in graphs:
            graphs[key] = None
            return self.sampler.sample(log_density, position, generator=generator)
        graph = graphs[key] or self.record(log_density, position, generator)
        graphs[key] = graph
        graph.start.copy_(position)
        graph.graph.replay()
        check_finite("position", graph.end, f"a chain of {self.sampler} diverged")
        return graph.end.clone()

    def record(self, log_density: LogDensity, position: Tensor, generator: torch.Generator | None) -> Graph:
        """The chain of ``log_density`` for starts shaped like ``position``, recorded, not run."""
        graph, start = torch.cuda.CUDAGraph(), position.detach().clone()
        if generator is not None:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            end = self.sampler.sample(log_density, start, generator=generator)
        return Graph(graph, start, end)

    def __reduce__(self) -> tuple[type["Captured"], tuple[Sampler]]:
        return Captured, (self.sampler,)


def addresses(log_density: LogDensity) -> tuple[int, ...]:
    """Where the parameters and buffers of a module lie in memory; nothing for other functions."""
    if not isinstance(log_density, nn.Module):
        return ()
    return tuple(t.data_ptr() for t in (*log_density.parameters(), *log_density.buffers()))
