"""Why an interval of log Z may miss the truth."""

import math
from collections.abc import Iterator

from torch import Tensor

from latent_ebm.priors import Prior, RatioPrior
from samplers import effective_sample_size

LEAST_CHAINS = 20.0  # effective number of chains, or of draws, below which they say little
DOUBT = 0.5  # nats by which two estimates may differ
BEYOND = 0.1  # share of chains back that may lie beyond all chains forth


def reasons(
    prior: Prior,
    estimate: float,
    from_base: float,
    forth: Tensor,
    back: Tensor,
) -> Iterator[str]:
    """Sentences that say why an interval may miss the truth: its parts disagree."""
    for name, log_weight in (("to", forth), ("back from", back)):
        chains = len(log_weight) * effective_sample_size(log_weight).item()
        if chains < LEAST_CHAINS:
            yield f"only {chains:.0f} of {len(log_weight)} chains {name} the prior have weight"
    if estimate - from_base > DOUBT:
        share = math.exp(from_base - estimate)
        yield f"chains from the base find {share:.1%} of the mass that chains from draws find"
    if from_base - estimate > DOUBT:
        yield f"chains from the base find {from_base:.2f}, more than chains from draws find"
    if isinstance(prior, RatioPrior) and abs(prior.log_z.item() - estimate) > DOUBT:
        yield f"the stages of the prior telescope to {prior.log_z.item():.2f}"


def reasons_of_draws(draws: Tensor | None, forth: Tensor, known: Tensor | None) -> Iterator[str]:
    """Sentences that say what posterior ``draws`` (n, dim) speak against, or cannot vouch for.
    ``known`` are the log-weights (n,) of chains back from them.
    """
    if draws is None or known is None:
        yield "no posterior draws were given: a mode that no chain reaches is not seen"
        return
    if (different := len(draws.unique(dim=0))) < LEAST_CHAINS:
        yield (
            f"fewer than {LEAST_CHAINS:.0f} different posterior draws were given, {different}, "
            "which may miss a mode"
        )
    if (beyond := (-known > forth.max()).double().mean().item()) > BEYOND:
        yield f"{beyond:.0%} of the posterior draws lie where no chain to the prior came"
