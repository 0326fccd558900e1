"""The same backbone and budget, four priors: samples, reconstructions and likelihood on MNIST.

``LATENT_EBM_DATA=DIR python -m experiments.mnist`` (the directory of the four IDX files).
"""

import argparse
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from experiments.common import HERE, Clock, cached, settings, train
from experiments.pictures import save_images
from latent_ebm.cli.held_out import make_features
from latent_ebm.data import MNIST
from latent_ebm.evaluation.held_out import evaluate
from latent_ebm.priors import RatioPrior

RULES = ("gaussian", "one_ratio", "mle", "ratio")


@cache
def feature_space() -> Callable[[Tensor], Tensor] | None:
    """Features in which all samples are compared: a classifier of one fixed training set, whatever
    the seed of a run.
    """
    data = MNIST(seed=0)
    data.setup()
    return make_features(data.train)


def run(rule: str, seed: int) -> dict[str, Any]:
    """Train ``rule`` with ``seed``, draw samples, and evaluate on test images."""
    clock = Clock()
    overrides = [f"--seed_everything={seed}", f"--data.init_args.seed={seed}"]
    learnt, data = train(HERE / "mnist" / f"{rule}.yaml", overrides, clock)
    generator = torch.Generator().manual_seed(seed)
    figures = evaluate(
        learnt.model,
        learnt.inference,
        data.train.x,
        data.test.x,
        features=feature_space(),
        num_samples=1000,
        num_nll=10,
        generator=generator,
    )
    if seed == 0:
        with torch.no_grad():
            x = learnt.model.sample(64, generator=generator)
            save_images(x, f"mnist-{rule}", colours=8)
    prior = learnt.model.prior
    stages = (
        {"stages": len(prior.stages), "log_z": float(prior.log_z)}
        if isinstance(prior, RatioPrior)
        else {}
    )
    return {**figures, **stages, "seconds": clock.curve[-1]["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rules", nargs="+", default=RULES, choices=RULES)
    args = parser.parse_args()
    for seed in args.seeds:
        for rule in args.rules:
            config = settings(HERE / "mnist" / f"{rule}.yaml", seed=seed, evaluation=2)
            result = cached(f"mnist/{rule}-{seed}", config, partial(run, rule, seed))
            print("  " + "  ".join(f"{k} {v:.4g}" for k, v in result.items()), flush=True)
