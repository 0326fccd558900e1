"""Numbers and tables of the report."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np


def spread(values: Iterable[float | None], digits: int = 3) -> str:
    """``mean +- standard deviation (number of seeds)``, to ``digits`` significant digits of the
    mean.
    """
    numbers = [v for v in values if v is not None and math.isfinite(v)]
    if not numbers:
        return "-"
    mean = float(np.mean(numbers))
    places = max(0, digits - 1 - math.floor(math.log10(abs(mean)))) if mean else digits
    text = f"{mean:.{places}f}"
    return (
        text
        + (f" ± {np.std(numbers, ddof=1):.{places}f}" if len(numbers) > 1 else "")
        + f" ({len(numbers)})"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def together(*parts: str) -> str:
    """The paragraphs and tables that are not empty."""
    return "\n\n".join(part for part in parts if part)


def with_missing(introduction: str, parts: Mapping[str, str]) -> str:
    """A section of named ``parts``, which says which of them are empty; nothing if all are."""
    told = not_run(name for name, part in parts.items() if not part)
    return together(introduction, told, *parts.values()) if any(parts.values()) else ""


def not_run(names: Iterable[str]) -> str:
    """A sentence on the parts that have no results; nothing if there are none."""
    missing = ", ".join(names)
    return f"Not run yet: {missing}." if missing else ""
