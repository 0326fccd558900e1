"""Bradley-Terry with ties on simulated ratings: strengths that were planted, and how often the
intervals of Elo hold them.
"""

from itertools import combinations
from typing import Any

import torch

from latent_ebm.data.base import make_generator
from latent_ebm.evaluation import Rating, rank
from latent_ebm.evaluation.ranking import as_elo

STRENGTHS = {"a": -0.6, "b": -0.15, "c": 0.2, "d": 0.55}  # their mean is 0
NU, PER_PAIR, STUDIES, REPLICATES, CONFIDENCE = 0.5, 100, 300, 2000, 0.99
RANKING = [STRENGTHS, NU, PER_PAIR, STUDIES, REPLICATES, CONFIDENCE]


def study(generator: torch.Generator) -> list[Rating]:
    """Ratings of every pair of models, drawn from Davidson's model."""
    ratings = list[Rating]()
    for a, b in combinations(STRENGTHS, 2):
        first, second = STRENGTHS[a], STRENGTHS[b]
        logits = torch.tensor([first, second, (first + second) / 2])
        chances = logits.exp() * torch.tensor([1, 1, NU])
        drawn = torch.multinomial(chances, PER_PAIR, True, generator=generator)
        ratings += [Rating(a, b, (a, b, None)[k]) for k in drawn.tolist()]
    return ratings


def simulate(seed: int) -> dict[str, Any]:
    """Of every study, the error of strengths and of nu, and the share of models whose interval
    holds the truth.
    """
    truth = torch.tensor(list(STRENGTHS.values()), dtype=torch.float64)
    generator, errors, held, nus = make_generator(seed, 7), [], list[float](), list[float]()
    for _ in range(STUDIES):
        found = rank(
            study(generator), confidence=CONFIDENCE, replicates=REPLICATES, generator=generator
        )
        errors.append(found.strength - truth)
        elo = as_elo(truth)
        held.append(((found.low <= elo) & (elo <= found.high)).double().mean().item())
        nus.append(found.nu)
    error = torch.stack(errors)
    return {
        "bias": error.mean(0).tolist(),
        "deviation": error.std(0).tolist(),
        "nu": sum(nus) / len(nus),
        "held": held,
    }
