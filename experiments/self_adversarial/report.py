"""The section of the report on energy-based models as their own adversaries: six claims,
measured.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from experiments.common import results
from experiments.pictures import save
from experiments.self_adversarial.run import TARGETS, variants
from experiments.tables import spread, table
from latent_ebm.data import Digits, Toy2D
from latent_ebm.plots import image_grid, new_figure, styled

Seed = dict[str, dict[str, Any]]  # results of one seed by variant
FAR = 3.0  # a distance so many times another one is called larger
TEMPERATURES = ("temperature-0.25", "temperature-0.5", "temperature-1")
HORIZONS = ("horizon-0.1", "flow", "horizon-1")
COLUMNS = {
    "samples": "MMD² of samples",
    "density": "MMD² of exp(-U)",
    "slope": "slope",
    "correlation": "correlation",
    "contraction": "log-density gained / dim",
    "samples_10x": "samples at 10x",
    "samples_60x": "at 60x",
    "seconds": "CPU s",
}

SHOWN = "Data and samples of the first seed, above, and the square root of exp(-U), below."
SHOWN_IMAGES = "Data and samples of the first seed; trainings that diverged are left out."


def unlike_density(run: dict[str, Any]) -> bool:
    """Samples are near the data and exp(-U) is not."""
    return run["density"] > FAR * max(run["samples"], 0.0)


def noisy(seed: Seed) -> list[dict[str, Any]]:
    """Runs with noise that did not diverge, of rising temperature."""
    return [seed[name] for name in TEMPERATURES if "samples" in seed[name]]


def spoilt(run: dict[str, Any]) -> bool:
    """Samples of a chain ten times as long are worse, or there are none."""
    return run["samples_10x"] is None or run["samples_10x"] > FAR * run["samples"]


# What is claimed, and whether it holds in the results of one seed; a claim is left out where its
# runs are missing.
CLAIMS: dict[str, Callable[[Seed], bool]] = {
    "(i) log p_T is not -U: the slope lies outside .8 to 1.25": lambda s: (
        not 0.8 < s["flow"]["slope"] < 1.25
    ),
    "(ii) samples of the flow are good: MMD² below a tenth of the base's": lambda s: (
        s["flow"]["samples"] < s["flow"]["base"] / 10
    ),
    "(iii) exp(-U) is poor: its MMD² is over 3 times that of the samples": lambda s: (
        unlike_density(s["flow"])
    ),
    "(iv) horizons from .1 to 1: (iii) for each": lambda s: all(
        unlike_density(s[v]) for v in HORIZONS
    ),
    "(iv) noise changes nothing in kind: (iii) at temperatures .25, .5 and 1, if trained": (
        lambda s: all(unlike_density(run) for run in noisy(s))
    ),
    (
        "(iv) noise merely reduces quality: at the highest of these samples are worse than the "
        "flow's"
    ): lambda s: noisy(s)[-1]["samples"] > s["flow"]["samples"],
    "(v) 10 times the training length spoils the flow's samples: MMD² over 3 times": lambda s: (
        spoilt(s["flow"])
    ),
    "(vi) the flow contracts: its samples gain log-density on average": lambda s: (
        s["flow"]["contraction"] > 0
    ),
}


def seeds(target: str) -> list[Seed]:
    """Stored results of ``target``, one dictionary by variant a seed."""
    found: dict[str, Seed] = {}
    for name, run in results("self_adversarial").items():
        if name.startswith(target + "-"):
            variant, seed = name.removeprefix(target + "-").rsplit("-", 1)
            found.setdefault(seed, {})[variant] = run
    return [found[seed] for seed in sorted(found)]


def count(holds: Callable[[Seed], bool], runs: list[Seed]) -> tuple[int, int]:
    """In how many seeds a claim holds, of those in which it could be asked."""
    verdicts = []
    for run in runs:
        try:
            verdicts.append(holds(run))
        except KeyError:  # not run on this target, or diverged
            continue
    return sum(verdicts), len(verdicts)


def verdict(held: int, asked: int) -> str:
    """The sentence that a claim gets."""
    if held == asked:
        return "The claim held in every run."
    return f"The claim held in {held} of {asked} runs." if held else "The claim held in no run."


def section() -> str:
    """The claim table, what was measured, and the pictures."""
    stored = {target: seeds(target) for target in TARGETS}
    stored = {target: runs for target, runs in stored.items() if runs}
    if not stored:
        return ""
    rows = []
    for claim, holds in CLAIMS.items():
        counts = [count(holds, runs) for runs in stored.values()]
        cells = [f"{held} of {asked}" if asked else "-" for held, asked in counts]
        rows.append(
            [claim, *cells, verdict(*(sum(column) for column in zip(*counts, strict=True)))]
        )
    for target, runs in stored.items():
        draw = draw_images if target == "digits" else draw_plane
        if any("points" in run for run in runs[0].values()):
            save(draw(target, runs[0]), f"self_adversarial-{target}", colours=16)
    parts = "\n".join(measured(target, runs) for target, runs in stored.items())
    return f"""## An energy as its own adversary: `python -m experiments.self_adversarial`

