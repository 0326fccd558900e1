"""The section of the report on MNIST."""

from experiments.claims import Claim, decided, difference
from experiments.rules import NAMES, Runs, by_rule, columns, paired
from experiments.tables import spread, together

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
the upper one holds. Where a check of `prior_log_z` speaks against its interval of log Z, neither
bound does.

{columns(runs, COST)}
{together(doubts(runs), wall_time())}

Do chains of the prior converge? Diagnostics of them, and the Fréchet distance of samples by chains
of the training length (1x), and of 10 and 60 times that length.

{columns(runs, STEADY)}
{pictures}

Samples, from left to right: {", ".join(NAMES[rule] for rule in runs)}. The published experiments
take 64 channels, all images, 100 passes and 40 posterior steps, for which one needs a GPU.
"""


def doubts(runs: Runs) -> str:
    """Which bounds of the NLL are not to be trusted, in a sentence."""
    checked = sum("log_z_reliable" in run for found in runs.values() for run in found)
    if not checked:
        return ""
    return (
        f"Checks were made in {checked} runs. log Z is reported as unreliable for "
        f"{those(runs, 'log_z_reliable')}. The lower bound exceeds the upper one for "
        f"{those(runs, 'nll_lower_reliable')}."
    )


def those(runs: Runs, key: str) -> str:
    """The priors some of whose runs say 0 under ``key``, and how many of them do."""
    said = {rule: [run[key] for run in found if key in run] for rule, found in runs.items()}
    told = [
        f"{NAMES[rule]} ({values.count(0)} of {len(values)})"
        for rule, values in said.items()
        if 0 in values
    ]
    return ", ".join(told) or "none"


def wall_time() -> str:
    """Cost of the ratio rule over that of maximum likelihood."""
    pairs = paired("mnist", ("ratio", "mle"))
    quotients = spread(pair["ratio"]["seconds"] / pair["mle"]["seconds"] for pair in pairs)
    return (
        f"Training the multi-stage ratio takes {quotients} times as long as maximum likelihood, "
        "which was measured on another day than the other rules."
    )
