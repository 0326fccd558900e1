"""Is an energy-based model its own adversary? ``python -m experiments.self_adversarial``

Energy-based models in data space are trained with a gradient flow as their generator, then with
noise of growing temperature, other horizons, gradients through the flow, persistent chains and
score matching. Of each we ask how good its short-run samples are, how good the density exp(-U) is
that it claims to be, and whether the two have anything to do with each other (claims (i) to (vi)
of the table in RESULTS.md).
"""

import argparse
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.common import HERE, Clock, cached, settings, train
from latent_ebm.learning.self_adversarial import fit_line
from latent_ebm.metrics import mmd
from latent_ebm.plots import grid_points
from latent_ebm.priors import EnergyPrior
from samplers import MALA, GradientFlow, Langevin, Sampler

MODEL, STEP, NUM_STEPS = "model.init_args", 0.01, 50
NUM, BOX, CELLS = 2000, 4.5, 300
BANDWIDTHS = {
    2: (0.1, 0.2, 0.4, 0.8, 1.6),
    64: (1.0, 2.0, 4.0, 8.0),
}  # fixed, so that values compare across rows
LENGTHS = (1, 10, 60)
TARGETS = ("moons", "eight_gaussians", "digits")


def flow(num_steps: int) -> dict[str, Any]:
    """The noise-free sampler of ``num_steps`` steps."""
    numbers = {"horizon": STEP * num_steps, "method": "euler", "num_steps": num_steps}
    return {"class_path": "samplers.GradientFlow", "init_args": numbers}


def langevin(temperature: float) -> dict[str, Any]:
    """The same steps with noise."""
    numbers = {"step_size": STEP, "num_steps": NUM_STEPS, "temperature": temperature}
    return {"class_path": "samplers.Langevin", "init_args": numbers}


def persistent(dim: int) -> dict[str, Any]:
    return {
        "class_path": "samplers.PersistentChains",
        "init_args": {"num_chains": 4000, "event_shape": dim},
    }


def variants(dim: int) -> dict[str, dict[str, Any]]:
    """What is changed in the YAML file, by name of the row."""
    sampler = f"{MODEL}.ebm.init_args.sampler"
    rows = {
        "flow": {},
        "temperature-0.25": {sampler: langevin(0.25)},
        "temperature-0.5": {sampler: langevin(0.5)},
        "temperature-1": {sampler: langevin(1.0)},
        "horizon-0.1": {sampler: flow(10)},
        "horizon-1": {sampler: flow(100)},
        "through": {f"{MODEL}.negatives": "through"},
        "through+entropy": {f"{MODEL}.negatives": "through+entropy"},
        "persistent": {sampler: langevin(1.0), f"{MODEL}.start": persistent(dim)},
        "score": {"model": "latent_ebm.learning.ScoreMatching"},
    }
    return {name: row for name, row in rows.items() if dim == 2 or "horizon" not in name}


def options(target: str, variant: str, seed: int) -> list[str]:
    """Command-line options of a run."""
    changes: dict[str, Any] = {"seed_everything": seed, "data.init_args.seed": seed}
    if target != "digits":
        changes["data.init_args.name"] = target
    changes |= variants(dim_of(target))[variant]
    return [
        f"--{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in changes.items()
    ]


def dim_of(target: str) -> int:
    return 64 if target == "digits" else 2


def file_of(target: str) -> Path:
    name = "digits" if target == "digits" else "toy2d"
    return HERE / "self_adversarial" / f"{name}.yaml"


def run(target: str, variant: str, seed: int) -> dict[str, Any]:
    """Train, then measure. A training that diverges is a result too."""
    clock = Clock()
    try:
        rule, data = train(file_of(target), options(target, variant, seed), clock)
    except FloatingPointError as error:
        return {"diverged": str(error), "seconds": clock.seconds}
    test = data.test.x.flatten(1)
    return {
        "seconds": clock.seconds,
        **measure(rule.ebm, variant, test, data.train.x.flatten(1), seed),
    }


@torch.no_grad()
def measure(
    ebm: EnergyPrior, variant: str, test: Tensor, train: Tensor, seed: int
) -> dict[str, Any]:
    """Every figure of a trained model."""
    generator = torch.Generator().manual_seed(seed)
    distance = partial(mmd, b=test, bandwidths=BANDWIDTHS[test.shape[1]])
    own = variant not in (
        "persistent",
        "score",
    )  # the others do not name a generator: a long chain samples for them
    sampler = ebm.sampler if own else MALA(STEP / 2, 40 * NUM_STEPS)
    x0 = ebm.base.sample(NUM, generator=generator)
    samples = sampler.sample(ebm, x0, generator=generator)
    density = draw_density(ebm, samples, generator)
    figures = {
        "samples": distance(samples),
        "density": distance(density),
        "base": distance(x0),
        "floor": distance(train[:NUM]),
        "points": [
            [round(v, 3) for v in row]
            for row in (samples[:600] if test.shape[1] == 2 else samples[:16]).tolist()
        ],
    }
    if test.shape[1] == 2:
        figures["grid"] = coarse(ebm)
    if own:
        figures |= induced(ebm, sampler, x0, generator) | drift(ebm, sampler, distance, generator)
    return figures


