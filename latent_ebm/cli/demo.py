"""``latent-ebm demo``: what a learned prior is good for, on the 8x8 digits of scikit-learn.

The decoder is trained at latents of images, so it draws digits at such latents. A Gaussian prior
also draws latents from elsewhere; a learned prior has moved to where the latents of images are.
"""

import logging
from pathlib import Path

import torch
from torch import Tensor

from latent_ebm.cli.demo_figures import draw
from latent_ebm.cli.demo_models import NUM_SETS, SET_SIZE, Result, train_all
from latent_ebm.cli.held_out import make_features
from latent_ebm.cli.inference import energy_terms, write_scores
from latent_ebm.data import Digits
from latent_ebm.metrics import frechet_distance, mmd, reconstruction_mse
from latent_ebm.priors import RatioPrior


def run_demo(out: Path, epochs: int, seed: int) -> None:
    """Train, print a table of held-out metrics, and write figures and scores to the folder
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


def print_table(results: dict[str, Result], data: Digits) -> None:
    """Print held-out metrics, one line per prior; the last line says how far training images are
    from test images.
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
        f"\nHeld out: {len(test)} images. Reconstruction: mean squared error per pixel, with "
        "pixels in [-1, 1].\n"
        f"Frechet distance and MMD: {NUM_SETS} sets of {SET_SIZE} prior samples, in the features "
        "of a digit classifier,\n"
        "mean +- standard deviation. Low is good. log Z is that of the learned prior, summed over "
        "its stages."
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
