"""Write ``RESULTS.md`` and its figures from the stored outputs: ``python -m
experiments.report``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from experiments import (
    anomaly_tables,
    calibration,
    claims,
    contaminated,
    diffusion_gan_report,
    distillation_tables,
    stacked_digits,
    students,
    universal_table,
)
from experiments.benchmarks import flow, summary
from experiments.common import FIGURES, HERE, OUTPUTS, results, track
from experiments.gpu import report as gpu_report
from experiments.tables import spread, table
from latent_ebm.data import Pinwheel
from latent_ebm.plots import new_figure, save_figure, styled

NAMES = {
    "gaussian": "Gaussian prior",
    "one_ratio": "one ratio",
    "mle": "MCMC maximum likelihood",
    "ratio": "multi-stage ratio",
    "langevin": "cold short-run Langevin",
    "flow": "cold gradient flow",
}
COLOURS = dict(
    zip(
        NAMES, ("0.6", "tab:orange", "tab:blue", "tab:red", "tab:green", "tab:purple"), strict=True
    )
)
Runs = dict[str, list[dict[str, Any]]]


def by_rule(experiment: str) -> Runs:
    """Stored results of an experiment, its seeds grouped by rule in the order of ``NAMES``."""
    stored = results(experiment)
    groups = {
        rule: [r for name, r in stored.items() if name.rsplit("-", 1)[0] == rule] for rule in NAMES
    }
    return {rule: runs for rule, runs in groups.items() if runs}


def columns(runs: Runs, keys: dict[str, str]) -> str:
    """A table with a row per rule and a column per key of the results; what a rule has none of is
    left out.
    """
    rows = (
        [NAMES[rule], *(spread(r.get(key) or None for r in rs) for key in keys)]
        for rule, rs in runs.items()
    )
    return table(["prior", *keys.values()], rows)


def pinwheel() -> str:
    """The section on the test bed with a known prior."""
    runs = by_rule("pinwheel")
    if not runs:
        return ""
    save_figure(pinwheel_curves(runs), FIGURES / "pinwheel-curves.png")
    if all("grid" in rs[0] for rs in runs.values()):
        save_figure(pinwheel_densities(runs), FIGURES / "pinwheel-densities.png")
    keys = {
        "kl": "KL(true ‖ learnt), nats",
        "mmd": "MMD²",
        "stages": "stages",
        "seconds": "CPU seconds",
    }
    return f"""## A prior that is known: `python -m experiments.pinwheel`

Data from a two-arm pinwheel through a known decoder; the prior alone is learnt, so the best prior is the true one.

{columns(runs, keys)}
{falling(runs)} {against_mle(runs)} The two cold rows share everything but the noise of the prior's chain: 40 steps from
the base for every batch. Such a chain is a generator whose log-density is not -U, so that the KL divergence of exp(-U) is
large, and the posterior, which takes exp(-U) for the prior, is drawn to the wrong latents.

![KL against CPU time](figures/pinwheel-curves.png)

