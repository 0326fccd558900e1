"""One trained encoder and decoder, many priors: ``LATENT_EBM_DATA=DIR python -m
experiments.backbone`` (the directory of the four IDX files of MNIST).

A variational autoencoder is trained for 20,000 updates, and held fixed. Then each prior learns
from draws of its encoder, for the same CPU seconds.
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from experiments.backbone.rivals import COMPONENTS, HIDDEN, LR, Flow, diffusion, mixture
from experiments.common import HERE, Clock, cached, prepare, settings
from experiments.mnist.run import feature_space
from experiments.pictures import pack
from experiments.training import Run
from latent_ebm.data.base import DataModule
from latent_ebm.evaluation.batches import decode, infer
from latent_ebm.evaluation.held_out import sample_quality
from latent_ebm.evaluation.normaliser import prior_log_z
from latent_ebm.learning import Variational
from latent_ebm.learning.base import LearningRule
from latent_ebm.metrics import frechet_distance, reconstruction_mse
from latent_ebm.posteriors import PosteriorLatents
from latent_ebm.priors import Prior, RatioPrior
from samplers import HMC

FOLDER = HERE / "backbone"
UPDATES = 20_000  # of the backbone, 100 images each
STAGED, RIVALS = ("one_ratio", "ratio"), {"diffusion": diffusion, "flow": Flow}
PRIORS = ("gaussian", "mixture", "mle", *STAGED, *RIVALS)
FIRST, NUM_LOOK = 1 / 32, 2000  # share of the time before the first look; its draws
NUM_SAMPLES, SHOWN = 5000, 20  # of all, and in the figure
LOG_Z = HMC(0.1, 5, 2)  # moves the chains that measure log Z


class Race(Clock):
    """Ends training after ``budget`` CPU seconds. It measures after a 32nd of them, a 16th, ...,
    and at their end.

    Weights are averaged, except for priors in stages, which are frozen one after the other. A look
    at such a prior shows the stages that are closed.
    """

    def __init__(self, budget: float, measure: Callable[[Any], dict[str, float]]) -> None:
        super().__init__(measure)
        self.budget, self.due, self.average = budget, FIRST * budget, None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if getattr(pl_module, "stages", None) is None:
            self.average = AveragedModel(pl_module, avg_fn=mean_so_far).eval()
        super().on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if self.average is not None:
            self.average.update_parameters(pl_module)
        self.record(pl_module)
        trainer.should_stop = self.seconds > self.budget

    def result(self, rule: LightningModule) -> Any:
        """The rule with averaged weights, or itself."""
        return rule if self.average is None else self.average.module

    def record(self, rule: LightningModule) -> None:
        if self.seconds >= self.due:
            self.due *= 2
            super().record(self.result(rule))


def mean_so_far(mean: Tensor, new: Tensor, num: Tensor | int) -> Tensor:
    """An exponential average of weights over a hundred updates; at first, over a tenth of the
    ``num`` updates so far.
    """
    return mean.lerp(new, max(0.01, 10 / (10 + int(num))))


def backbone(seed: int) -> Run:
    """The variational autoencoder."""
    options = (f"--seed_everything={seed}", f"--data.init_args.seed={seed}")
    return Run(f"vae-{seed}", FOLDER / "backbone.yaml", options, updates=UPDATES)


@cache
def trained(seed: int) -> tuple[Variational, DataModule]:
    """The backbone, held fixed, and its data."""
    run = backbone(seed)
    data = run.make().datamodule
    data.setup()
    return run.rule().requires_grad_(False), data


def encoded(seed: int, x: Tensor) -> Tensor:
    """Draws of the encoder (n, dim) for images x."""
    fixed, _ = trained(seed)
    return infer(fixed.model, fixed.posterior, x, generator=random(seed))


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def featured(x: Tensor) -> Tensor:
    """Images in the features of a classifier."""
    features = feature_space()
    if features is None:
        raise ValueError("the images must have labels, from which the features are learnt")
    with torch.no_grad():
        return features(x)


@cache
def reference(seed: int, num: int) -> Tensor:
    """So many test images in these features."""
    return featured(trained(seed)[1].test.x[:num])


def quality(seed: int, x: Tensor) -> dict[str, Any]:
    """How close images are to as many test images, and some of them."""
    return {**sample_quality(reference(seed, len(x)), featured(x)), "samples": pack(x[:SHOWN])}


def look(seed: int, rule: LearningRule) -> dict[str, float]:
    """The Fréchet distance of a few draws, while a prior learns; they leave its random stream
    alone.
    """
    x = rule.generate(NUM_LOOK, generator=random(seed))["x"]
    return {"frechet": frechet_distance(reference(seed, len(x)), featured(x))}


def rule_of(name: str, seed: int) -> tuple[Any, Any, DataModule]:
    """A trainer, the untrained rule ``name`` on the fixed backbone, and its data."""
    fixed, _ = trained(seed)
    config = FOLDER / "backbone.yaml" if name in RIVALS else HERE / "mnist" / f"{name}.yaml"
    cli = prepare(config, options(name, seed))
    if name in RIVALS:
        space = PosteriorLatents(fixed.model, fixed.posterior)
        dim = fixed.model.prior.base.sample(1).shape[1]
        return cli.trainer, RIVALS[name](space, dim), cli.datamodule
    rule = cli.model
    rule.model.likelihood = fixed.model.likelihood
    rule.posterior = rule.inference = rule.validation = fixed.posterior
    return cli.trainer, rule, cli.datamodule


def options(name: str, seed: int) -> list[str]:
    """What differs from the YAML file of a rule: all training images, and no end but that by
    time.
    """
    shared = [
        f"--seed_everything={seed}",
        f"--data.init_args.seed={seed}",
        "--data.init_args.num_train=null",
        "--data.init_args.num_val=1000",
        "--trainer.max_epochs=-1",
        *(f"--trainer.enable_{part}=false" for part in ("progress_bar", "model_summary")),
    ]
    if name in STAGED:
        return [*shared, "--model.init_args.train_likelihood=false"]
    return [*shared, "--trainer.limit_val_batches=0"]


def learn(name: str, seed: int, seconds: float) -> dict[str, Any]:
    """Train a prior for so many CPU seconds, and judge its draws."""
    trainer, rule, data = rule_of(name, seed)
    race = Race(seconds, partial(look, seed))
    trainer.callbacks.append(race)
    trainer.fit(rule, datamodule=data)
    learnt = race.result(rule).eval()
    drawn = learnt.generate(NUM_SAMPLES, generator=random(seed))["x"]
    found = {**quality(seed, drawn), "updates": trainer.global_step, "curve": race.curve}
    if name == "flow":
        return found | cross_entropy(seed, learnt.log_density)
    return found if name == "diffusion" else found | unnormalised(seed, learnt.model.prior)


@torch.no_grad()
def cross_entropy(seed: int, log_density: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """``-E log p(z)`` in nats over draws of the encoder for test images."""
    z = encoded(seed, trained(seed)[1].test.x)
    return {"cross_entropy": -log_density(z).mean().item()}


def unnormalised(seed: int, prior: Prior) -> dict[str, float]:
    """``cross_entropy`` of a prior that is known up to Z, and the interval of log Z in it."""
    draws = encoded(seed, trained(seed)[1].train.x[:500])
    log_z = prior_log_z(prior, LOG_Z, draws, generator=random(seed))
    stages = {"stages": len(prior.stages)} if isinstance(prior, RatioPrior) else {}
    return {
        **cross_entropy(seed, lambda z: prior.log_density(z) - log_z.estimate),
        **stages,
        "log_z_width": log_z.upper - log_z.lower,
        "log_z_reliable": float(log_z.is_reliable),
    }


def decoded_quality(seed: int, z: Tensor) -> dict[str, Any]:
    """How close decoded latents are to test images."""
    return quality(seed, decode(trained(seed)[0].model, z))


def fit_mixture(seed: int) -> dict[str, Any]:
    """The mixture of Gaussians, fitted to a draw of the encoder for each training image."""
    z, begin = encoded(seed, trained(seed)[1].train.x), time.process_time()
    fitted = mixture(z, seed)
    seconds = time.process_time() - begin
    draws = torch.from_numpy(fitted.sample(NUM_SAMPLES)[0]).float()
    found = cross_entropy(
        seed, lambda z: torch.from_numpy(fitted.score_samples(z.double().numpy()))
    )
    return {**found, **decoded_quality(seed, draws), "seconds": seconds}


def no_learning(seed: int) -> dict[str, Any]:
    """The Gaussian prior that the backbone was trained with."""
    prior = trained(seed)[0].model.prior
    draws = prior.sample(NUM_SAMPLES, generator=random(seed))
    return {**cross_entropy(seed, prior.log_density), **decoded_quality(seed, draws)}


def best_case(seed: int) -> dict[str, Any]:
    """Draws of the encoder for training images, what a perfect prior would reach; and the error
    of reconstructions.
    """
    fixed, data = trained(seed)
    draws = encoded(seed, data.train.x[:NUM_SAMPLES])
    with torch.no_grad():
        mean = fixed.posterior(data.test.x).mean
    error = reconstruction_mse(data.test.x, decode(fixed.model, mean))
    return {**decoded_quality(seed, draws), "mse": error, "backbone": backbone(seed).spent()}


FITTED = {"encoder": best_case, "gaussian": no_learning, "mixture": fit_mixture}


def result(name: str, seed: int, seconds: float) -> dict[str, Any]:
    """The result of a prior, computed if it is not there."""
    config: dict[str, Any] = {"backbone": backbone(seed).settings}
    if name in FITTED:
        compute = partial(FITTED[name], seed)
        config["components"] = COMPONENTS if name == "mixture" else 0
    else:
        compute = partial(learn, name, seed, seconds)
        rival = {"hidden": HIDDEN, "lr": LR}
        rule = rival if name in RIVALS else settings(HERE / "mnist" / f"{name}.yaml")
        config |= {"seconds": seconds, **rule}
    return cached(f"backbone/{name}-{seed}", config, compute)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--priors", nargs="+", default=PRIORS, choices=PRIORS)
    parser.add_argument("--seconds", type=float, default=300, help="CPU seconds of a prior")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for seed in args.seeds:
        for name in ("encoder", *args.priors):
            found = result(name, seed, args.seconds)
            nats = found.get("cross_entropy", math.nan)
            print(f"  Fréchet {found['frechet']:.1f}, {nats:.2f} nats", flush=True)
