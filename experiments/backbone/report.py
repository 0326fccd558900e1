"""The section of the report on priors of one backbone."""

import math
from typing import Any

import torch

from experiments.backbone.rivals import COUPLINGS, HIDDEN, LR
from experiments.backbone.run import NUM_LOOK, NUM_SAMPLES, PRIORS
from experiments.claims import Claim, by_seed, decided, difference
from experiments.common import results, runs_of
from experiments.pictures import save, save_images, unpack
from experiments.rules import COLOURS, NAMES
from experiments.tables import spread, table, together
from latent_ebm.plots import new_figure, styled

Runs = dict[str, dict[str, Any]]
FIGURE, SAMPLES = "backbone-curves", "backbone-samples"
TITLES = NAMES | {
    "encoder": "draws of the encoder",
    "mixture": "mixture of 100 Gaussians",
    "diffusion": "diffusion",
    "flow": "spline flow",
}
CURVES = COLOURS | {"diffusion": "tab:green", "flow": "tab:purple"}  # of those that learn on
KEYS = {
    "frechet": "Fréchet",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "cross_entropy": "-E log p(z), nats",
    "log_z_width": "interval of log Z",
    "log_z_reliable": "reliable",
    "stages": "stages",
    "updates": "updates",
}
RIVALS = ("one_ratio", "mle", "mixture", "flow", "diffusion")
CLAIMS = (
    *(
        Claim(
            f"multi-stage ratio: smaller Fréchet distance than {TITLES[name]}",
            difference("frechet", name, "ratio"),
        )
        for name in RIVALS
    ),
    *(
        Claim(
            f"multi-stage ratio: smaller -E log p(z) than {TITLES[name]}",
            difference("cross_entropy", name, "ratio"),
        )
        for name in RIVALS[:-1]
    ),
    Claim(
        "multi-stage ratio: earlier at the Fréchet distance where maximum likelihood ends, log2",
        lambda arms: math.log2(arms["mle"]["curve"][-1]["seconds"] / time_to_match(arms)),
    ),
)


def time_to_match(arms: Runs) -> float:
    """CPU seconds until the multi-stage ratio is as good as maximum likelihood at its end; twice
    those of its last look if it never is.
    """
    curve, wanted = arms["ratio"]["curve"], arms["mle"]["curve"][-1]["frechet"]
    reached = [look["seconds"] for look in curve if look["frechet"] <= wanted]
    return reached[0] if reached else 2 * curve[-1]["seconds"]


def section() -> str:
    """Markdown, or nothing without results."""
    stored = results("backbone")
    runs = {name: runs_of(stored, name) for name in ("encoder", *PRIORS)}
    if not runs["encoder"]:
        return ""
    return together(
        introduction(runs), qualities(runs), claims(stored), curves(runs), pictures(runs)
    )


def introduction(runs: dict[str, list[Any]]) -> str:
    """What is compared, and on what."""
    first = runs["encoder"][0]
    spent = first["backbone"]
    seconds = max((look["seconds"] for run in runs["mle"] for look in run["curve"]), default=0)
    fitting = spread((run["seconds"] for run in runs["mixture"]), 2)
    return f"""## Priors of one trained encoder: `python -m experiments.backbone`

A variational autoencoder learns 59,000 training images of MNIST in {spent["updates"]:,} updates
({spent["seconds"]:.0f} s): 16 latents, sigma .3, MSE {first["mse"]:.4f} per pixel (in [-1, 1]) of
test images. It is then held fixed, and each prior learns from draws of its encoder for
{seconds:.0f} CPU seconds; the mixture takes {fitting} s. No test image decides what is learnt, or
when learning ends.

Energies and ratios have the networks (two layers of 200) and learning rates of the section on
MNIST. Diffusion has three layers of {HIDDEN[0]}, and the flow {COUPLINGS} couplings with two
layers of {HIDDEN[0]} each; both have the learning rate {LR:g}. Stages are closed by a check on
1,000 more images, whose time counts, and their weights are not averaged; those of all other
networks are.

{NUM_SAMPLES:,} decoded draws are compared with as many test images, in the features of the section
on MNIST. *Draws of the encoder* are those for training images: what a perfect prior would reach.
*-E log p(z)* is the mean over draws of the encoder for test images, with log Z by `prior_log_z`;
*interval of log Z* is how wide its interval is, and *reliable* the share of seeds in which no
check speaks against it. *Maximum likelihood* learns by short chains, whose draws do not follow the
density that it is measured by."""


def qualities(runs: dict[str, list[Any]]) -> str:
    """A row per prior."""
    rows = (
        [TITLES[name], *(spread(run.get(key) for run in found) for key in KEYS)]
        for name, found in runs.items()
        if found
    )
    return table(["prior", *KEYS.values()], rows)


def claims(stored: Runs) -> str:
    """What the multi-stage ratio is better than, over the seeds that all priors have."""
    seeds = by_seed(stored, {name: f"{name}-{{}}" for name in ("ratio", *RIVALS)})
    return decided(CLAIMS, seeds) if seeds else ""


def curves(runs: dict[str, list[Any]]) -> str:
    """The Fréchet distance against time."""
    shown = {name: runs[name] for name in CURVES if runs.get(name) and "curve" in runs[name][0]}
    if not shown:
        return ""
    save(draw_curves(shown), FIGURE)
    return f"""![Fréchet distance against time](figures/{FIGURE}.png)

Fréchet distance of {NUM_LOOK:,} draws from as many test images against CPU time, a line per seed.
It is larger than that of {NUM_SAMPLES:,}, and shows the stages that are closed by then."""


@styled
def draw_curves(runs: dict[str, list[Any]]) -> Any:
    """Fréchet distance against CPU seconds, a line per seed."""
    figure, (axes,) = new_figure(1, (6.0, 3.6))
    for name, found in runs.items():
        for i, run in enumerate(found):
            x, y = ([look[key] for look in run["curve"]] for key in ("seconds", "frechet"))
            axes.plot(x, y, color=CURVES[name], lw=1.2, label=None if i else TITLES[name])
    axes.set(xlabel="CPU seconds", ylabel="Fréchet distance", xscale="log", yscale="log")
    axes.legend(frameon=False)
    return figure


def pictures(runs: dict[str, list[Any]]) -> str:
    """Draws of every prior."""
    shown = {name: found[0] for name, found in runs.items() if found}
    if all("samples" in run for run in shown.values()):
        x = torch.cat([unpack(run["samples"]) for run in shown.values()])
        save_images(x, SAMPLES, columns=len(x) // len(shown), colours=16)
    return f"""![Samples](figures/{SAMPLES}.png)

Draws of the first seed, from above: {", ".join(TITLES[name] for name in shown)}."""
