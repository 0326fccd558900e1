"""What importing costs, and what Lightning costs a step: ``python -m
experiments.benchmarks.startup``

Imports are timed in fresh interpreters, in CPU seconds, the unit being ``import torch``.
Lightning's overhead is measured against a loop over the same loader, on the smallest step there is
(a linear decoder, one posterior step) and on the quickstart's.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

from experiments.benchmarks.timing import Ratios, measured, ratios
from experiments.common import Clock
from latent_ebm import EnergyPrior, GaussianLikelihood, GaussianPrior, LatentModel, MCMCPosterior
from latent_ebm.learning import ShortRunMLE
from latent_ebm.networks import MLP, ConvDecoder, EnergyMLP
from samplers import Langevin

MODULES, ROUNDS, BATCH = ("torch", "samplers", "latent_ebm", "latent_ebm.learning"), 7, 32


def import_seconds(module: str) -> float:
    """CPU seconds of an import in a fresh interpreter."""
    code = (
        f"import time; start = time.process_time(); import {module}; print(time.process_time() - "
        "start)"
    )
    return float(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
    )


def imports() -> Ratios:
    """Ratios to torch."""
    seconds: dict[str, list[float]] = {module: [] for module in MODULES}
    for _ in range(ROUNDS):
        for module in MODULES:
            seconds[module].append(import_seconds(module))
    return ratios(seconds, "torch")


def tiny() -> tuple[ShortRunMLE, Tensor]:
    """A rule whose step costs next to nothing, and its data."""
    model = LatentModel(GaussianPrior(2), GaussianLikelihood(MLP(2, 4, ()), 0.3))
    return ShortRunMLE(model, MCMCPosterior(Langevin(0.01, 1)), adam), torch.randn(400 * BATCH, 4)


def digits() -> tuple[ShortRunMLE, Tensor]:
    """The quickstart of README."""
    prior = EnergyPrior(EnergyMLP(10), GaussianPrior(10), Langevin(0.08, 60))
    model = LatentModel(prior, GaussianLikelihood(ConvDecoder(10, (1, 8, 8), channels=8), 0.3))
    return ShortRunMLE(model, MCMCPosterior(Langevin(0.02, 20)), adam, prior_lr=1e-4), torch.randn(
        20 * BATCH, 1, 8, 8
    )


def adam(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=1e-3)


def raw(learner: ShortRunMLE, x: Tensor) -> float:
    """CPU seconds of a loop without Lightning."""
    optimizer: Any = learner.configure_optimizers()
    start = time.process_time()
    for batch in DataLoader(x, batch_size=BATCH, shuffle=True):  # pyright: ignore[reportArgumentType]
        loss = torch.stack(list(learner.losses(batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.process_time() - start


def lightning(learner: ShortRunMLE, x: Tensor, log: bool = True, **options: Any) -> float:
    """CPU seconds of the same loop in a Trainer, from the start of training to its end."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=CSVLogger(folder) if log else False,
            callbacks=[clock],
            enable_checkpointing=False,
            enable_model_summary=False,
            default_root_dir=folder,
            inference_mode=False,
            **options,
        )
        trainer.fit(learner, DataLoader(x, batch_size=BATCH, shuffle=True))  # pyright: ignore[reportArgumentType]
    return clock.curve[-1]["seconds"]


def trainer(make: Callable[[], tuple[ShortRunMLE, Tensor]]) -> Ratios:
    """Ratios to the raw loop, whose milliseconds are kept."""
    contestants = {
        "raw loop": raw,
        "Trainer": lightning,
        "Trainer, no progress bar": partial(lightning, enable_progress_bar=False),
        "Trainer, no progress bar, no logger": partial(
            lightning, log=False, enable_progress_bar=False
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(ROUNDS + 1):
        for name, run in contestants.items():
            taken = run(*make())
            if round_:
                seconds[name].append(taken)
    steps = len(make()[1]) // BATCH
    milliseconds = sorted(1e3 * second / steps for second in seconds["raw loop"])
    unit = (milliseconds[0], milliseconds[len(milliseconds) // 2], milliseconds[-1])
    return {"unit, ms": unit, **ratios(seconds, "raw loop")}


def main() -> None:
    measured("startup-imports", imports, modules=MODULES)
    for name, make in {"tiny": tiny, "digits": digits}.items():
        measured(f"startup-trainer-{name}", partial(trainer, make), batch=BATCH)


if __name__ == "__main__":
    main()