Energies in data space (arXiv:2102.11757) are trained on samples of their own gradient flow. The
row `flow` has a horizon of .5 and 50 Euler steps; every other row changes one thing:

- `horizon-T`: a horizon of T;
- `temperature-T`: the same steps with noise of temperature T, so that 1 is Langevin dynamics;
- `through`: the gradient of the loss also goes through the flow; `through+entropy` adds the
  entropy of its samples;
- `persistent`: chains go on from one update to the next;
- `score`: score matching, without samples.

Six claims of the paper, and in how many seeds each held:

{table(["claim", *stored, "verdict"], rows)}
Slope and correlation are those of log p_T, the log-density of the generator, against -U at its own
samples; a model of maximum likelihood has slope 1. Distances are MMD² to test data with fixed
bandwidths; those of the base and of training data are the worst and the best to expect. Persistent
chains and score matching name no generator: a long MALA chain samples for them. A training that
diverged is left out of the mean, whose number of seeds says so.

{parts}"""


def measured(target: str, runs: list[Seed]) -> str:
    """The table of one target, its scale, and its picture."""
    names = [name for name in variants(2) if any(name in seed for seed in runs)]
    rows = [
        [name, *(spread(number(seed.get(name, {}).get(key)) for seed in runs) for key in COLUMNS)]
        for name in names
    ]
    scale = {key: spread(seed["flow"][key] for seed in runs) for key in ("base", "floor")}
    return f"""### {target}

MMD² of the base: {scale["base"]}; of training data: {scale["floor"]}.

{table(["negatives", *COLUMNS.values()], rows)}
![{target}](figures/self_adversarial-{target}.png)

{SHOWN if target != "digits" else SHOWN_IMAGES}
"""


def number(value: float | None) -> float:
    """``value``, or NaN where there is none."""
    return math.nan if value is None else value


PANELS = ("flow", "temperature-0.5", "temperature-1", "through", "persistent", "score")


@styled
def draw_plane(target: str, run: Seed) -> Any:
    """Samples above, exp(-U) below, by variant; the data first."""
    data = Toy2D(name=target, num=10_000, batch_size=100)
    data.setup()
    shown = [name for name in PANELS if "points" in run.get(name, {})]
    figure, axes = new_figure(len(shown) + 1, (1.55, 1.75), rows=2)
    above, below = axes[: len(shown) + 1], axes[len(shown) + 1 :]
    truth, _, _ = np.histogram2d(
        *data.train.x.numpy().T, bins=60, range=[[-4, 4], [-4, 4]], density=True
    )
    grids = {"data": truth} | {name: np.array(run[name]["grid"]) for name in shown}
    points = {"data": data.train.x[:600].numpy()} | {
        name: np.array(run[name]["points"]) for name in shown
    }
    for name, top, bottom in zip(grids, above, below, strict=True):
        top.scatter(*points[name].T, s=2, linewidths=0, alpha=0.6)
        top.set(title=name, xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xticks=[], yticks=[])
        bottom.imshow(
            np.sqrt(grids[name].T),
            origin="lower",
            extent=(-4, 4, -4, 4),
            vmin=0,
            vmax=0.8,
            cmap="magma",
        )
        bottom.set(xticks=[], yticks=[])
    above[0].set_ylabel("samples")
    below[0].set_ylabel("exp(-U), square root")
    return figure


@styled
def draw_images(target: str, run: Seed) -> Any:
    """Sixteen samples a variant; the data first."""
    data = Digits()
    data.setup()
    shown = [name for name in PANELS if "points" in run.get(name, {})]
    images = {"data": data.test.x[:16]} | {
        name: torch.tensor(run[name]["points"]).view(-1, 1, 8, 8) for name in shown
    }
    figure, axes = new_figure(len(images), (1.8, 2.1))
    for axis, (name, x) in zip(axes, images.items(), strict=True):
        axis.imshow(image_grid(x), vmin=0, vmax=1, cmap="gray")
        axis.set_title(name)
        axis.set_axis_off()
    return figure
