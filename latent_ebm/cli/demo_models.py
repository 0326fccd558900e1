"""The three models of the demo, trained.

They share the decoder, the posterior chains and the number of passes over the data; only the
prior differs: fixed and Gaussian, learned by MCMC maximum likelihood, or learned by stages of
density ratios.
"""

import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from latent_ebm.data import Digits
from latent_ebm.learning import MultiStageRatio, RatioStages, ShortRunMLE
from latent_ebm.learning.latent import LatentRule
from latent_ebm.likelihoods import GaussianLikelihood
from latent_ebm.model import LatentModel
from latent_ebm.networks import ConvDecoder, EnergyMLP
from latent_ebm.posteriors import MCMCPosterior
from latent_ebm.priors import EnergyPrior, GaussianPrior, Prior, RatioPrior
from samplers import MALA, Langevin, PersistentChains

DIM, CHANNELS, HIDDEN = 10, 16, (64, 64)
SCALE = 0.3  # of the observation noise, for pixels in [-1, 1]
POSTERIOR = Langevin(step_size=0.02, num_steps=10)
NUM_SETS, SET_SIZE = 5, 500  # of prior samples


class Result(NamedTuple):
    """A trained model, its reconstructions of held-out images, sets of samples of its prior,
    latents of prior and posterior, and the seconds of its training.
    """

    rule: LatentRule
    reconstructions: Tensor
    samples: list[Tensor]
    z_prior: Tensor
    z_posterior: Tensor
    seconds: float


class Tick(Callback):
    """Moves a progress bar by one after every epoch."""

    def __init__(self, bar: tqdm) -> None:
        self.bar = bar

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar.update()


def train_all(data: Digits, epochs: int, seed: int) -> dict[str, Result]:
    """A trained model for each prior, by the prior's name."""
    makers = {
        "Gaussian": gaussian,
        "maximum likelihood": maximum_likelihood,
        "density ratios": density_ratios,
    }
    results = {}
    with tqdm(total=len(makers) * epochs, unit="epoch") as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and loggers
        for name, make in makers.items():
            bar.set_description(f"{name:18}")
            results[name] = train(make, data, epochs, seed, bar)
    return results


def train(
    make: Callable[[int], LatentRule], data: Digits, epochs: int, seed: int, bar: tqdm
) -> Result:
    """Train the rule that ``make`` returns for a number of images, then draw from it."""
    torch.manual_seed(seed)
    start, rule = time.perf_counter(), make(len(data.train))
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        limit_val_batches=1.0 if isinstance(rule, MultiStageRatio) else 0,
        inference_mode=False,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Tick(bar)],
    )
    trainer.fit(rule, data)
    return collect(rule.eval(), data, time.perf_counter() - start)


@torch.no_grad()
def collect(rule: LatentRule, data: Digits, seconds: float) -> Result:
    """What the table and the figures show of a trained rule."""
    model, chains = rule.model, rule.get_submodule("posterior.start")
    z_prior = model.prior.sample(NUM_SETS * SET_SIZE)
    reconstructions = model.decode(rule.inference.sample(model, data.test.x))
    samples = list(model.decode(z_prior).split(SET_SIZE))
    return Result(rule, reconstructions, samples, z_prior, chains.get_buffer("particles"), seconds)


def gaussian(num_data: int) -> LatentRule:
    """A fixed prior: only the decoder learns."""
    model, posterior, inference = make_parts(GaussianPrior(DIM), num_data)
    return ShortRunMLE(model, posterior, make_optimizer, inference=inference)


def maximum_likelihood(num_data: int) -> LatentRule:
    """An energy prior by short-run MCMC (arXiv:2006.08205)."""
    prior = EnergyPrior(
        EnergyMLP(DIM, HIDDEN), GaussianPrior(DIM), Langevin(step_size=0.05, num_steps=60)
    )
    model, posterior, inference = make_parts(prior, num_data)
    return ShortRunMLE(model, posterior, make_optimizer, inference=inference, prior_lr=1e-3)


def density_ratios(num_data: int) -> LatentRule:
    """A ratio prior by adaptive stages (arXiv:2209.08739)."""
    prior = RatioPrior(GaussianPrior(DIM), [], MALA(step_size=0.1, num_steps=40))
    refresh = MALA(step_size=0.1, num_steps=2)
    stages = RatioStages(EnergyMLP(DIM, HIDDEN), DIM, pool_size=8000, refresh=refresh, min_ess=0.1)
    model, posterior, inference = make_parts(prior, num_data)
    return MultiStageRatio(
        model, posterior, stages, make_optimizer, inference=inference, prior_lr=3e-3
    )


def make_parts(prior: Prior, num_data: int) -> tuple[LatentModel, MCMCPosterior, MCMCPosterior]:
    """What the models share: the likelihood, one persistent chain per image in training, and
    chains from scratch, four times as long, for held-out images.
    """
    model = LatentModel(prior, GaussianLikelihood(ConvDecoder(DIM, (1, 8, 8), CHANNELS), SCALE))
    cold = Langevin(POSTERIOR.step_size, 4 * POSTERIOR.num_steps)
    return model, MCMCPosterior(POSTERIOR, PersistentChains(num_data, DIM)), MCMCPosterior(cold)


def make_optimizer(groups: object) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=2e-3)  # pyright: ignore[reportArgumentType]
