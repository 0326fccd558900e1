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

The sets of the section above, without supervision: a random 70 per cent of all rows are for
training, with their anomalies, and the rest for the test. `latent EBM` is `LatentEBMDetector`
without ratio stages. `trim` is the fraction of training rows that its second fit leaves out, those
that fit the others least. Means over sets, in per cent.

{table(["detector", "AUROC", "AUPRC"], rows)}"""
