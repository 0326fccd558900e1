"""The part of the report on EM Distillation of perceptrons."""

from typing import Any

from experiments.common import is_run, results, runs_of
from experiments.tables import spread, table


def section() -> str:
    """What perceptrons make of it, by teacher; empty until there is something to compare."""
    stored, parts = results("distillation_modes"), []
    names = {
        "dmd": "distribution matching",
        "em-8": "EM, K = 8",
        "dmd-equal-time": "distribution matching, four times the updates",
        "teacher": "the teacher itself",
    }
    keys = {
        "forward": "KL(teacher ‖ student)",
        "reverse": "KL(student ‖ teacher)",
        "modes": "modes",
        "precision": "precision",
        "recall": "recall",
        "seconds": "CPU s",
    }
    for target, size in (("digits", 80), ("ring", 8)):
        rows = []
        for rule, name in names.items():
            found = runs_of(stored, f"{target}-{rule}")
            if found:
                rows.append([name, *(spread(run.get(key) for run in found) for key in keys)])
        if len(rows) == len(names):
            parts.append(
                f"`{target}`, of {size} modes:\n\n{table(['rule', *keys.values()], rows)}"
            )
    if not parts:
        return ""
    tables = "\n".join(parts)
    return f"""### With nothing exact but the teacher: `python -m experiments.distillation_modes`

Students, and the denoisers of their samples, are perceptrons. KL divergences are between
distributions blurred by noise, by kernel estimates, whose error the teacher's row shows. Four
updates of distribution matching take the time of one with K = 8, and are the better use of it:
{against_matching(stored)} On the ring, whose noise merges the modes, the two are alike even at
equal updates.

{tables}"""


def against_matching(stored: dict[str, Any]) -> str:
    """On digits, in how many seeds K = 8 leaves less forward KL than distribution matching."""
    seeds = sorted(key.rsplit("-", 1)[1] for key in stored if is_run(key, "digits-em-8-"))
    held = [
        sum(
            stored[f"digits-em-8-{s}"]["forward"] < stored[f"digits-{rival}-{s}"]["forward"]
            for s in seeds
        )
        for rival in ("dmd", "dmd-equal-time")
    ]
    return (
        f"on digits K = 8 has the smaller forward divergence in {held[0]} of {len(seeds)} seeds "
        "at equal updates, and in "
        f"{held[1]} at equal time."
    )
