"""A training step in one process and in two: ``python -m experiments.benchmarks.ranks``

README's quickstart in data-parallel processes of one thread each, every one with a batch of its
own; wall time of a step, so that what matters is a machine with two idle cores. The unit is one
process.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from experiments.benchmarks.startup import BATCH, digits
from experiments.benchmarks.timing import Ratios, measured, ratios

RANKS, ROUNDS, WARM_UP, STEPS = (1, 2), 7, 5, 30


class Stopwatch(Callback):
    """Writes to ``path`` the wall seconds of a step, after some to warm up."""

    def __init__(self, path: Path) -> None:
        self.path, self.start = path, 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if trainer.global_step == WARM_UP:
            self.start = time.perf_counter()
        if trainer.global_step == WARM_UP + STEPS and trainer.is_global_zero:
            self.path.write_text(str((time.perf_counter() - self.start) / STEPS))


def step_seconds(ranks: int) -> float:
    """Wall seconds of a step in ``ranks`` processes."""
    learner, x = digits()
    x = x.repeat(2 * ranks, 1, 1, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seconds"
        trainer = Trainer(
            accelerator="cpu",
            devices=ranks,
            strategy="ddp_fork",
            max_steps=WARM_UP + STEPS,
            callbacks=[Stopwatch(path)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            inference_mode=False,
        )
        trainer.fit(learner, DataLoader(x, batch_size=BATCH, shuffle=True))  # pyright: ignore[reportArgumentType]
        return float(path.read_text())


def over_ranks() -> Ratios:
    """Ratios to one process."""
    seconds: dict[str, list[float]] = {str(ranks): [] for ranks in RANKS}
    for _ in range(ROUNDS):
        for ranks in RANKS:
            seconds[str(ranks)].append(step_seconds(ranks))
    return ratios(seconds, str(RANKS[0]))


def main() -> None:
    torch.set_num_threads(1)
    measured("ranks", over_ranks, batch=BATCH, steps=STEPS)


if __name__ == "__main__":
    main()
