"""The section of the report on universal features."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.common import results
from experiments.tables import spread, table
from experiments.universal.run import EPOCHS, FEATURES, HEADS, NUM_TRAIN, TASKS, result_name

Runs = dict[tuple[str, int, int], dict[str, Any]]  # results by features, task and seed


def stored(domain: str) -> Runs:
    """All results on a domain."""
    found = results("universal")
    names = {
        (features, task, seed): result_name(domain, task, features, seed)
        for features in FEATURES
        for task in TASKS[domain]
        for seed in range(10)
    }
    return {key: found[name] for key, name in names.items() if name in found}


def seed_means(domain: str, runs: Runs, features: str, head: str) -> Iterator[float]:
    """Mean AUROC in percent over the tasks, of each seed that has run them all."""
    for seed in sorted({seed for _, _, seed in runs}):
        scores = [
            runs[key][head]["auroc"]
            for task in TASKS[domain]
            if (key := (features, task, seed)) in runs
        ]
        if len(scores) == len(TASKS[domain]):
            yield 100 * float(np.mean(scores))


def auroc_table(domain: str, runs: Runs) -> str:
    """Features by heads; features that not all tasks of a seed have been run with are left out."""
    means = {f: [list(seed_means(domain, runs, f, head)) for head in HEADS] for f in FEATURES}
    return table(
        [domain, *HEADS],
        ([f, *map(spread, columns)] for f, columns in means.items() if columns[0]),
    )


def better(runs: Runs, one: str, other: str) -> str:
    """In how many pairs of task and seed the features ``one`` beat the features ``other``, by
    head.
    """
    keys = sorted({(task, seed) for _, task, seed in runs})
    pairs = [
        (runs[one, t, s], runs[other, t, s])
        for t, s in keys
        if (one, t, s) in runs and (other, t, s) in runs
    ]
    wins = {head: sum(a[head]["auroc"] > b[head]["auroc"] for a, b in pairs) for head in HEADS}
    counts = ", ".join(f"{head} {won}" for head, won in wins.items())
    return f"Of {len(pairs)} pairs of task and seed, `{one}` beat `{other}` in: {counts}."


def part(domain: str, runs: Runs) -> str:
    """The table of one domain and what is read off it."""
    seconds = spread(
        run["seconds"] for (features, _, _), run in runs.items() if features == "in-domain"
    )
    return f"""{auroc_table(domain, runs)}
{better(runs, "universal", "in-domain")}
{better(runs, "universal", "random")}

Learning in-domain features took {seconds} CPU seconds a task.
"""


def section() -> str:
    """The tables, and in how many tasks each side was better."""
    found = {domain: runs for domain in TASKS if (runs := stored(domain))}
    if not found:
        return ""
    parts = "\n".join(part(domain, runs) for domain, runs in found.items())
    return f"""## Universal features: `python -m experiments.universal`

Is one frozen encoder, trained without labels on other images, as good as one trained on the task's
own (arXiv:2105.09270)? `universal` is a residual encoder of 128 features, trained by VICReg on
24,500 images of five classes of CIFAR-10 (jpeg) ({EPOCHS["universal"]} epochs, 764 steps), once
for all tasks; `in-domain` the same encoder and rule on the {NUM_TRAIN} normal images of one task
alone ({EPOCHS["in-domain"]} epochs, 140 steps; 560 in the row `in-domain, longer`, where there is
one); `random` the same encoder untrained. The first two differ in domain, and also in how
many images and steps they learnt from: this measures what the {NUM_TRAIN} images of a task can
teach, and does not compare domains at equal data. Tasks: each of the other five classes of
CIFAR-10 (jpeg) against the other four, and digits {", ".join(map(str, TASKS["MNIST"]))} of MNIST
against the other nine. Features of encoders are L2-normalised, and heads are not tuned. AUROC in
percent, means over tasks; chance is 50.

{parts}"""
