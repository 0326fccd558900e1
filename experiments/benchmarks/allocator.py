"""What the C library's allocator costs a chain: ``python -m experiments.benchmarks.allocator``

Above a threshold glibc gives freed memory back to the system, and every page of it is faulted in
again at the next step. Whole processes take turns, with its defaults and with both thresholds
raised by environment variables.
"""

import os
import subprocess
import sys
import time

import torch

from experiments.benchmarks.chain import DIM, STEP_SIZE, make_prior
from experiments.benchmarks.timing import Ratios, measured, ratios, repeated
from samplers import Langevin

RAISED = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}
CHAINS, ROUNDS, STEPS = (1000, 10_000, 100_000), 7, 10


def chain_seconds(chains: int) -> float:
    """CPU seconds of a few steps, after as many to warm up."""
    prior, sampler, z = make_prior(), Langevin(STEP_SIZE, STEPS), torch.randn(chains, DIM)
    run = repeated(lambda: sampler.sample(prior, z), max(CHAINS) // chains // 10 or 1)
    run()
    start = time.process_time()
    run()
    return time.process_time() - start


def in_process(chains: int, environment: dict[str, str]) -> float:
    """``chain_seconds`` in a fresh process."""
    command = [sys.executable, "-m", "experiments.benchmarks.allocator", str(chains)]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def allocator(chains: int) -> Ratios:
    """Raised thresholds against the defaults."""
    seconds: dict[str, list[float]] = {"defaults": [], "thresholds raised": []}
    for _ in range(ROUNDS):
        for name, environment in zip(seconds, ({}, RAISED), strict=True):
            seconds[name].append(in_process(chains, environment))
    return ratios(seconds, "defaults")


def main() -> None:
    if sys.argv[1:] and sys.argv[1].isdigit():
        torch.set_num_threads(1)
        print(chain_seconds(int(sys.argv[1])))
        return
    for chains in CHAINS:
        measured(
            f"allocator-{chains}", lambda chains=chains: allocator(chains), steps=STEPS, dim=DIM
        )


if __name__ == "__main__":
    main()
