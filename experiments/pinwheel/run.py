"""Which rule finds a known prior? ``python -m experiments.pinwheel``

Data are made from a two-arm pinwheel by a known decoder, which every rule is given: only the prior
is learnt. So the maximum-likelihood prior is the true one, and every prior is scored by its KL
divergence from it on a grid.
"""

import argparse
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.common import HERE, Clock, cached, settings, train
from latent_ebm.data import Pinwheel
from latent_ebm.evaluation import prior_log_z
from latent_ebm.evaluation.batches import infer
from latent_ebm.metrics import grid_kl, mmd
from latent_ebm.priors import GaussianPrior, Prior, RatioPrior
from samplers import HMC

RULES = ("gaussian", "one_ratio", "mle", "ratio", "langevin", "flow")
BOX = ((-6.0, -6.0), (6.0, 6.0))
LOG_Z, NUM_DRAWS = HMC(0.1, 5, 2), 500  # moves the chains that measure log Z; posterior draws


def measure(truth: Any, prior: Prior) -> dict[str, float]:
    """KL(true prior || learnt prior) in nats, and the number of closed stages."""
    stages = len(prior.stages) if isinstance(prior, RatioPrior) else 0
    return {"kl": grid_kl(truth.prior_log_prob, prior, *BOX, num=300), "stages": stages}


def run(rule: str, seed: int) -> dict[str, Any]:
    """Train ``rule`` on the data of ``seed`` and score its prior."""
    truth = Pinwheel()
    if rule == "gaussian":
        return score(truth, GaussianPrior(2), seed) | {"seconds": 0.0}
    clock = Clock(lambda rule: measure(truth, rule.model.prior))
    overrides = [f"--seed_everything={seed}", f"--data.init_args.seed={seed}"]
    learnt, data = train(HERE / "pinwheel" / f"{rule}.yaml", overrides, clock)
    prior, generator = learnt.model.prior, torch.Generator().manual_seed(seed)
    x = data.train.x[:NUM_DRAWS]
    draws = infer(learnt.model, learnt.inference, x, generator=generator)
    extra = normaliser(prior, draws, generator=generator)
    if isinstance(prior, RatioPrior):
        extra |= {"telescoped": float(prior.log_z), "weights": prior.weights.tolist()}
    return {**clock.curve[-1], **score(truth, prior, seed), "curve": clock.curve, **extra}


def normaliser(
    prior: Prior, draws: Tensor, *, generator: torch.Generator | None = None
) -> dict[str, float]:
    """log Z by quadrature, and its interval by chains and posterior ``draws`` (n, 2)."""
    found = prior_log_z(prior, LOG_Z, draws, generator=generator)
    return {
        "log_z": quadrature(prior),
        "log_z_lower": found.lower,
        "log_z_upper": found.upper,
        "log_z_reliable": float(found.is_reliable),
    }


@torch.no_grad()
def quadrature(prior: Prior, num: int = 600) -> float:
    """log Z by the midpoint rule on ``BOX``."""
    (low, _), (high, _) = BOX
    side = (high - low) / num
    ticks = low + side * (torch.arange(num) + 0.5)
    log_p = prior.log_density(torch.cartesian_prod(ticks, ticks))
    return log_p.double().logsumexp(0).item() + 2 * math.log(side)


def score(truth: Any, prior: Prior, seed: int) -> dict[str, Any]:
    """KL and MMD of ``prior`` from the truth, and its density for the picture."""
    generator = torch.Generator().manual_seed(seed)
    draws = truth.sample_prior(4000, generator=generator), prior.sample(4000, generator=generator)
    return {**measure(truth, prior), "mmd": mmd(*draws), "grid": density(prior)}


def density(prior: Any, num: int = 60) -> list[list[float]]:
    """Density on a coarse grid, for the picture: rounded, rows along the first axis."""
    ticks = torch.linspace(-4, 4, num)
    z = torch.cartesian_prod(ticks, ticks)
    with torch.no_grad():
        p = prior.log_density(z).softmax(0).view(num, num) / (8 / num) ** 2
    return [[round(value, 4) for value in row] for row in p.tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rules", nargs="+", default=RULES, choices=RULES)
    args = parser.parse_args()
    for seed in range(args.seeds):
        for rule in args.rules:
            file = HERE / "pinwheel" / f"{rule}.yaml"
            config = {"seed": seed} if not file.exists() else settings(file, seed=seed, log_z=True)
            result = cached(f"pinwheel/{rule}-{seed}", config, partial(run, rule, seed))
            print(
                f"  KL {result['kl']:.4f}  stages {result['stages']}  {result['seconds']:.0f} s",
                flush=True,
            )
