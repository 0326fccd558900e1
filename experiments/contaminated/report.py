"""The section of the report on anomalies among the training rows."""

import numpy as np

from experiments.common import results
from experiments.contaminated.run import DETECTORS, SEEDS
from experiments.tables import spread, table


def section() -> str:
    """The table."""
    stored = results("contaminated")
    if not stored:
        return ""
    rows = []
    for name in DETECTORS:
        seeds = [
            [run[name] for key, run in stored.items() if key.endswith(f"-{seed}")]
            for seed in range(SEEDS)
        ]
        means = (
            [100 * float(np.mean([r[key] for r in runs])) for runs in seeds if runs]
            for key in ("auroc", "auprc")
        )
        rows.append([name, *(spread(values) for values in means)])
    return f"""## Anomalies among the training rows: `python -m experiments.contaminated`

The same sets, unsupervised: a random 70 per cent of all rows train, anomalies among them, the rest
test. `trim` leaves that fraction of the rows, those that fit the others least, out of a second
fit. Rows with a `trim` above 0 were measured with an earlier rule, which ranked rows by narrow
kernels; today's rule uses broad ones. Means over sets, in per cent; the detector without ratio
stages.

{table(["detector", "AUROC", "AUPRC"], rows)}"""
