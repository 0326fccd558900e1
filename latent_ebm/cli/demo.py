"""``latent-ebm demo``: what a learned prior is good for, on the 8x8 digits that scikit-learn
carries.

Three models share the decoder, the posterior chains and the number of passes over the data; only
the prior differs: fixed and Gaussian, learned by MCMC maximum likelihood, learned by stages of
density ratios. As the decoder is trained at latents of images, it draws digits where those lie. A
Gaussian prior also draws latents from elsewhere; a learned one has moved to them.
"""

import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from latent_ebm.cli.demo_figures import draw
from latent_ebm.cli.held_out import make_features
from latent_ebm.cli.inference import energy_terms, write_scores
from latent_ebm.data import Digits
from latent_ebm.learning import MultiStageRatio, RatioStages, ShortRunMLE
from latent_ebm.learning.latent import LatentRule
from latent_ebm.likelihoods import GaussianLikelihood
from latent_ebm.metrics import frechet_distance, mmd, reconstruction_mse
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
    """A trained model: held-out reconstructions, samples of the prior (set by set), latents of
    both laws, seconds.
    """

    rule: LatentRule
    reconstructions: Tensor
    samples: list[Tensor]
    z_prior: Tensor
    z_posterior: Tensor
    seconds: float


class Tick(Callback):
    """Moves a progress bar by one each epoch."""

    def __init__(self, bar: tqdm) -> None:
        self.bar = bar

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar.update()


def run_demo(out: Path, epochs: int, seed: int) -> None:
    """Train, print a table of held-out figures, and write figures and scores into the folder
    ``out``.
    """
    torch.set_num_threads(1)  # tensors this small gain nothing from more
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    data = Digits(seed=seed)
    data.setup()
    results = train_all(data, epochs, seed)
    print_table(results, data)
    draw(results, data, out)
    torch.manual_seed(seed)
    names = [str(i) for i in range(len(data.test))]
    write_scores(
        out / "scores.csv", energy_terms(results["density ratios"].rule, data.test.x), names
    )
    print(
        "\nLook at samples.png, reconstructions.png, prior_vs_posterior.png and scores.csv in "
        f"{out}/"
    )


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
    """Train the rule that ``make`` makes for a number of images, then draw from it."""
    torch.manual_seed(seed)
    start, rule = time.perf_counter(), make(len(data.train))
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        limit_val_batches=1.0 if rule.stages else 0,
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
    """What the table and the figures need of a trained rule."""
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
    """What the models share: the likelihood, a chain per datum in training, and cold chains four
    times as long.
    """
    model = LatentModel(prior, GaussianLikelihood(ConvDecoder(DIM, (1, 8, 8), CHANNELS), SCALE))
    cold = Langevin(POSTERIOR.step_size, 4 * POSTERIOR.num_steps)
    return model, MCMCPosterior(POSTERIOR, PersistentChains(num_data, DIM)), MCMCPosterior(cold)


def make_optimizer(groups: object) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=2e-3)  # pyright: ignore[reportArgumentType]


def print_table(results: dict[str, Result], data: Digits) -> None:
    """Held-out figures, a line a prior; the last line is how far training images are from test
    images.
    """
    features = make_features(data.train, channels=8)
    if features is None:
        raise ValueError("data must be labelled images")
    test = features(data.test.x)
    widths = [w * torch.pdist(test).median().item() for w in (0.25, 0.5, 1, 2, 4)]

    def distances(sets: list[Tensor]) -> list[str]:
        drawn = [features(x) for x in sets]
        return [
            spread([frechet_distance(z, test) for z in drawn], 2),
            spread([100 * mmd(z, test, widths) for z in drawn], 2),
        ]

    head = ("prior", "reconstruction", "Frechet", "100 MMD^2", "stages", "log Z", "seconds")
    rows = [row(name, result, distances(result.samples), data) for name, result in results.items()]
    rows.append(["(training images)", "", *distances([data.train.x[:SET_SIZE]]), "", "", ""])
    sizes = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for line in (head, *rows):
        print("  ".join(f"{cell:{size}}" for cell, size in zip(line, sizes, strict=True)).rstrip())
    print(
        f"\nHeld out: {len(test)} images. Reconstruction: mean squared error a pixel, pixels in "
        "[-1, 1]. Frechet distance"
        f"\nand MMD of {NUM_SETS} sets of {SET_SIZE} prior samples in the features of a digit "
        "classifier, +- standard"
        "\ndeviation. Low is good; log Z is that of the learned prior, by telescoping."
    )


def row(name: str, result: Result, distances: list[str], data: Digits) -> list[str]:
    prior = result.rule.model.prior
    staged = isinstance(prior, RatioPrior)
    stages, log_z = (str(len(prior.stages)), f"{prior.log_z.item():.2f}") if staged else ("", "")
    error = reconstruction_mse(data.test.x, result.reconstructions)
    return [name, f"{error:.4f}", *distances, stages, log_z, f"{result.seconds:.0f}"]


def spread(values: list[float], digits: int) -> str:
    """Mean, and standard deviation if there are several."""
    numbers = torch.tensor(values, dtype=torch.float64)
    text = f"{numbers.mean().item():.{digits}f}"
    return f"{text} +- {numbers.std().item():.{digits}f}" if len(values) > 1 else text
