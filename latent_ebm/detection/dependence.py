r"""What never happens in the training rows of a table, although each column alone would allow it.

The kernels of a table have one width, in which two things are lost: a combination of columns that
is the same in all rows (``x3 = x1``, parts that sum to a total), and a combination of one-hot
columns that no row has. ``dependence`` finds a linear map of rows that shows both. A second view
of the detector has kernels of width 1 under this map: its energy is next to nothing for usual rows
and tens or thousands of nats for others.
"""

import torch
from torch import Tensor, nn

CONSTANT = 0.01  # a combination of standardised columns that spreads less than this is constant
PRECISION = 1e-3  # of standardised columns: a combination that is off by less is rounded, not off
APART = 10.0  # kernel widths between the two values of a column
MAX_UNSEEN = 0.01  # largest part of new rows that may have combinations which no row has


@torch.no_grad()
def dependence(x: Tensor) -> nn.Linear | None:
    """The map that shows broken rules of standardised rows x (n, d) in random order: (n, d) ->
    (n, k). None without rules.
    """
    weight = torch.cat([constant_combinations(x), two_valued_columns(x)])
    if not len(weight):
        return None
    features = nn.Linear(x.shape[1], len(weight)).to(x)
    features.weight.copy_(weight)
    features.bias.copy_(-weight @ x.mean(0))
    return features.requires_grad_(False)


def constant_combinations(x: Tensor) -> Tensor:
    """Combinations (k, d) of two or more columns that are constant, in units of their spread.

    They are principal axes of half of the rows which the other half confirms. A single constant
    column is none, because nothing says in which unit it would move.
    """
    varies = (x != x[0]).any(0)
    weight = x.new_zeros(int(varies.sum()), x.shape[1])
    half, other = ((part - x.mean(0))[:, varies] for part in (x[::2], x[1::2]))
    if len(other) <= len(weight):  # too few rows: some axes have no spread whatever the rows
        return weight[:0]
    _, axes = torch.linalg.eigh(half.mT @ half)
    spread = torch.stack([(part @ axes).square().mean(0) for part in (half, other)]).amax(0).sqrt()
    weight[:, varies] = (axes / spread.clamp(min=PRECISION)).mT
    return weight[spread < CONSTANT]


def two_valued_columns(x: Tensor) -> Tensor:
    """Columns of two values, as those of one-hot codes, in units of the kernels: (k, d).

    A column counts if new rows are expected to repeat a combination of such columns. The part of
    them that do not is estimated by that of the rows whose combination is unique (Good 1953).
    """
    low, high = x.amin(0), x.amax(0)
    binary = ((x == low) | (x == high)).all(0) & (low < high)
    chosen, group = [], torch.zeros(len(x), dtype=torch.long)
    for j in binary.nonzero().flatten().tolist():
        _, finer, counts = (2 * group + (x[:, j] == high[j])).unique(
            return_inverse=True, return_counts=True
        )
        if int((counts == 1).sum()) <= MAX_UNSEEN * len(x):
            chosen.append(j)
            group = finer
    weight = x.new_zeros(len(chosen), x.shape[1])
    for row, j in zip(weight, chosen, strict=True):
        row[j] = APART / (high[j] - low[j])
    return weight if len(chosen) > 1 else weight[:0]
