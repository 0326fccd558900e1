"""How fast the library is on a GPU: ``python -m experiments.gpu.speed``

Two ceilings of the card first, then chains, posterior and training steps, distillation, detectors
and effective samples, each beside what else one could run. Medians of milliseconds between events
of the device. ``--device cpu --tiny`` runs the same script anywhere in a minute. Tables are added
to those of the same card that the file has. Peers come with ``pip install -e ".[bench]"``.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks import chain, distilling, mixing, peers, posterior, training
from experiments.benchmarks.detector import rows
from experiments.benchmarks.timing import available
from experiments.common import OUTPUTS, write_json
from experiments.gpu.timing import Times, is_cuda, peak_bytes, times
from latent_ebm import MCMCPosterior
from latent_ebm.detection import LatentEBMDetector
from latent_ebm.detection.parts import energy
from samplers import HMC, MALA, Captured, Langevin, LowPrecision, Sampler, ess

SIZES = {"CIFAR": (3, 32, 32), "CelebA": (3, 64, 64)}
COMPILED = 1000  # chains with which torch.compile is compared


def ceilings(size: int) -> dict[str, float]:
    """Bytes a second of a copy (read and written), and operations a second of matrix products."""
    x = torch.randn(size, size)
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    factors = {name: torch.randn(size, size).to(dtype) for name, dtype in kinds.items()}
    y, big = torch.empty_like(x), torch.randn(8, size, size)
    copy = torch.empty_like(big)
    runs = {name: partial(torch.mm, a, a, out=torch.empty_like(a)) for name, a in factors.items()}
    found = times({"copy": lambda: copy.copy_(big), "small copy": lambda: y.copy_(x), **runs})
    flops = {f"{name} operations/s": 2e3 * size**3 / found[name][1] for name in kinds}
    return {"copied bytes/s": 2e3 * big.numel() * 4 / found["copy"][1], **flops}


def chains(num: int) -> Times:
    """A chain of 60 steps in 100 dimensions."""
    prior, z = chain.make_prior(), torch.randn(num, chain.DIM)
    captured, products = Captured(prior.sampler), chain.floor(prior.network, num)  # pyright: ignore
    runs = dict(chain.contestants("gelu", num))
    runs["products, captured"] = replayed(products)
    runs["latent-ebm, captured"] = partial(captured.sample, prior, z)
    low, rounded = Captured(LowPrecision(prior.sampler)), Captured(prior.sampler)
    runs["latent-ebm, captured, bfloat16"] = partial(low.sample, prior, z)
    runs["latent-ebm, captured, TF32"] = in_tf32(partial(rounded.sample, prior, z))
    settings = (z, chain.STEP_SIZE, chain.STEPS)
    if num == COMPILED:
        overhead = peers.compiled_step(prior.log_density, *settings, mode="reduce-overhead")
        runs["autograd, torch.compile, reduce-overhead"] = overhead
    else:
        del runs["autograd, torch.compile"]  # compiling takes longer than all else
    return times(runs)


def in_tf32(run: Callable[[], Any]) -> Callable[[], Any]:
    """``run`` with products of float32 rounded to ten bits, as XLA's are by default."""

    def rounded() -> Any:
        torch.set_float32_matmul_precision("high")
        found = run()
        torch.set_float32_matmul_precision("highest")
        return found

    return rounded


def replayed(run: Callable[[], Any]) -> Callable[[], Any]:
    """``run`` as a CUDA graph; itself on the CPU."""
    if not is_cuda():
        return run
    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def posterior_steps(name: str, channels: int) -> Times:
    """Ten steps of 100 posterior chains through a decoder."""
    runs = dict(posterior.contestants(SIZES[name], channels))
    for plain in ("latent-ebm", "latent-ebm, bfloat16"):
        sample: Any = runs[plain]
        captured = Captured(sample.func.__self__)
        runs[f"{plain}, captured"] = partial(captured.sample, *sample.args)
    return times(runs)


def training_steps(channels: int, steps: int) -> Times:
    """A training step of batch 100 with 60 prior and so many posterior steps."""
    shape, posterior = SIZES["CIFAR"], Langevin(training.STEP_SIZE, steps)
    x, low = torch.rand(training.BATCH, *shape) * 2 - 1, LowPrecision
    chains = {"": (training.PRIOR, posterior), ", bfloat16": (low(training.PRIOR), low(posterior))}
    runs = dict(training.contestants(channels, shape, steps))
    for name, pair in chains.items():
        prior, posterior = map(Captured, pair)
        inference = MCMCPosterior(posterior)
        rules = {
            "mle": training.mle(prior, inference, shape, channels),
            "ratio": training.ratio(inference, shape, channels),
        }
        runs |= {f"{k}, captured{name}": training.rule_step(rule, x) for k, rule in rules.items()}
    return times(runs, 7)


