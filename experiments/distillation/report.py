"""The section of the report on EM Distillation: what K does, what noise cancellation costs, what
perceptrons make of it.
"""

from collections.abc import Iterable
from typing import Any

import torch

from experiments.common import is_run, results
from experiments.distillation.run import LOG_SNRS, RULES, TEACHER, UPDATES, Z_STEPS, divergences
from experiments.distillation_modes import report as distillation_modes
from experiments.pictures import save
from experiments.tables import spread, table
from latent_ebm.plots import new_figure, styled

NAMES = {
    "dmd": "distribution matching, K = 1",
    "em-4": "EM, K = 4",
    "em-16": "EM, K = 16",
    "em-16-from-optimum": "EM, K = 16, from a std of 1.173",
    "em-16-wide": "EM, K = 16, steps of z of .016",
    "em-64-uncancelled": "EM, K = 64, of .016, no cancellation",
    "exact": "EM, exact posterior",
}
COLOURS = {
    "dmd": "tab:red",
    "em-4": "tab:orange",
    "em-16": "tab:blue",
    "em-64-uncancelled": "tab:green",
}
Runs = dict[str, Any]


def of(runs: Runs, log_snr_min: float, rule: str) -> list[tuple[int, dict[str, Any]]]:
    """Updates and results of a rule, the fewest updates first."""
    head = f"affine-{log_snr_min:g}-{rule}-"
    return sorted(
        (int(name.removeprefix(head)), run) for name, run in runs.items() if is_run(name, head)
    )


def affine_rows(runs: Runs, log_snr_min: float) -> Iterable[list[str]]:
    """A row for every rule and number of updates."""
    for rule, name in NAMES.items():
        for updates, run in of(runs, log_snr_min, rule):
            figures = [spread(run[key]) for key in ("forward", "reverse", "std")]
            calls = "-" if rule == "exact" else f"{updates * RULES[rule]['K']:,}"
            yield [name, f"{updates:,}", calls, *figures, f"{run['seconds']:.0f}"]


def affine(runs: Runs) -> str:
    """The tables of experiment "affine"."""
    head = [
        "rule",
        "updates",
        "denoiser calls",
        "KL(teacher ‖ student)",
        "KL(student ‖ teacher)",
        "std",
        "CPU s, 5 seeds",
    ]
    parts = [
        f"Log-SNR from {log_snr_min:g} to 6:\n\n{table(head, rows)}"
        for log_snr_min in sorted(LOG_SNRS, reverse=True)
        if (rows := list(affine_rows(runs, log_snr_min)))
    ]
    return "\n".join(parts)


def verdict(runs: Runs) -> str:
    """What was to be seen at log-SNR from 0 on, seed by seed, and the distance of a long chain
    from the optimum.
    """
    (_, matching), (_, em), (_, long) = (
        of(runs, 0.0, rule)[0] for rule in ("dmd", "em-16", "em-64-uncancelled")
    )
    best = optimum()
    pairs = list(zip(matching["forward"], em["forward"], strict=True))
    seeds = sum(a > 5 and b <= 0.96 for a, b in pairs)
    gap = max(long["forward"]) - best
    return (
        "From log-SNR 0 on, distribution matching ends above 5 nats and K = 16 at .96 or less "
        f"in {seeds} of {len(pairs)} "
        "seeds, at equal updates; sixteen times the updates do not help distribution matching. "
        "The greatest likelihood that "
        f"an affine student can have leaves {best:.3f} nats, and a chain of 64 steps without "
        "cancellation comes within "
        f"{gap:.3f} of it in every seed."
    )


def optimum() -> float:
    """Forward KL of the Gaussian with the teacher's moments."""
    weights, means, scales = (torch.tensor(v) for v in TEACHER)
    mean = (weights * means[:, 0]).sum()
    variance = (weights * (scales**2 + means[:, 0] ** 2)).sum() - mean**2
    return divergences(variance.sqrt()[None], mean[None])[0].item()


def cancellation(runs: Runs) -> str:
    """The table of what noise cancellation does to the gradient."""
    rows = []
    for name, run in runs.items():
        if name.startswith("cancellation-"):
            log_snr_min, scale, step = (
                name.removeprefix("cancellation-").removeprefix("-").split("-", 2)
            )
            sign = "-" if name.startswith("cancellation--") else ""
            bias = f"{run['bias']:.5f} ± {run['error']:.5f}"
            rows.append(
                [
                    sign + log_snr_min,
                    scale,
                    step,
                    f"{run['gradient']:.4f}",
                    bias,
                    f"{run['ratio']:.3g}",
                ]
            )
    head = [
        "log-SNR from",
        "student's std",
        "step of z",
        "gradient",
        "bias of leaving the noise out",
        "variance ratio",
    ]
    return table(head, rows)


