"""The section of the report on MNIST."""

from experiments.claims import Claim, decided, difference
from experiments.rules import NAMES, by_rule, columns, paired
from experiments.tables import spread

CLAIMS = tuple(
    Claim(
        f"multi-stage ratio: smaller Fréchet distance than {NAMES[rule]}",
        difference("frechet", rule, "ratio"),
    )
    for rule in ("one_ratio", "mle")
)
QUALITY = {
    "frechet": "Fréchet",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "reconstruction_mse": "MSE / pixel",
}
COST = {"nll_lower": "NLL ≥", "nll_upper": "NLL ≤", "stages": "stages", "seconds": "CPU s"}
STEADY = {
    "rhat": "split R-hat",
    "ess_per_draw": "ESS / draw",
    "frechet_1x": "Fréchet 1x",
    "frechet_10x": "10x",
    "frechet_60x": "60x",
}


def section() -> str:
    """The section on MNIST."""
    runs = by_rule("mnist")
    if not runs:
        return ""
    pictures = " ".join(f"![{NAMES[rule]}](figures/mnist-{rule}.png)" for rule in runs)
    return f"""## MNIST, one backbone, four priors: `python -m experiments.mnist`

Each prior is trained on 20,000 images in 4 passes, with 16 latents, a decoder with maps of 32 and
16 channels, sigma .3, and one posterior chain per image of 10 steps a pass. 1,000 samples are
compared with as many test images, in the features of a classifier that this library trains. MSE is
that of pixels in [-1, 1].

{columns(runs, QUALITY)}
{decided(CLAIMS, paired("mnist", runs))}
NLL in nats per image: a lower and an upper bound by annealed importance sampling, on 10 test
images. Where the lower bound exceeds the upper one, chains did not reach the posterior, and only
the upper one holds.

{columns(runs, COST)}
{wall_time()}

Do chains of the prior converge? Diagnostics of them, and the Fréchet distance of samples by chains
of the training length (1x), and of 10 and 60 times that length.

{columns(runs, STEADY)}
{pictures}

Samples, from left to right: {", ".join(NAMES[rule] for rule in runs)}. The published experiments
take 64 channels, all images, 100 passes and 40 posterior steps, for which one needs a GPU.
"""


def wall_time() -> str:
    """Cost of the ratio rule over that of maximum likelihood."""
    pairs = paired("mnist", ("ratio", "mle"))
    quotients = spread(pair["ratio"]["seconds"] / pair["mle"]["seconds"] for pair in pairs)
    return f"Training the multi-stage ratio takes {quotients} times as long as maximum likelihood."
