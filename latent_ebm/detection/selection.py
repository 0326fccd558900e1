"""Which of many conformal p-values are small enough, decided in whole numbers.

A conformal p-value is ``count / size``: the ``count`` is one plus the number of held-out rows that
look at least as unusual, and the ``size`` is one plus the number of all held-out rows. A p-value
is often *exactly* at its limit, where a rounding error would decide. So counts are compared with
limits that are fractions, and every decision is exact.
"""

from fractions import Fraction
from math import ceil
from numbers import Real
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Method = Literal["bh", "by", "bonferroni", "none"]
METHODS: tuple[str, ...] = get_args(Method)
MAX_DENOMINATOR, SCALE = 10**7, 10**80


def exact(level: float) -> Fraction:
    """The fraction that ``level`` stands for: 1/10 for .1, which no binary number equals.

    It is the fraction with a denominator up to ten million that rounds to ``level``, or else the
    binary number itself.
    """
    level = float(level)  # numpy's float32 is no float to Fraction
    near = Fraction(level).limit_denominator(MAX_DENOMINATOR)
    return near if float(near) == level else Fraction(level)


def check_level(name: str, level: float, size: int) -> None:
    """Raise ``ValueError`` unless a p-value ``count / size`` can be at most ``level``, and
    ``level`` is below 1.
    """
    if not (isinstance(level, Real) and not isinstance(level, bool) and 1 / size <= level < 1):
        raise ValueError(
            f"{name} must lie in [{1 / size:.3g}, 1), got {level!r}: no p-value is below 1 / (n "
            f"+ 1) with the n = {size - 1} rows held out; more of them allow a smaller {name}"
        )


def select(
    counts: NDArray[np.integer], size: int, level: float, method: Method = "bh"
) -> NDArray[np.bool_]:
    """Which (m,) of the p-values ``counts / size`` (m,), tested together, are selected by
    ``method``.

    "bh" (Benjamini and Hochberg 1995) selects the k smallest p-values, with the largest k such
    that ``p_(k) <= level k / m``; "by" (Benjamini and Yekutieli 2001) such that ``p_(k) <= level k
    / (m (1 + 1/2 + ... + 1/m))``. "bonferroni" selects each p-value with ``p <= level / m``, and
    "none" each with ``p <= level``. Raises ``ValueError`` for another method.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    num = 1 if method == "none" else len(counts)
    bar = exact(level) * size / (num * (harmonic(num) if method == "by" else 1))
    values, sizes = np.unique(counts, return_counts=True)
    ranks = sizes.cumsum() if method in ("bh", "by") else np.ones_like(sizes)
    pairs = zip(values.tolist(), ranks.tolist(), strict=True)
    passed = [count for count, rank in pairs if count * bar.denominator <= rank * bar.numerator]
    return counts <= max(passed, default=0)


def smallest_selection(num: int, size: int, level: float) -> int:
    """The smallest number of ``num`` rows that "bh" selects, if it selects any."""
    return ceil(num / (exact(level) * size))


def rows_to_hold_out(num: int, level: float) -> int:
    """How many rows must be held out so that "bh" can select a single one of ``num`` rows."""
    return ceil(num / exact(level)) - 1


def harmonic(num: int) -> Fraction:
    """``1 + 1/2 + ... + 1/num``; for more than 1,000 terms rounded up, by less than 1e-60."""
    if num <= 1000:
        return sum((Fraction(1, i) for i in range(1, num + 1)), Fraction(0))
    return Fraction(sum(-(-SCALE // i) for i in range(1, num + 1)), SCALE)