@styled
def draw(runs: Runs) -> Any:
    """Students of the first seed, both divergences over K, and what steps of z cost."""
    figure, (left, middle, right) = new_figure(3, (3.5, 2.9))
    found = {rule: of(runs, 0.0, rule)[0][1] for rule in COLOURS}
    draw_students(left, found)
    draw_divergences(middle, found)
    draw_bias(right, [runs[f"cancellation-0-0.5-{step:g}"] for step in Z_STEPS])
    return figure


def draw_students(axes: Any, found: Runs) -> None:
    """The densities of the teacher and of its students."""
    x = torch.linspace(-3.5, 3.5, 500)
    weights, means, scales = (torch.tensor(v) for v in TEACHER)
    density = (
        weights * torch.distributions.Normal(means[:, 0], scales).log_prob(x[:, None]).exp()
    ).sum(1)
    axes.fill_between(x, density, color="0.85", label="teacher")
    for rule, run in found.items():
        p = torch.distributions.Normal(run["mean"][0], run["std"][0]).log_prob(x).exp()
        axes.plot(x, p, color=COLOURS[rule], label=f"K = {RULES[rule]['K']}")
    axes.set(xlabel="x", yticks=[], title="one-step students")
    axes.legend(fontsize="small")


def draw_divergences(axes: Any, found: Runs) -> None:
    """Both divergences over K, their means and every seed."""
    steps = [RULES[rule]["K"] for rule in found]
    for key, label, marker in (
        ("forward", "teacher ‖ student", "o"),
        ("reverse", "student ‖ teacher", "s"),
    ):
        means = [sum(run[key]) / len(run[key]) for run in found.values()]
        line = axes.plot(steps, means, marker=marker, ms=4, label=label)
        for k, run in zip(steps, found.values(), strict=True):
            axes.scatter([k] * len(run[key]), run[key], s=8, color=line[0].get_color(), alpha=0.5)
    axes.axhline(optimum(), color="0.5", lw=1, ls="--")
    axes.text(64, optimum() * 0.95, "maximum likelihood", ha="right", va="top", color="0.4")
    axes.set(
        xscale="log", yscale="log", xlabel="K", ylabel="KL divergence, nats", title="five seeds"
    )
    axes.set_xticks(steps, [str(k) for k in steps])
    axes.set_yticks([0.5, 1, 2, 5], ["0.5", "1", "2", "5"])
    axes.minorticks_off()
    axes.legend(fontsize="small")


def draw_bias(axes: Any, rows: list[dict[str, Any]]) -> None:
    """What leaving the noise out costs, over the step of z."""
    share = [row["bias"] / row["gradient"] for row in rows]
    errors = [row["error"] / row["gradient"] for row in rows]
    axes.errorbar(Z_STEPS, share, errors, marker="o", ms=4, capsize=2)
    axes.axhline(0, color="0.6", lw=0.6)
    axes.set(
        xscale="log",
        xlabel="step of z",
        ylabel="share of the gradient",
        title="bias of noise cancellation",
    )


def section() -> str:
    """The section, once the runs of log-SNR 0 are there."""
    runs = results("distillation")
    if not all(of(runs, 0.0, rule) for rule in COLOURS):
        return ""
    save(draw(runs), "distillation")
    command = "`python -m experiments.distillation`"
    return f"""## What the length of a chain does to a one-step student: {command}

The teacher is a mixture of two Gaussians, the student affine, and both denoisers are exact, so
that all that differs is the E-step of EM Distillation (arXiv:2405.16852), a chain of K steps.
Students start at a standard deviation of .3 unless said otherwise, and take {UPDATES:,} updates of
512 rows. Rows with more updates make as many calls of the denoisers as K = 16 does in {UPDATES:,}.

![K](figures/distillation.png)

With log-SNR from 0 on. Left: teacher, and students of the first seed. Middle: both divergences by
K. Right: the bias of noise cancellation for a student of standard deviation .5.

{verdict(runs)}

{affine(runs)}
The separation needs noise that never merges the modes: from log-SNR -3 on every K covers both. The
less noise there is, the longer a chain must be: from log-SNR 1 on, a student of K = 16 drops a
mode as well, even if it starts at the best standard deviation, and a student of K = 64 does not.

Noise cancellation (K = 16) takes the injected noise out of the gradient, here that of the
student's scale. The more noise, the more it helps: the variance falls threefold with log-SNR
from 0 on, and a thousandfold from -6 on. It costs a bias. For a student that is too narrow this is
1 to 3 per cent of the gradient at the two largest steps of z; elsewhere it is within two standard
errors of zero.

{cancellation(runs)}
{distillation_modes.section()}"""
