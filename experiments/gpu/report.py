"""The section of the report on a GPU, from the stored outputs of this package."""

import re
from collections import Counter
from typing import Any

from experiments.common import results
from experiments.tables import table

Found = dict[str, Any]
UNITS = {"chain": "chains", "posterior": "images", "training": "K0/K1", "distillation": "steps K"}
COLUMNS = ("frechet", "precision", "recall", "coverage")


def section() -> str:
    """All tables there are."""
    found = results("gpu")
    speed, check, train = (found.get(name, {}) for name in ("speed", "check", "train"))
    parts = [speed_tables(speed)] if speed else []
    parts += [tests(check)] if check else []
    parts += [training(train)] if train else []
    return (
        "\n\n".join(["## On a GPU: `python -m experiments.gpu.<script>`", *parts]) if parts else ""
    )


def card(found: Found) -> str:
    """What something was measured on."""
    return "{device}, torch {torch}".format(**found["card"])


def speed_tables(speed: Found) -> str:
    """Milliseconds of every contestant in every setting."""
    ceilings = speed["ceilings"]
    parts = [
        f"`speed`, {card(speed)}: medians of milliseconds between events of the device. "
        "Ceilings: a copy moves "
        f"{ceilings['copied bytes/s'] / 1e12:.2f} TB/s, products do "
        f"{ceilings['float32 operations/s'] / 1e12:.0f} "
        f"(float32) and {ceilings['bfloat16 operations/s'] / 1e12:.0f} (bfloat16) 10^12 "
        "operations a second."
    ]
    heads = {
        "chain": "A chain of 60 Langevin steps in 100 dimensions; `captured` is one CUDA graph.",
        "posterior": "Ten steps of 100 posterior chains through a decoder of 64 channels.",
        "training": (
            "A training step of batch 100, 32x32, decoder of 64 channels, K0 prior and K1 "
            "posterior steps."
        ),
        "distillation": (
            "A step of EM distillation, 32x32, batch 64, three U-Nets of 64 channels, float32."
        ),
    }
    for prefix, head in heads.items():
        columns = {name: row for name, row in speed.items() if name.startswith(f"{prefix}-")}
        if columns:
            parts.append(f"{head}\n\n{side_by_side(columns, UNITS[prefix])}")
    if "ess" in speed:
        rows = [[name, f"{value:,.0f}"] for name, value in speed["ess"].items()]
        head = (
            "Effective samples a second, 100 chains of a Gaussian in 10 dimensions with "
            "correlations of .8."
        )
        parts.append(f"{head}\n\n{table(['', 'a second'], rows)}")
    for name, row in speed.items():
        if name.startswith("detector-"):
            num = int(name.removeprefix("detector-"))
            rate = num / row["LatentEBMDetector"][1]
            parts.append(
                f"`LatentEBMDetector` scores {num:,} rows of 20 columns at {rate:.0f} a "
                "millisecond."
            )
    return "\n\n".join(parts)


def side_by_side(columns: Found, unit: str) -> str:
    """A table with a row a contestant and a column a setting."""
    contestants = dict.fromkeys(name for column in columns.values() for name in column)
    names = [name.split("-", 1)[1].removesuffix("-64") for name in columns]
    rows = [
        [
            name,
            *(f"{column[name][1]:,.3g}" if name in column else "-" for column in columns.values()),
        ]
        for name in contestants
    ]
    return table([unit, *names], rows)


def tests(check: Found) -> str:
    """How many tests passed on the device, and where those that did not are."""
    files = Counter(name.split("::")[0].rsplit(".", 1)[-1] for name in check["names"])
    where = ", ".join(f"{name} {num}" for name, num in files.most_common())
    failed = f"{check['failed']} failed ({where})" if check["failed"] else "none failed"
    told = f"`check`, last run on {card(check)}: {check['passed']:,} tests passed, {failed}."
    if not check["failed"]:
        return told
    return f"{told} Where a kernel stops the card, all later tests of its process fail too."


def training(train: Found) -> str:
    """What was learnt on CIFAR-10 (jpeg)."""
    rows = [
        [
            re.sub(r"\b1 steps", "1 step", name),
            *(str(run.get(key, "-")) for key in ("seconds", "steps")),
            *(f"{run[key]:.3g}" if key in run else "-" for key in COLUMNS),
        ]
        for name, run in train.items()
        if name != "card"
    ]
    return f"""`train`, {card(train)}, CIFAR-10 (jpeg), one seed: seconds and steps of training,
and samples (2,500) against as many test images in the features of a classifier that this library
trains.

{table(["", "seconds", "steps", "Fréchet", "precision", "recall", "coverage"], rows)}"""
