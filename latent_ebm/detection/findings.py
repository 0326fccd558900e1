"""What a calibrated detector says about new rows, how many of them it can select at least, and
signs that its promises do not hold.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latent_ebm.detection.exchangeability import FALSE_ALARMS, order_p_value, shift_p_value
from latent_ebm.detection.selection import rows_to_hold_out, smallest_selection


class Findings(NamedTuple):
    """What a calibrated detector says about n new rows.

    Args:
        scores: (n,), low is unusual.
        p_values: (n,), small is unusual.
        selected: (n,), true for rows that stand out. At most a fraction ``alpha`` of them is
            expected to be a false alarm.
        normal_scores: scores (m,) of the held-out normal rows that the p-values compare with.
        threshold: a fraction ``alpha`` of normal rows scores below it.
        alpha: the level.
        warnings: sentences on why the promises may not hold.
        num_folds: number of folds of cross-conformal p-values, or None.
    """

    scores: NDArray[np.float64]
    p_values: NDArray[np.float64]
    selected: NDArray[np.bool_]
    normal_scores: NDArray[np.float64]
    threshold: float
    alpha: float
    warnings: tuple[str, ...] = ()
    num_folds: int | None = None

    @property
    def beyond(self) -> NDArray[np.bool_]:
        """Which (n,) of the new rows look more unusual than every held-out normal row."""
        return np.rint(self.p_values * (len(self.normal_scores) + 1)) == 1

    @property
    def smallest(self) -> int:
        """The smallest number of rows that can be selected. So many must lie beyond every normal
        row.
        """
        return smallest_selection(len(self.scores), len(self.normal_scores) + 1, self.alpha)

    @property
    def enough(self) -> int:
        """How many normal rows must be held out so that a single new row can be selected."""
        return rows_to_hold_out(len(self.scores), self.alpha)

    @property
    def by_chance(self) -> float:
        """How many rows would lie beyond every held-out row on average if all were normal."""
        return len(self.scores) / (len(self.normal_scores) + 1)


def order_warnings(x: NDArray[np.float64], noun: str) -> list[str]:
    """A warning if normal rows x (n, d), called ``noun``, are more alike when they lie close
    together.
    """
    p = order_p_value(x)
    if p > FALSE_ALARMS:
        return []
    return [
        f"The order of the normal {noun} is not random: {noun} that lie close together are more "
        f"alike than by chance (p = {p:.2g}). If they come from several days, machines or people, "
        f"then {noun} from other days, machines or people get smaller p-values than promised. The "
        f"promises hold if normal and new {noun} were drawn at random from the same source."
    ]


def shift_warnings(findings: Findings, noun: str) -> list[str]:
    """A warning if more of the new rows score low than by chance and with a tenth of unusual
    rows.
    """
    p = shift_p_value(findings.p_values, len(findings.normal_scores))
    if p > FALSE_ALARMS:
        return []
    num, low, half = len(findings.scores), *((findings.p_values <= q).sum() for q in (0.1, 0.5))
    return [
        f"Of the {num} new {noun}, {low} score in the lowest tenth of the normal {noun} and "
        f"{half} in the lower half: more than by chance if at most a tenth of them is unusual "
        f"(p = {p:.2g}). Unless you expect so many unusual {noun}, the new ones come from another "
        "source than the normal ones, and the promises on false alarms do not hold."
    ]