def draw_density(ebm: EnergyPrior, start: Tensor, generator: torch.Generator) -> Tensor:
    """Draws of exp(-U) / Z: from a grid in the plane, by long adjusted chains from ``start``
    elsewhere.
    """
    if start.shape[1] > 2:
        return MALA(STEP / 4, 3000).sample(ebm, start, generator=generator)
    points, cell = grid_points(BOX, CELLS), 2 * BOX / (CELLS - 1)
    pick = torch.multinomial(ebm(points).softmax(0), NUM, replacement=True, generator=generator)
    return points[pick] + cell * (torch.rand(NUM, 2, generator=generator) - 0.5)


def coarse(ebm: EnergyPrior, num: int = 60) -> list[list[float]]:
    """Density on a coarse grid, for the picture."""
    p = ebm(grid_points(4.0, num)).softmax(0).view(num, num) * ((num - 1) / 8) ** 2
    return [[round(v, 4) for v in row] for row in p.tolist()]


def induced(
    ebm: EnergyPrior, sampler: Sampler, x0: Tensor, generator: torch.Generator
) -> dict[str, float]:
    """Log-density of the generator against -U at its own samples, and by how much it contracts."""
    if isinstance(sampler, GradientFlow):
        log_prob0 = ebm.base.log_density(x0)
        x, log_prob = sampler.flow(ebm, x0, log_prob0)
        slope, correlation = fit_line(ebm(x), log_prob)
        return {
            "slope": float(slope),
            "correlation": float(correlation),
            "contraction": float((log_prob - log_prob0).mean()) / x.shape[1],
        }
    if x0.shape[1] > 2 or not isinstance(sampler, Langevin):
        return {}  # a mixture of kernels needs too many of them in more dimensions
    x = sampler.sample(ebm, x0, generator=generator)
    slope, correlation = fit_line(ebm(x), langevin_log_prob(ebm, sampler, x, generator))
    return {"slope": float(slope), "correlation": float(correlation)}


def langevin_log_prob(
    ebm: EnergyPrior, sampler: Langevin, x: Tensor, generator: torch.Generator
) -> Tensor:
    """Log-density (n,) of the chain's last position: the mean over other chains of its last
    Gaussian step.
    """
    start = ebm.base.sample(20_000, generator=generator)
    before = replace(sampler, num_steps=sampler.num_steps - 1).sample(
        ebm, start, generator=generator
    )
    means = replace(sampler, num_steps=1, temperature=0.0).sample(ebm, before)
    variance = sampler.noise_scale**2
    terms = [
        (-torch.cdist(part, means).square() / (2 * variance)).logsumexp(1) for part in x.split(200)
    ]
    return (
        torch.cat(terms) - math.log(len(means)) - x.shape[1] / 2 * math.log(2 * math.pi * variance)
    )


def drift(
    ebm: EnergyPrior, sampler: Any, distance: Any, generator: torch.Generator
) -> dict[str, float | None]:
    """Quality and mean log-density of samples of 1, 10 and 60 times the training length."""
    figures: dict[str, float | None] = {}
    for k in LENGTHS:
        longer = {"num_steps": k * sampler.num_steps}
        if isinstance(sampler, GradientFlow):
            longer["horizon"] = k * sampler.horizon  # pyright: ignore[reportArgumentType]
        try:
            x = replace(sampler, **longer).sample(
                ebm, ebm.base.sample(NUM, generator=generator), generator=generator
            )
            figures |= {f"samples_{k}x": distance(x), f"log_density_{k}x": float(ebm(x).mean())}
        except FloatingPointError:
            figures |= {f"samples_{k}x": None, f"log_density_{k}x": None}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--targets", nargs="+", default=TARGETS, choices=TARGETS)
    parser.add_argument(
        "--variants", nargs="+", default=tuple(variants(2)), choices=tuple(variants(2))
    )
    args = parser.parse_args()
    for seed in range(args.seeds):
        for target in args.targets:
            for variant in (v for v in args.variants if v in variants(dim_of(target))):
                config = settings(file_of(target), options=options(target, variant, seed))
                result = cached(
                    f"self_adversarial/{target}-{variant}-{seed}",
                    config,
                    partial(run, target, variant, seed),
                )
                if "diverged" in result:
                    print(f"  diverged: {result['diverged']}", flush=True)
                else:
                    print(
                        f"  samples {result['samples']:.4f}  density {result['density']:.4f}  "
                        f"slope {result.get('slope', math.nan):.2f}  {result['seconds']:.0f} s",
                        flush=True,
                    )
