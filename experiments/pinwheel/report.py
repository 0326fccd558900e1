"""The section of the report on the test bed with a known prior."""

from typing import Any

import numpy as np
import torch

from experiments.claims import Claim, decided, difference
from experiments.pictures import save
from experiments.rules import COLOURS, NAMES, Runs, by_rule, columns, paired
from experiments.tables import spread, together
from latent_ebm.data import Pinwheel
from latent_ebm.plots import new_figure, styled

CLAIMS = tuple(
    Claim(f"multi-stage ratio: smaller KL than {NAMES[rule]}", difference("kl", rule, "ratio"))
    for rule in ("one_ratio", "mle")
)


def section() -> str:
    """The section on the test bed with a known prior."""
    runs = by_rule("pinwheel")
    if not runs:
        return ""
    save(draw_curves(runs), "pinwheel-curves")
    if all("grid" in rs[0] for rs in runs.values()):
        save(draw_densities(runs), "pinwheel-densities")
    keys = {
        "kl": "KL(true ‖ learnt), nats",
        "mmd": "MMD²",
        "stages": "stages",
        "seconds": "CPU seconds",
    }
    return f"""## A prior that is known: `python -m experiments.pinwheel`

Latents lie on a pinwheel with two arms, and a known decoder turns them into data. Only the prior
is learnt, so the best prior is the true one.

{columns(runs, keys)}
{together(falling(runs), against_mle(), log_z(runs))}

{decided(CLAIMS, paired("pinwheel", runs))}
The chains of the two cold rows take 40 steps from the base for every batch, one with noise and one
without. Such a chain is a generator, and its log-density is not -U. So exp(-U) is far from the
true prior. Posterior chains take exp(-U) for the prior and end at wrong latents.

![KL against CPU time](figures/pinwheel-curves.png)

KL divergence against CPU time, a line per seed.

![Densities](figures/pinwheel-densities.png)

The true prior and the learnt ones of the first seed, on one colour scale.
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
    return (
        "With the multi-stage ratio, KL fell at "
        f"{total - rises} of {total} accepted stages over all seeds."
    )


def log_z(runs: Runs) -> str:
    """How many intervals of log Z hold what quadrature says, in a sentence."""
    found = [run for group in runs.values() for run in group if "log_z_lower" in run]
    if not found:
        return ""
    reliable = [run for run in found if run["log_z_reliable"]]
    holds, of_reliable = (
        sum(run["log_z_lower"] <= run["log_z"] <= run["log_z_upper"] for run in group)
        for group in (found, reliable)
    )
    return (
        f"The 95 % interval of `prior_log_z` holds log Z by quadrature for {holds} of "
        f"{len(found)} learnt priors, and for {of_reliable} of the {len(reliable)} in which no "
        "check names a reason to doubt it."
    )


def against_mle() -> str:
    """KL of the ratio prior over that of maximum likelihood when both have used the same CPU
    time.
    """
    quotients = []
    for pair in paired("pinwheel", ("ratio", "mle")):
        ratio, mle = pair["ratio"], pair["mle"]
        budget = min(ratio["curve"][-1]["seconds"], mle["curve"][-1]["seconds"])
        last = [
            [p["kl"] for p in run["curve"] if p["seconds"] <= budget][-1] for run in (ratio, mle)
        ]
        quotients.append(last[0] / last[1])
    return (
        f"At equal CPU time, KL is {spread(quotients)} times that of maximum likelihood."
        if quotients
        else ""
    )


@styled
def draw_curves(runs: Runs) -> Any:
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
def draw_densities(runs: Runs) -> Any:
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
