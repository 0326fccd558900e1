"""Times on a device: contestants take turns, and the device's own events time them.

A GPU works on after the processor has handed it a kernel, so the processor's clock says little.
Events are marks in the device's queue: the time between two of them is what the device, or the
processor that it waits for, took. On the CPU a wall clock stands in for them.
"""

import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from experiments.benchmarks.timing import Contestants

Times = dict[str, list[float]]  # contestant: lowest, median and highest milliseconds
WARM_UP = 3  # the third call of a captured chain is the first that is replayed


def is_cuda() -> bool:
    """Whether tensors are made on a GPU by default."""
    return torch.get_default_device().type == "cuda"


def milliseconds(run: Callable[[], Any]) -> float:
    """Time that ``run`` takes on the default device."""
    if not is_cuda():
        start = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - start)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def times(contestants: Contestants, rounds: int = 15, seconds: float = 5) -> Times:
    """Lowest, median and highest milliseconds of every contestant that runs here.

    There are ``rounds``, or as many as begin within ``seconds``.

    A contestant that fails is printed and left out: its library may not know this device.
    """
    running, found = dict(contestants), {}
    for name, run in contestants.items():
        try:
            for _ in range(WARM_UP):
                run()
        except Exception as error:  # a peer may fail in any way
            print(f"{name} left out: {type(error).__name__}: {str(error)[:300]}", flush=True)
            del running[name]
    start = time.perf_counter()
    for k in range(rounds):
        if k and time.perf_counter() - start > seconds:
            break
        for name, run in running.items():
            found.setdefault(name, []).append(milliseconds(run))
    return {
        name: [min(row), float(torch.tensor(row).median()), max(row)]
        for name, row in found.items()
    }


def peak_bytes(run: Callable[[], Any]) -> int:
    """Most bytes that lay on the GPU at once during ``run``; 0 on the CPU."""
    if not is_cuda():
        return 0
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated()