![Densities](figures/pinwheel-densities.png)
"""


def stage_kls(run: dict[str, Any]) -> list[float]:
    """KL right after each stage was closed, the base first."""
    kls: dict[int, float] = {}
    for point in run["curve"]:
        kls.setdefault(int(point["stages"]), point["kl"])
    return [kls[k] for k in sorted(kls)]


def falling(runs: Runs) -> str:
    """Whether KL fell at every accepted stage, said in a sentence."""
    steps = [np.diff(stage_kls(run)) for run in runs.get("ratio", [])]
    rises = sum(int((step > 0).sum()) for step in steps)
    total = sum(len(step) for step in steps)
    return f"KL fell at {total - rises} of {total} accepted stages over all seeds."


def against_mle(runs: Runs) -> str:
    """KL of the ratio prior over that of maximum likelihood when both have used the same CPU
    time.
    """
    quotients = []
    for ratio, mle in zip(runs.get("ratio", []), runs.get("mle", []), strict=False):
        budget = min(ratio["curve"][-1]["seconds"], mle["curve"][-1]["seconds"])
        last = [
            [p["kl"] for p in run["curve"] if p["seconds"] <= budget][-1] for run in (ratio, mle)
        ]
        quotients.append(last[0] / last[1])
    return (
        f"At equal CPU time its KL is {spread(quotients)} times that of maximum likelihood."
        if quotients
        else ""
    )


@styled
def pinwheel_curves(runs: Runs) -> Any:
    """KL against CPU seconds, a line a seed."""
    figure, (axes,) = new_figure(1, (6.0, 3.6))
    for rule, rs in runs.items():
        for i, run in enumerate(rs):
            if "curve" in run:
                x, y = ([p[key] for p in run["curve"]] for key in ("seconds", "kl"))
                axes.step(
                    x,
                    y,
                    where="post",
                    color=COLOURS[rule],
                    lw=1.2,
                    label=None if i else NAMES[rule],
                )
    axes.set(xlabel="CPU seconds", ylabel="KL(true ‖ learnt), nats", yscale="log")
    axes.legend(frameon=False)
    return figure


@styled
def pinwheel_densities(runs: Runs) -> Any:
    """True and learnt densities of the first seed on one colour scale."""
    ticks = torch.linspace(-4, 4, 60)
    truth = Pinwheel().prior_log_prob(torch.cartesian_prod(ticks, ticks)).exp().view(60, 60)
    panels = {"true prior": truth.numpy()} | {
        NAMES[rule]: np.array(rs[0]["grid"]) for rule, rs in runs.items()
    }
    figure, axes = new_figure(len(panels), (2.0, 2.2))
    for axis, (name, grid) in zip(axes, panels.items(), strict=True):
        axis.imshow(
            grid.T,
            origin="lower",
            extent=(-4, 4, -4, 4),
            vmin=0,
            vmax=float(truth.max()),
            cmap="magma",
        )
        axis.set(title=name, xticks=[], yticks=[])
    return figure


def mnist() -> str:
    """The section on MNIST."""
    runs = by_rule("mnist")
    if not runs:
        return ""
    for run in (r for rs in runs.values() for r in rs):
        run["nll"] = (run["nll_lower"] + run["nll_upper"]) / 2
    quality = {
        "frechet": "Fréchet",
        "precision": "precision",
        "recall": "recall",
        "density": "density",
        "coverage": "coverage",
        "reconstruction_mse": "MSE / pixel",
    }
    cost = {"nll_lower": "NLL ≥", "nll_upper": "NLL ≤", "stages": "stages", "seconds": "CPU s"}
    steady = {
        "rhat": "split R-hat",
        "ess_per_draw": "ESS / draw",
        "frechet_1x": "Fréchet 1x",
        "frechet_10x": "10x",
        "frechet_60x": "60x",
    }
    pictures = " ".join(f"![{NAMES[rule]}](figures/mnist-{rule}.png)" for rule in runs)
    return f"""## MNIST, one backbone, four priors: `python -m experiments.mnist`

20,000 training images, 4 passes, 16 latents, a decoder with maps of 32 and 16 channels, sigma .3, one posterior chain per
datum of 10 steps a pass. Samples (1,000) are compared with as many test images in the features of a classifier that this
library trains; MSE is in [-1, 1]; NLL in nats per image, a bracket by annealed importance sampling on 10 test images.

{columns(runs, quality)}
{columns(runs, cost)}
{columns(runs, steady)}
{wall_time(runs)}
Where the lower NLL exceeds the upper one, chains did not reach the posterior, and only the upper one holds.

{pictures}

Left to right: {", ".join(NAMES[rule] for rule in runs)}. A GPU user would take 64 channels, all images, 100 passes and 40
posterior steps, as in the published experiments.
"""


def wall_time(runs: Runs) -> str:
    """Cost of the ratio rule over that of maximum likelihood."""
    pairs = zip(runs.get("ratio", []), runs.get("mle", []), strict=False)
    return (
        "Training time of `ratio` over `mle`: "
        f"{spread(a['seconds'] / b['seconds'] for a, b in pairs)}."
    )


def main() -> None:
    for folder in OUTPUTS.glob("*/"):
        track(folder.name)
    sections: tuple[Callable[[], str], ...] = (
        pinwheel,
        mnist,
        anomaly_tables.digits,
        anomaly_tables.tables,
        contaminated.section,
        universal_table.section,
        calibration.section,
        claims.section,
        distillation_tables.section,
        students.section,
        diffusion_gan_report.section,
        stacked_digits.section,
        flow.section,
        summary.section,
        gpu_report.section,
    )
    FIGURES.mkdir(exist_ok=True)
    head = (
        "# Results\n\nGenerated by `python -m experiments.report` from `experiments/results`. "
        "Figures are means ± standard "
        "deviations over seeds (their number in brackets); times are CPU seconds of one thread.\n"
    )
    (HERE / "RESULTS.md").write_text(
        "\n".join([head, *(text for section in sections if (text := section()))])
    )


if __name__ == "__main__":
    main()
