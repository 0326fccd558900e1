"""What a calibrated detector says of new rows, how few of them it could select, and what speaks
against it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latent_ebm.detection.exchangeability import FALSE_ALARMS, order_p_value, shift_p_value
from latent_ebm.detection.selection import rows_to_hold_out, smallest_selection


class Findings(NamedTuple):
    """What a calibrated detector says of n new rows.

    ``scores`` (n,), low is unusual; ``p_values`` (n,); ``selected`` (n,), true for those that
    stand out while at most a fraction ``alpha`` of them is expected to be a false alarm;
    ``normal_scores`` (m,) of the held-out normal rows that the p-values compare with;
    ``threshold``: a fraction ``alpha`` of normal rows scores below it; ``warnings``: sentences on
    why the promises may not hold; ``num_folds``: of cross-conformal p-values, or None.
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
        """How many rows are selected at least, if any is: so many must lie beyond every normal
        row.
        """
        return smallest_selection(len(self.scores), len(self.normal_scores) + 1, self.alpha)

    @property
    def enough(self) -> int:
        """How many normal rows must be held out for a single new row to be selected."""
        return rows_to_hold_out(len(self.scores), self.alpha)

    @property
    def by_chance(self) -> float:
        """How many of as many normal rows lie beyond the held-out ones on average."""
        return len(self.scores) / (len(self.normal_scores) + 1)


def order_warnings(x: NDArray[np.float64], noun: str) -> list[str]:
    """A warning if the order of the normal rows x (n, d), called ``noun``, tells something about
    them.
    """
    p = order_p_value(x)
    if p > FALSE_ALARMS:
        return []
    return [
        f"The order of the normal {noun} is not a random one: neighbours in it are more alike "
        "than chance would have it "
        f"(p = {p:.2g}). If it runs through days, machines or people, {noun} of other ones get "
        "smaller p-values than "
        f"promised. The promises hold if normal and new {noun} were drawn at random from the "
        "same ones."
    ]


def shift_warnings(findings: Findings, noun: str) -> list[str]:
    """A warning if more of the new rows score low than chance and a tenth of unusual ones
    explain.
    """
    p = shift_p_value(findings.p_values, len(findings.normal_scores))
    if p > FALSE_ALARMS:
        return []
    num, low, half = len(findings.scores), *((findings.p_values <= q).sum() for q in (0.1, 0.5))
    return [
        f"Of the {num} new {noun}, {low} score in the lowest tenth of the normal {noun} and "
        f"{half} in the lower half: more "
        f"than chance explains if at most a tenth of them is unusual (p = {p:.2g}). Unless you "
        "expect so many unusual "
        f"{noun}, the new ones come from another source than the normal ones, and the promises "
        "on false alarms do not hold."
    ]
