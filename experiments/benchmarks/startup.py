"""What importing costs, and what Lightning costs a step: ``python -m experiments.benchmarks.startup``

Imports are timed in fresh interpreters, in CPU seconds, the unit being ``import torch``. Lightning's overhead is that of the
smallest training step there is (a linear decoder, one posterior step), against a loop over the same loader.
"""

import subprocess
import sys
import tempfile
import time
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from experiments.benchmarks.timing import Ratios, measured, ratios
from experiments.common import Clock
from latent_ebm import GaussianLikelihood, GaussianPrior, LatentModel, MCMCPosterior
from latent_ebm.learning import ShortRunMLE
from latent_ebm.networks import MLP
from samplers import Langevin

MODULES, ROUNDS, STEPS, BATCH = ("torch", "samplers", "latent_ebm", "latent_ebm.learning"), 7, 1000, 32


def import_seconds(module: str) -> float:
    """CPU seconds of an import in a fresh interpreter."""
    code = f"import time; start = time.process_time(); import {module}; print(time.process_time() - start)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def imports() -> Ratios:
    """Ratios to torch."""
    seconds: dict[str, list[float]] = {module: [] for module in MODULES}
    for _ in range(ROUNDS):
        for module in MODULES:
            seconds[module].append(import_seconds(module))
    return ratios(seconds, "torch")


def rule() -> ShortRunMLE:
    """A rule whose step costs next to nothing."""
    model = LatentModel(GaussianPrior(2), GaussianLikelihood(MLP(2, 4, ()), 0.3))
    return ShortRunMLE(model, MCMCPosterior(Langevin(0.01, 1)), lambda groups: torch.optim.Adam(groups, lr=1e-3))


def loader() -> DataLoader[Any]:
    """Batches of a tensor, in memory."""
    return DataLoader(torch.randn(STEPS * BATCH, 4), batch_size=BATCH, shuffle=True)  # pyright: ignore[reportArgumentType]


def raw() -> float:
    """CPU seconds of a loop without Lightning."""
    learner, batches = rule(), loader()
    optimizer = learner.configure_optimizers()
    start = time.process_time()
    for batch in batches:
        loss = torch.stack(list(learner.losses(batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.process_time() - start


def lightning(**options: Any) -> float:
    """CPU seconds of the same loop in a Trainer, from the start of training to its end."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        logger = CSVLogger(folder) if options.pop("log", True) else False
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=logger,
            callbacks=[clock],
            enable_checkpointing=False,
            enable_model_summary=False,
            default_root_dir=folder,
            inference_mode=False,
            **options,
        )
        trainer.fit(rule(), loader())
    return clock.curve[-1]["seconds"]


def trainer() -> Ratios:
    """Ratios to the raw loop."""
    quiet = {"enable_progress_bar": False}
    contestants = {
        "raw loop": raw,
        "Trainer": lightning,
        "Trainer, no progress bar": partial(lightning, **quiet),
        "Trainer, no progress bar, no logger": partial(lightning, log=False, **quiet),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(ROUNDS + 1):
        for name, run in contestants.items():
            taken = run()
            if round_:
                seconds[name].append(taken)
    return ratios(seconds, "raw loop")


def main() -> None:
    measured("startup-imports", imports, modules=MODULES)
    measured("startup-trainer", trainer, steps=STEPS, batch=BATCH)


if __name__ == "__main__":
    main()
