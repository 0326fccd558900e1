"""What a gradient flow costs: ``python -m experiments.benchmarks.flow``

Gradients and time until samples are as good as they get, of a flow and of Langevin dynamics, each
with a model that was trained on its own samples; and the exact trace of the Hessian, which the
density along a flow needs, against a gradient.
"""

from functools import partial

import torch
from torch import Tensor

from experiments.benchmarks.timing import ratios, take_turns
from experiments.common import HERE, cached, results, settings, train
from experiments.self_adversarial.run import BANDWIDTHS, options
from experiments.tables import spread, table
from latent_ebm import EnergyPrior, GaussianPrior
from latent_ebm.metrics import mmd
from latent_ebm.networks import EnergyMLP
from samplers import Density, GradientFlow, Langevin, LogDensity, Sampler, value_and_grad
from samplers.gradient_flow import score_and_laplacian

CONFIG, TARGET, NUM = HERE / "self_adversarial" / "toy2d.yaml", "moons", 2000
HORIZON, COUNTS, TOLERANCES = 0.5, (2, 5, 10, 20, 50), (1e-1, 1e-2, 1e-3)
DIMS, CHAINS = (2, 10, 100), 1000


class Counted(Density):
    """``log_density``, counting its gradients."""

    def __init__(self, log_density: LogDensity) -> None:
        self.log_density, self.calls = log_density, 0

    def __call__(self, x: Tensor) -> Tensor:
        return self.log_density(x)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return value_and_grad(self.log_density, x)


def flows() -> dict[str, Sampler]:
    """Solvers of the flow that the model was trained with."""
    fixed: dict[str, Sampler] = {
        f"flow, {method} {n}": GradientFlow(HORIZON, method, n)
        for method in ("euler", "midpoint")
        for n in COUNTS
    }
    return fixed | {
        f"flow, dopri5 {t:g}": GradientFlow(HORIZON, rtol=t, atol=t) for t in TOLERANCES
    }


def chains() -> dict[str, Sampler]:
    """Langevin chains over the same time."""
    return {f"Langevin {n}": Langevin(HORIZON / n, n) for n in COUNTS}


def quality(seed: int) -> dict[str, dict[str, float]]:
    """Figures of all samplers, by name, each on the model that was trained by its like; ``MMD^2``
    of the base beside.
    """
    return {**compare("flow", flows(), seed), **compare("temperature-1", chains(), seed)}


def compare(variant: str, samplers: dict[str, Sampler], seed: int) -> dict[str, dict[str, float]]:
    """Gradients, time in gradients, and MMD^2 to test data of each sampler on the model of
    ``variant``.
    """
    rule, data = train(CONFIG, options(TARGET, variant, seed))
    ebm, test = rule.ebm.requires_grad_(False), data.test.x
    generator = torch.Generator().manual_seed(seed)
    x0 = ebm.base.sample(NUM, generator=generator)
    figures = {}
    for name, sampler in samplers.items():
        counted = Counted(ebm)
        try:
            x = sampler.sample(counted, x0, generator=generator)
        except FloatingPointError:  # too long a step
            continue
        figures[name] = {"gradients": float(counted.calls), "mmd": mmd(x, test, BANDWIDTHS[2])}
    contestants = {name: partial(samplers[name].sample, ebm, x0) for name in figures}
    times = ratios(
        take_turns({"gradient": partial(value_and_grad, ebm, x0), **contestants}), "gradient"
    )
    base = mmd(x0, test, BANDWIDTHS[2])
    return {
        name: figure | {"time": times[name][1], "base": base} for name, figure in figures.items()
    }


def traces() -> dict[str, dict[str, tuple[float, float, float]]]:
    """CPU time of score and trace in units of a gradient, by dimension."""
    return {str(dim): trace(dim) for dim in DIMS}


def trace(dim: int) -> dict[str, tuple[float, float, float]]:
    """Exact trace in closed form and recorded, and Hutchinson's with one probe, of a perceptron's
    energy.
    """
    ebm = EnergyPrior(EnergyMLP(dim, (200, 200)), GaussianPrior(dim), Langevin(0.1, 1))
    ebm.requires_grad_(False)
    x = torch.randn(CHAINS, dim)
    signs = torch.randn(1, CHAINS, dim).sign()
    with torch.no_grad():
        seconds = take_turns(
            {
                "gradient": partial(value_and_grad, ebm, x),
                "exact": partial(score_and_laplacian, ebm, x),
                "recorded": partial(score_and_laplacian, lambda x: ebm(x), x),
                "one probe": partial(score_and_laplacian, ebm, x, signs),
            }
        )
    return ratios(seconds, "gradient")


def section() -> str:
    """What the report says of it."""
    stored = results("benchmarks")
    runs = [run for name, run in stored.items() if name.startswith("flow-quality")]
    if not runs:
        return ""
    rows = [
        [name, *(spread(run[name][key] for run in runs) for key in ("gradients", "time", "mmd"))]
        for name in runs[0]
    ]
    costs = [
        [
            dim,
            *(
                "{1:.1f} ({0:.1f} to {2:.1f})".format(*row[kind])
                for kind in ("exact", "recorded", "one probe")
            ),
        ]
        for dim, row in stored["flow-trace"].items()
    ]
    return f"""## What a gradient flow costs: `python -m experiments.benchmarks.flow`

The data are two moons. One model was trained on samples of the flow, in 50 Euler steps over a
horizon of .5, and another one on samples of Langevin dynamics, in 50 steps over the same time.
Either is then sampled with more or fewer gradients. MMD² is that of 2,000 samples to test data.
Time is in units of one gradient at all samples (medians of 7 rounds in which the contestants take
turns).

{table(["sampler", "gradients", "time / gradient", "MMD²"], rows)}
{cheapest(runs)}

Score and trace of the Hessian for a perceptron of 2 x 200 units at 1,000 points, as a multiple of
a gradient (median, lowest to highest of 7 rounds). The exact trace carries one
tangent per dimension forwards; by autograd it takes one Hessian-vector product per dimension, in
one batched pass.

{table(["dimension", "exact trace", "the same by autograd", "Hutchinson, one probe"], costs)}"""


def cheapest(runs: list[dict[str, dict[str, float]]]) -> str:
    """The sentence on equal quality: the fewest gradients by which MMD^2 falls below a tenth of
    the base's.
    """
    parts = []
    for kind in ("flow", "Langevin"):
        good = [
            [
                row
                for name, row in run.items()
                if name.startswith(kind) and row["mmd"] < row["base"] / 10
            ]
            for run in runs
        ]
        best = [min(rows, key=lambda row: row["gradients"]) for rows in good if rows]
        cost = {key: spread(row[key] for row in best) for key in ("gradients", "time")}
        parts.append(
            f"{kind}: {cost['gradients']} gradients, {cost['time']} times the time of one"
        )
    return f"The cheapest way to a tenth of the base's MMD² takes, {'; '.join(parts)}."


def main() -> None:
    for seed in range(3):
        config = settings(
            CONFIG, seed=seed, samplers=[str(s) for s in (*flows().values(), *chains().values())]
        )
        cached(f"benchmarks/flow-quality-{seed}", config, partial(quality, seed))
    cached("benchmarks/flow-trace", {"dims": DIMS, "chains": CHAINS, "clock": "CPU"}, traces)


if __name__ == "__main__":
    main()