def distillation(num_steps: int, channels: int, batch_size: int) -> Times:
    """A step of EM distillation at CIFAR size, and its most bytes."""
    runs = distilling.contestants(num_steps, SIZES["CIFAR"], channels, batch_size)
    found = times(runs, 7)
    return {**found, "peak MB of step": [peak_bytes(runs["step"]) / 1e6] * 3}


def detector(num: int) -> Times:
    """The energy of ``num`` rows of 20 columns under 2,000 kernels."""
    device = torch.get_default_device()
    fitted = LatentEBMDetector(random_state=0, max_stages=0).fit(rows(2000, 1))
    x = torch.as_tensor(fitted.scaler_.transform(rows(num, 2))).to(device)
    views = [view.to(device) for view in fitted.views_]

    @torch.no_grad()
    def score() -> Tensor:
        return energy(views, x, ("reconstruction", "prior"))

    return times({"LatentEBMDetector": score}, 3)


def effective_samples() -> dict[str, float]:
    """Effective samples a second (of the worst coordinate) of MALA and HMC."""
    runs: dict[str, Callable[[], Tensor]] = {
        "latent-ebm MALA": draws(MALA(mixing.MALA_STEP, 1)),
        "latent-ebm HMC": draws(HMC(mixing.HMC_STEP, mixing.LEAPFROG, 1)),
        "latent-ebm MALA, captured": draws(Captured(MALA(mixing.MALA_STEP, 1))),
        "latent-ebm HMC, captured": draws(Captured(HMC(mixing.HMC_STEP, mixing.LEAPFROG, 1))),
    }
    for kind in ("MALA", "HMC"):
        runs |= available({f"blackjax {kind}": partial(mixing.blackjax, kind)})
    seconds = {name: row[1] / 1e3 for name, row in times(runs, 3).items()}
    return {name: float(ess(runs[name]()).min()) / cost for name, cost in seconds.items()}


def draws(sampler: Sampler) -> Callable[[], Tensor]:
    """Positions (DRAWS, chains, DIM) of a sampler of one step, one after the other."""
    density, start = mixing.target(), mixing.target().sample(mixing.CHAINS)

    def run() -> Tensor:
        x, found = start, []
        for _ in range(mixing.DRAWS):
            x = sampler.sample(density, x)
            found.append(x)
        return torch.stack(found)

    return run


def plan(tiny: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every table by name."""
    if tiny:
        return {
            "ceilings": partial(ceilings, 128),
            "chain-20": partial(chains, 20),
            "posterior-CIFAR-2": partial(posterior_steps, "CIFAR", 2),
            "training-60/2-2": partial(training_steps, 2, 2),
            "distillation-1": partial(distillation, 1, 8, 2),
            "detector-500": partial(detector, 500),
        }
    parts: dict[str, Callable[[], dict[str, Any]]] = {"ceilings": partial(ceilings, 8192)}
    parts |= {f"chain-{n}": partial(chains, n) for n in (100, 1000, 10_000, 100_000)}
    parts |= {f"posterior-{name}-64": partial(posterior_steps, name, 64) for name in SIZES}
    parts |= {f"training-60/{k}-64": partial(training_steps, 64, k) for k in (20, 40)}
    parts |= {f"distillation-{k}": partial(distillation, k, 64, 64) for k in (1, 4, 16)}
    return {**parts, "detector-1000000": partial(detector, 10**6), "ess": effective_samples}


def card(device: str) -> dict[str, str]:
    """What this was measured on."""
    known = torch.device(device).type == "cuda"
    name = torch.cuda.get_device_name() if known else platform.processor() or "CPU"
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}


def begun(path: Path, device: str) -> dict[str, Any]:
    """The results in ``path`` to go on with, or those of a new file.

    Raises ``ValueError`` for results of another card, with which new ones must not be mixed.
    """
    found: dict[str, Any] = {"card": card(device)}
    if not path.exists():
        return found
    before = json.loads(path.read_text())["result"]
    if before["card"] != found["card"]:
        raise ValueError(f"{path} must be of {found['card']}, got results of {before['card']}")
    return before


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="device (default: cuda)")
    parser.add_argument(
        "--seconds", type=float, default=240, help="start no table after (default: 240)"
    )
    parser.add_argument(
        "--out", type=Path, default=OUTPUTS / "gpu" / "speed.json", help="file to write"
    )
    parser.add_argument(
        "--tables", nargs="*", default=[""], help="how names of tables begin (default: all)"
    )
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the script")
    args = parser.parse_args()
    torch.set_default_device(args.device)
    found = begun(args.out, args.device)
    start = time.perf_counter()
    for name, measure in plan(args.tiny).items():
        if not name.startswith(tuple(args.tables)):
            continue
        if time.perf_counter() - start > args.seconds:
            print(f"{name}: no time left", flush=True)
            continue
        found[name] = measure()
        print(f"{time.perf_counter() - start:.0f} s {name}: {json.dumps(found[name])}", flush=True)
        write_json(args.out, {"config": found["card"], "result": found})
        if is_cuda():
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
