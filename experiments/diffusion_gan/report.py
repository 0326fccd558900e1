"""The section of the report on diffusion GANs and on students of few steps."""

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.common import results
from experiments.diffusion_gan.run import NAMES
from experiments.pictures import save
from experiments.tables import spread, table
from latent_ebm.data import Toy2D
from latent_ebm.plots import new_figure, styled

ROWS = {
    "diffusion_gan": "diffusion GAN, 4 steps",
    "gan": "plain GAN, 1 step",
    "diffusion": "diffusion, 50 steps",
}
FIGURES_OF = {
    "modes": "modes of 25",
    "within_4": "within 4 sd",
    "within_3": "within 3 sd",
    "kl": "KL, nats",
}
METHODS = {
    "ancestral": "teacher, ancestral",
    "DDIM": "teacher, DDIM",
    "progressive": "progressive distillation",
    "UFOGen": "UFOGen",
}
Seed = dict[str, dict[str, Any]]  # results of one seed by name


def seeds() -> list[Seed]:
    """Stored results of the seeds for which all runs are there."""
    found: dict[str, Seed] = {}
    for key, run in results("diffusion_gan").items():
        name, seed = key.rsplit("-", 1)
        found.setdefault(seed, {})[name] = run
    return [found[seed] for seed in sorted(found) if set(NAMES) <= set(found[seed])]


def last(run: dict[str, Any], key: str, budget: float) -> dict[str, float]:
    """The last point of the curve of ``run`` at which ``key`` is within ``budget``."""
    return [point for point in run["curve"] if point[key] <= budget][-1]


def least(seed: Seed, key: str) -> float:
    """The least final value of ``key`` over the runs of a seed: what all of them have spent."""
    return min(run["curve"][-1][key] for run in seed.values())


def compared(runs: list[Seed], pick: Callable[[Seed, dict[str, Any]], dict[str, float]]) -> str:
    """A row per model of what ``pick(seed, run)`` says of it."""
    rows = []
    for name in NAMES:
        picked = [pick(seed, seed[name]) for seed in runs]
        cells = [spread(p[key] for p in picked) for key in ("updates", "seconds", *FIGURES_OF)]
        rows.append([ROWS[name], *cells])
    return table(["model", "updates", "CPU s", *FIGURES_OF.values()], rows)


def few(runs: list[Seed]) -> str:
    """Modes covered and share within 3 deviations, by method and number of steps."""
    rows = []
    for method, name in METHODS.items():
        for key in ("modes", "within_3"):
            cells = []
            for steps in ("1", "2", "4", "8"):
                found = [seed["diffusion"]["few"][method].get(steps) for seed in runs]
                cells.append(spread(f[key] for f in found if f))
            rows.append([name, FIGURES_OF[key], *cells])
    return table(
        ["samples", "metric", *(f"{n} steps" if n > 1 else "1 step" for n in (1, 2, 4, 8))], rows
    )


def section() -> str:
    """Three models at equal updates and at equal time, the students, and samples side by side."""
    runs = seeds()
    if not runs:
        return ""
    if all("points" in run for run in runs[0].values()):
        save(samples(runs[0]), "diffusion_gan")
    widths = [f"{ROWS[name]}: {spread(seed[name]['width'] for seed in runs)}" for name in NAMES]
    cost = {
        name: spread(s["diffusion"]["student_seconds"][name] for s in runs)
        for name in ("progressive", "UFOGen")
    }
    return f"""## Few steps and every mode: `python -m experiments.diffusion_gan`

The data are 25 Gaussians of standard deviation (sd) .12 on a grid of spacing 1.2. Networks have
two hidden layers of 128 units on Fourier features. With one batch, a diffusion model takes one
update, and a GAN one of the critic and one of the generator. A mode is covered if at least a tenth
of its share of the samples lies within 3 sd of its centre. KL compares the histogram of modes with
the uniform one. Of the data 99 % lie within 3 sd and all within 4; of points spread evenly, 28 %
and 50 %. The critic of the diffusion GAN has twice the learning rate of its generator. That
of the plain GAN has the same rate: with twice the rate it covers fewer modes. At the end of all
runs:

{compared(runs, lambda seed, run: {**run, "updates": run["curve"][-1]["updates"]})}
Modes can also be too narrow. The root mean square distance of samples within 3 sd from their
centre, over that of the data, is {"; ".join(widths)}.

At equal numbers of updates:

{compared(runs, lambda seed, run: last(run, "updates", least(seed, "updates")))}
At equal CPU time:

{compared(runs, lambda seed, run: last(run, "seconds", least(seed, "seconds")))}
The diffusion model as a teacher of few steps. Progressive distillation took {cost["progressive"]}
CPU seconds for all of its students, each of which starts from the last. UFOGen took
{cost["UFOGen"]} for three students of 1, 2 and 4 steps, which all start from the teacher. With one
step, UFOGen is a plain GAN that starts from a denoiser.

{few(runs)}
![Samples](figures/diffusion_gan.png)

Data, and samples of the first seed.
"""


@styled
def samples(seed: Seed) -> Any:
    """Data and samples of the three models."""
    data = Toy2D("gaussian_grid", num=1500)
    data.setup()
    panels = {"data": data.train.x.numpy()} | {
        ROWS[name]: np.array(seed[name]["points"]) for name in NAMES
    }
    figure, axes = new_figure(len(panels), (2.3, 2.5))
    for axis, (name, x) in zip(axes, panels.items(), strict=True):
        axis.scatter(*x.T, s=2, linewidths=0, alpha=0.5)
        axis.set(
            title=name, xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal", xticks=[], yticks=[]
        )
    return figure
