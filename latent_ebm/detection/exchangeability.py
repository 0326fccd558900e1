"""Tests for signs that the promise of conformal p-values may not hold, with a known rate of false
alarms.

P-values are a promise about rows that are *exchangeable* with the held-out normal rows: like draws
from one source, in an order that tells nothing. Two kinds of violation can be seen in the data.
``order_p_value`` tests whether normal rows that lie close together in their file are alike, as
rows of one person, machine or week are; new rows will come from others. ``shift_p_value`` tests
whether more of the new rows score low than chance and a few unusual rows explain. Held-out rows
that were drawn at random need no test against the training rows.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom, rankdata
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_array

from samplers.checks import check_counts

MAX_ROWS, MAX_COLUMNS, NUM_PERMUTATIONS = 1000, 1000, 999
QUANTILES = (0.1, 0.25, 0.5)
MAX_UNUSUAL = 0.1  # part of the new rows that may be unusual without a word
FALSE_ALARMS = 0.01  # rate of each warning where all is well


def order_p_value(x: NDArray[np.float64], seed: int = 0) -> float:
    """The probability that rows x (n >= 2, d) in a random order are as similar to the rows
    beside them as they are in this order.

    It is a permutation test, exact if the order tells nothing. Its statistic is the mean of
    ``log(1 + gap)`` over rows; the gap is the distance in the file between a row and the row most
    similar to it, by ranks of the columns. Of more than a thousand rows or columns, a thousand are
    drawn at random.
    """
    x = check_array(x, ensure_min_samples=2)
    rng = np.random.default_rng(seed)
    place = rng.permutation(len(x))[:MAX_ROWS]
    columns = rng.permutation(x.shape[1])[:MAX_COLUMNS]
    ranks = rankdata(x[np.ix_(place, columns)], axis=0)
    nearest = NearestNeighbors(n_neighbors=1).fit(ranks).kneighbors(return_distance=False)[:, 0]

    def gap(place: NDArray[np.integer]) -> float:
        return float(np.log1p(np.abs(place - place[nearest])).mean())

    found = gap(place) * (1 + 1e-12)  # sums in another order may differ in the last digits
    as_near = sum(gap(rng.permutation(place)) <= found for _ in range(NUM_PERMUTATIONS))
    return (1 + as_near) / (1 + NUM_PERMUTATIONS)


def shift_p_value(p_values: NDArray[np.float64], num_held_out: int) -> float:
    """The probability of so many low conformal ``p_values`` (m,) if all rows but a tenth are
    normal.

    Among M normal rows, the number of those below the k-th of n held-out scores is beta-binomial
    with parameters (M, k, n + 1 - k); the other tenth may score anything. The test combines three
    quantiles k / (n + 1) by Bonferroni's rule. If the promise holds, the result is at most t with
    probability at most t.
    """
    check_counts("shift_p_value", num_held_out=num_held_out)
    p_values = check_array(p_values, ensure_2d=False)
    unusual = math.ceil(MAX_UNUSUAL * len(p_values))
    counts = np.rint(p_values * (num_held_out + 1))
    tails = []
    for quantile in QUANTILES:
        k = min(max(1, round(quantile * (num_held_out + 1))), num_held_out)
        low = int((counts <= k).sum()) - unusual
        tails.append(
            float(betabinom.sf(low - 1, len(p_values) - unusual, k, num_held_out + 1 - k))
        )
    return min(1.0, len(QUANTILES) * min(tails))
