"""What the report says of speed, from the stored outputs of this package."""

from typing import NamedTuple

import numpy as np

from experiments.common import results
from experiments.tables import table


class Question(NamedTuple):
    """``script`` of this package, the ``prefix`` of its outputs, and what its ``unit`` is."""

    script: str
    prefix: str
    title: str
    unit: str


QUESTIONS = (
    Question(
        "chain",
        "chain-",
        "A Langevin step in latent space",
        "its six matrix products; columns: activation and chains",
    ),
    Question(
        "precision", "precision", "Distribution of chains in bfloat16", "other chains in float32"
    ),
    Question("energies", "energies-", "Energies in the plane, 10,000 chains", "drawing the noise"),
    Question(
        "posterior",
        "posterior-",
        "A posterior step through a convolutional decoder, batch 100",
        "the published loop with the same network; columns: image and channels",
    ),
    Question(
        "training",
        "training-step-",
        "A training step, 28x28, 60 prior and 40 posterior steps",
        "the published algorithm with the same networks; columns: channels of the decoder",
    ),
    Question(
        "training",
        "training-pool",
        "Moving a pool of 4,000 as the third stage closes",
        "the prior chain of one step of `mle`",
    ),
    Question(
        "mixing",
        "mixing",
        "CPU time an effective sample, 10 correlated dimensions",
        "MALA of this library",
    ),
    Question(
        "density",
        "density",
        "A gradient flow and its density, 10 dimensions, 20 Euler steps",
        "the flow by hand",
    ),
    Question(
        "distilling",
        "distilling-",
        "A step of EM distillation",
        "its network passes; columns: Langevin steps",
    ),
    Question(
        "detector",
        "detector-",
        "A detector: scoring 10,000 rows, fitting 2,000",
        "PyOD's AutoEncoder",
    ),
    Question("startup", "startup-imports", "Importing", "`import torch`"),
    Question(
        "startup",
        "startup-trainer-",
        "Training steps",
        "a loop without Lightning; the smallest and README's quickstart",
    ),
    Question(
        "scaling", "scaling-chains", "Cost of a chain over the number of chains", "that at 1,000"
    ),
    Question(
        "allocator",
        "allocator-",
        "Chains and the allocator; columns: chains",
        "the defaults of glibc",
    ),
    Question(
        "scaling", "scaling-dimensions", "Cost of 1,000 chains over latent dimensions", "that at 8"
    ),
    Question(
        "ranks", "ranks", "Wall time of a training step in data-parallel processes", "one process"
    ),
    Question(
        "scaling",
        "scaling-stages-",
        "Value and gradient of a ratio prior",
        "the products of all stages in one batch; columns: chains and stages",
    ),
)


def section() -> str:
    """All tables."""
    stored = results("benchmarks")
    parts = [part for question in QUESTIONS if (part := answer(question, stored))]
    head = """## Speed: `python -m experiments.benchmarks.<script>`

Ratios of CPU time on one thread, or of wall time where it is said. Contestants take turns in one
process; medians, and in brackets the lowest to the highest, of 7 rounds."""
    return "\n\n".join([head, *parts, exponents(stored)]) if parts else ""


def exponents(stored: dict[str, dict[str, list[float]]]) -> str:
    """Slopes of log cost over log size, by least squares through the medians."""
    scaling = {name: found for name, found in stored.items() if name.startswith("scaling-")}
    medians = {
        name: {key: row[1] for key, row in found.items()} for name, found in scaling.items()
    }
    costs = {
        "chains": {
            int(n): v * int(n) for n, v in medians.get("scaling-chains", {}).items() if n.isdigit()
        },
        "latent dimensions": {
            int(n): v for n, v in medians.get("scaling-dimensions", {}).items() if n.isdigit()
        },
    }
    for chains in (100, 1000):
        found = {
            k: medians[name]
            for k in (1, 2, 4, 8)
            if (name := f"scaling-stages-{chains}-{k}") in medians
        }
        costs[f"stages, {chains} chains"] = {
            k: v["unit, ms"] * v["stacked"] for k, v in found.items()
        }
    rows = [
        [name, f"{min(c)} to {max(c)}", f"{slope(c):.2f}"]
        for name, c in costs.items()
        if len(c) > 1
    ]
    head = "Exponents fitted to these costs (`scaling`)."
    return f"{head}\n\n{table(['over', 'from', 'exponent'], rows)}" if rows else ""


def slope(costs: dict[int, float]) -> float:
    """Of log cost over log size."""
    return float(np.polyfit(np.log(list(costs)), np.log(list(costs.values())), 1)[0])


def answer(question: Question, stored: dict[str, dict[str, list[float]]]) -> str:
    """A table with a row a contestant and a column a setting."""
    found = {name: row for name, row in stored.items() if name.startswith(question.prefix)}
    if not found:
        return ""
    contestants = dict.fromkeys(name for row in found.values() for name in row)
    rows = [[name, *(cell(row.get(name)) for row in found.values())] for name in contestants]
    columns = [name.removeprefix(question.prefix) or "ratio" for name in found]
    return (
        f"{question.title} (`{question.script}`). Unit: "
        f"{question.unit}.\n\n{table(['', *columns], rows)}"
    )


def cell(row: list[float] | None) -> str:
    """``median (lowest to highest)``."""
    return "-" if row is None else "{1:.3g} ({0:.3g} to {2:.3g})".format(*row)
