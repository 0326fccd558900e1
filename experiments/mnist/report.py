"""The section of the report on MNIST."""

from experiments.rules import NAMES, Runs, by_rule, columns
from experiments.tables import spread


def section() -> str:
    """The section on MNIST."""
    runs = by_rule("mnist")
    if not runs:
        return ""
    for run in (r for rs in runs.values() for r in rs):
        run["nll"] = (run["nll_lower"] + run["nll_upper"]) / 2
    quality = {
        "frechet": "Fréchet",
        "precision": "precision",
        "recall": "recall",
        "density": "density",
        "coverage": "coverage",
        "reconstruction_mse": "MSE / pixel",
    }
    cost = {"nll_lower": "NLL ≥", "nll_upper": "NLL ≤", "stages": "stages", "seconds": "CPU s"}
    steady = {
        "rhat": "split R-hat",
        "ess_per_draw": "ESS / draw",
        "frechet_1x": "Fréchet 1x",
        "frechet_10x": "10x",
        "frechet_60x": "60x",
    }
    pictures = " ".join(f"![{NAMES[rule]}](figures/mnist-{rule}.png)" for rule in runs)
    return f"""## MNIST, one backbone, four priors: `python -m experiments.mnist`

20,000 training images, 4 passes, 16 latents, a decoder with maps of 32 and 16 channels, sigma .3,
one posterior chain per datum of 10 steps a pass. Samples (1,000) are compared with as many test
images in the features of a classifier that this library trains; MSE is in [-1, 1]; NLL in nats per
image, a bracket by annealed importance sampling on 10 test images.

{columns(runs, quality)}
{columns(runs, cost)}
{columns(runs, steady)}
{wall_time(runs)}
Where the lower NLL exceeds the upper one, chains did not reach the posterior, and only the upper
one holds.

{pictures}

Left to right: {", ".join(NAMES[rule] for rule in runs)}. A GPU user would take 64 channels, all
images, 100 passes and 40 posterior steps, as in the published experiments.
"""


def wall_time(runs: Runs) -> str:
    """Cost of the ratio rule over that of maximum likelihood."""
    pairs = zip(runs.get("ratio", []), runs.get("mle", []), strict=False)
    return (
        "Training time of `ratio` over `mle`: "
        f"{spread(a['seconds'] / b['seconds'] for a, b in pairs)}."
    )
