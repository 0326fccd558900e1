"""How good are posterior draws, and do better ones make better priors?
``python -m experiments.posteriors``

Part *grid*: draws of each method for data of the pinwheel, under the true prior and decoder,
against the exact posterior by quadrature. Part *nuts*: the same for a decoder of six latents,
against long chains of NUTS. Part *priors*: the prior of the pinwheel, learnt by two rules with
posterior draws of increasing quality, the exact ones included.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.common import HERE, Clock, cached, prepare, settings
from experiments.posteriors.methods import NAMES, draw, method
from experiments.posteriors.truth import (
    GridPosterior,
    Wide,
    fit_encoder,
    nuts,
    pinwheel_model,
    small_model,
)
from latent_ebm.data.pinwheel import RATE, STRETCH, Pinwheel, rotate
from latent_ebm.metrics import grid_kl
from latent_ebm.model import LatentModel
from samplers import split_rhat

PARTS = ("grid", "nuts", "priors")
LEARNT_WITH = (
    "published",
    "hmc",
    "persistent",
    "annealed",
    "restarts",
    "encoder_restarts",
    "exact",
)
RULES = ("mle", "ratio")
SIZES: dict[str, dict[str, Any]] = {
    "grid": {"step": 0.01, "draws": 100, "data": 50},
    "nuts": {"step": 0.02, "draws": 200, "data": 5, "nuts": 1000},
}
Measure = Callable[[Tensor], dict[str, float]]


def first_arm(z: Tensor) -> Tensor:
    """Whether latents z (..., 2) lie on the first arm of the pinwheel: the modes."""
    u = z / STRETCH
    return rotate(u, -RATE * torch.linalg.vector_norm(u, dim=-1).exp())[..., 0] > 0


def grid_measure(model: LatentModel, x: Tensor) -> Measure:
    """The distance of draws (draws, batch, 2) from the exact posterior of x (batch, 2)."""
    grid = GridPosterior()
    masses = grid.masses(model, x)
    coarse, arm = grid.coarse(masses), masses @ first_arm(grid.points).float()
    mean = masses @ grid.points
    spread = (masses @ grid.points.square() - mean.square()).sum(1).sqrt()

    def measure(z: Tensor) -> dict[str, float]:
        wrong = (first_arm(z).float().mean(0) - arm).abs()
        error = torch.linalg.vector_norm(z.mean(0) - mean, dim=1) / spread
        return {
            "tv": (grid.shares(z) - coarse).abs().sum(1).mean().item() / 2,
            "wrong_shares": (wrong > 0.2).float().mean().item(),
            "mean_error": error.square().mean().sqrt().item(),
        }

    return measure


def nuts_measure(exact: Tensor) -> Measure:
    """The distance of draws (draws, batch, dim) from those of NUTS, (num, batch, dim)."""
    mean, std = exact.mean(0), exact.std(0)
    ordered = exact.flatten(1).mT.sort(1).values.contiguous()
    level = torch.arange(1, len(exact) + 1) / len(exact)

    def measure(z: Tensor) -> dict[str, float]:
        draws = z.flatten(1).mT.sort(1).values.contiguous()
        below = torch.searchsorted(draws, ordered, right=True) / len(z)
        return {
            "kolmogorov": (below - level).abs().amax(1).mean().item(),
            "mean_error": ((z.mean(0) - mean) / std).square().mean().sqrt().item(),
            "log_std_error": (z.std(0) / std).log().square().mean().sqrt().item(),
        }

    return measure


def compare(
    model: LatentModel, x: Tensor, measure: Measure, options: dict[str, Any], names: list[str]
) -> dict[str, Any]:
    """What ``measure`` says of every method, its calls of the decoder and CPU seconds."""
    num, dim = options["draws"], model.prior.base.sample(1).shape[1]
    generator = torch.Generator().manual_seed(options["seed"])
    encoder, found = fit_encoder(model, options["seed"]), {}
    for name in names:
        torch.manual_seed(options["seed"])
        ways = options["calls"], encoder, num * len(x), dim, options["step"]
        begin = time.process_time()
        z, calls = draw(method(name, *ways), model, x, num, generator)
        seconds = time.process_time() - begin
        found[name] = {**measure(z), "calls": calls, "seconds": seconds}
    return found


def run_grid(options: dict[str, Any]) -> dict[str, Any]:
    """All methods on test data of the pinwheel."""
    model = pinwheel_model()
    x = Pinwheel(num_train=5 * options["data"], seed=options["seed"]).load()[2][0]
    return compare(model, x, grid_measure(model, x), options, list(NAMES))


def run_nuts(options: dict[str, Any]) -> dict[str, Any]:
    """All methods on data of a decoder of six latents."""
    seed = options["seed"]
    model = small_model(seed)
    generator = torch.Generator().manual_seed(seed)
    z = model.prior.sample(options["data"], generator=generator)
    torch.manual_seed(seed)
    x = model.likelihood(z).sample()
    chains = [
        torch.stack([nuts(model, row[None], options["nuts"], k) for row in x], 1)
        for k in (2 * seed, 2 * seed + 1)
    ]
    rhat = split_rhat(torch.stack(chains, 1)).max().item()
    names = [name for name in NAMES if name != "exact"]
    found = compare(model, x, nuts_measure(chains[0]), options, names)
    return {**found, "exact": nuts_measure(chains[0])(chains[1]), "rhat": {"max": rhat}}


def run_prior(rule: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """KL of the prior that ``rule`` learns with draws of the method ``name``, and how good these
    draws are under the true prior. An encoder is fitted to draws of the base alone.
    """
    truth, seed, step = pinwheel_model(), options["seed"], SIZES["grid"]["step"]
    wide = LatentModel(Wide(2), truth.likelihood)
    encoder = fit_encoder(wide, seed) if name == "encoder_restarts" else None
    make = partial(method, name, options["calls"], encoder, dim=2, step=step)
    x = Pinwheel(num_train=5 * 50, seed=seed).load()[2][0]
    z, _ = draw(make(num_chains=100 * 50), truth, x, 100, torch.Generator().manual_seed(seed))
    quality = grid_measure(truth, x)(z)
    overrides = [
        f"--seed_everything={seed}",
        f"--data.init_args.seed={seed}",
        f"--trainer.max_epochs={options['epochs']}",
        "--model.init_args.optimizer.init_args.lr=0.001",
    ]
    cli = prepare(HERE / "pinwheel" / f"{rule}.yaml", overrides)
    cli.model.posterior = make(num_chains=cli.datamodule.num_train)
    if rule == "ratio":
        cli.model.validation = make(num_chains=cli.datamodule.num_train // 5)
    box = (-6.0, -6.0), (6.0, 6.0)
    clock = Clock(lambda rule: {"kl": grid_kl(truth.prior, rule.model.prior, *box, num=300)})
    cli.trainer.callbacks.append(clock)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return {**clock.curve[-1], **quality, "curve": clock.curve}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--calls", type=int, nargs="+", default=[40, 160])
    parser.add_argument("--rules", nargs="+", default=RULES, choices=RULES)
    parser.add_argument("--methods", nargs="+", default=LEARNT_WITH, choices=LEARNT_WITH)
    parser.add_argument("--epochs", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for seed in args.seeds:
        for part, compute in {"grid": run_grid, "nuts": run_nuts}.items():
            for calls in args.calls if part in args.parts else ():
                options = {"seed": seed, "calls": calls, **SIZES[part]}
                cached(f"posteriors/{part}-{calls}-{seed}", options, partial(compute, options))
        for rule in args.rules if "priors" in args.parts else ():
            for name in args.methods:
                options = {"seed": seed, "calls": 40, "epochs": args.epochs}
                config = settings(HERE / "pinwheel" / f"{rule}.yaml", method=name, **options)
                compute = partial(run_prior, rule, name, options)
                result = cached(f"posteriors/{rule}-{name}-{seed}", config, compute)
                print(f"  KL {result['kl']:.3f}  {result['seconds']:.0f} s", flush=True)
