"""The section of the report on a diffusion model of MNIST and its one-step students."""

from itertools import chain
from typing import Any

from experiments.claims import by_seed
from experiments.common import results
from experiments.mnist_diffusion.run import CURVE, STEPS, STUDENTS
from experiments.pictures import save, unpack
from experiments.tables import spread, table
from latent_ebm.plots import image_grid, new_figure, styled

Runs = list[dict[str, Any]]
COLUMNS = {
    "seconds": "CPU s of training",
    "frechet": "Fréchet",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "class_kl": "KL of classes",
    "seconds_per_1000": "CPU s / 1,000",
}
AT_UPDATES = {key: COLUMNS[key] for key in CURVE}
COLOURS = dict(
    zip(
        STUDENTS,
        ("tab:orange", "tab:green", "tab:red", "tab:blue", "tab:purple", "0.4"),
        strict=True,
    )
)


def by_student() -> dict[str, Runs]:
    """Stored results of every student, a run a seed."""
    stored = results("mnist_diffusion")
    groups = {
        name: [run for key, run in stored.items() if key.rsplit("-", 1)[0] == name]
        for name in STUDENTS
    }
    return {name: runs for name, runs in groups.items() if runs}


def common_updates(runs: dict[str, Runs]) -> int:
    """The most updates after which every run was judged."""
    judged = [
        {point["updates"] for point in run["curve"]} for group in runs.values() for run in group
    ]
    return max(set.intersection(*judged))


def last_common(*runs: dict[str, Any]) -> list[dict[str, Any]]:
    """The points of all runs after the most updates at which all were judged."""
    updates = common_updates({str(i): [run] for i, run in enumerate(runs)})
    return [at_updates(run, updates) for run in runs]


def at_updates(run: dict[str, Any], updates: int) -> dict[str, Any]:
    """The point of a run's curve after ``updates``."""
    return next(point for point in run["curve"] if point["updates"] == updates)


def section() -> str:
    """Both tables, the curves, and the samples side by side."""
    stored, runs = results("mnist_diffusion"), by_student()
    teachers = {
        steps: stored[f"teacher-{steps}"] for steps in STEPS if f"teacher-{steps}" in stored
    }
    if not teachers:
        return ""
    rows = [[of_teacher(steps), "-", *cells([run], COLUMNS)] for steps, run in teachers.items()]
    for name, group in runs.items():
        updates = spread(run["curve"][-1]["updates"] for run in group)
        rows.append([name, updates, *cells(group, COLUMNS)])
    energy = [run for key, run in stored.items() if key.startswith("latent-ebm-")]
    rows.append(["latent EBM", "-", *cells(energy, COLUMNS)])
    rows.append(["training images", "-", *cells([stored["data"]], COLUMNS)])
    if all("samples" in run for run in stored.values()):
        save(draw_samples(stored, teachers, runs), "mnist_diffusion-samples", colours=5)
    return f"""## A diffusion model of MNIST in one step: `python -m experiments.mnist_diffusion`

The teacher is a U-Net in pixel space, trained by this library and sampled by DDIM. The results
here are of an earlier set-up, smaller than that of the present files: a teacher of 90,000
parameters, a few minutes of one core for each model, and a UFOGen whose critic sees samples with
noise on top alone. 2,000 samples are compared with as many test images in
the features of a classifier that this library trains. The KL of classes compares the classifier's
verdicts on samples with those on test images. Students had the same CPU time, and are sampled with
averaged weights.

`emd-K` is EM Distillation with chains of K steps in training, and `dmd` is distribution matching.
All students start from the teacher, except for `ddgan-4`, the diffusion GAN of four steps, which
starts from nothing. `ddgan-4` and `ufogen` see data, and the others do not. The latent EBM is
`experiments/mnist/ratio.yaml`.

{table(["sampler", "updates", *COLUMNS.values()], rows)}
{verdict(stored, runs)}

{equal_updates(runs)}
![Samples](figures/mnist_diffusion-samples.png)

The first seed. UFOGen has the smallest Fréchet distance of the students, and yet its samples are
speckled: the features of a classifier do not see speckle, and nor does its critic.
"""


def verdict(stored: dict[str, Any], runs: dict[str, Runs]) -> str:
    """How many runs of EM Distillation cover all classes, recall what distribution matching does,
    and beat four steps.
    """
    names = [name for name in runs if name.startswith("emd")]
    em = [run for name in names for run in runs[name]]
    covered = sum(run["class_kl"] <= 0.05 for run in em)
    near = sum(run["frechet"] <= stored["teacher-4"]["frechet"] for run in em)
    text = (
        f"Of {len(em)} runs of EM Distillation, {covered} cover the classes to a KL divergence "
        f"of .05, and {near} are at "
        "least as near to the test images as four steps of the teacher."
    )
    pairs = [by_seed(stored, {"em": f"{name}-{{}}", "dmd": "dmd-{}"}) for name in names]
    rivals = [last_common(pair["em"], pair["dmd"]) for pair in chain.from_iterable(pairs)]
    if not rivals:
        return text
    ahead = sum(em["recall"] >= dmd["recall"] for em, dmd in rivals)
    return (
        f"{text} After as many updates, recall is at least that of distribution matching in "
        f"{ahead} of {len(rivals)}."
    )


def of_teacher(steps: int) -> str:
    """What the teacher is called at a number of steps."""
    return f"teacher, {steps} step{'s' if steps > 1 else ''}"


def cells(runs: Runs, columns: dict[str, str]) -> list[str]:
    """One cell a column."""
    return [spread(run.get(key) for run in runs) for key in columns]


def equal_updates(runs: dict[str, Runs]) -> str:
    """The table of what students were after as many updates as all of them have seen, and their
    curves.
    """
    if not runs:
        return ""
    save(draw_curves(runs), "mnist_diffusion-curves")
    updates = common_updates(runs)
    rows = [
        [name, *cells([at_updates(run, updates) for run in group], AT_UPDATES)]
        for name, group in runs.items()
    ]
    return f"""After {updates} updates, the most that all students have seen:

{table(["student", *AT_UPDATES.values()], rows)}
![Curves](figures/mnist_diffusion-curves.png)

A line per seed.
"""


@styled
def draw_curves(runs: dict[str, Runs]) -> Any:
    """Fréchet distance against CPU time and against updates, and recall, a line a seed; untrained
    students left out.
    """
    figure, axes = new_figure(3, (3.3, 2.9))
    panels = (("seconds", "frechet"), ("updates", "frechet"), ("updates", "recall"))
    for axis, (across, key) in zip(axes, panels, strict=True):
        for name, group in runs.items():
            for i, run in enumerate(group):
                points = [point for point in run["curve"] if point["updates"]]
                x, y = ([point[k] for point in points] for k in (across, key))
                axis.plot(x, y, color=COLOURS[name], label=None if i else name)
        axis.set(
            xscale="log",
            xlabel={"seconds": "CPU seconds", "updates": "updates"}[across],
            ylabel=COLUMNS[key],
        )
    for axis in axes[:2]:
        axis.set(yscale="log")
        axis.set_yticks([50, 100, 200, 400], ["50", "100", "200", "400"])
        axis.minorticks_off()
    axes[2].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@styled
def draw_samples(
    stored: dict[str, Any], teachers: dict[int, dict[str, Any]], runs: dict[str, Runs]
) -> Any:
    """A grid of samples a sampler; the data first, and one step of the teacher, which is the mean
    of all digits, left out.
    """
    shown = {"data": stored["data"]} | {
        of_teacher(steps): run for steps, run in teachers.items() if steps > 1
    }
    shown |= {name: group[0] for name, group in runs.items()} | {
        "latent EBM": stored["latent-ebm-0"]
    }
    grids = {name: unpack(run["samples"]) for name, run in shown.items()}
    columns = 4
    figure, axes = new_figure(columns, (2.3, 1.4), rows=-(-len(grids) // columns))
    for axis in axes:
        axis.set_axis_off()
    for axis, (name, x) in zip(axes, grids.items(), strict=False):
        axis.set_title(name)
        axis.imshow(image_grid(x[:32], 8), vmin=0, vmax=1, cmap="gray", interpolation="nearest")
    return figure
