"""What the experiments share: training from a YAML file, a clock, and results that are computed once.

A result is a JSON file ``outputs/<experiment>/<name>.json`` that holds the configuration it was computed from; it is
computed again only when that changes. A table can so be completed over several sittings: run the same command again.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from latent_ebm.applications.pictures import atomic_path
from latent_ebm.data import DataModule

HERE = Path(__file__).parent
OUTPUTS, FIGURES = HERE / "outputs", HERE / "figures"


def cached(name: str, config: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result stored under ``name`` (``experiment/run``) if it came from ``config``, else that of ``compute``."""
    path = OUTPUTS / f"{name}.json"
    if path.exists():
        stored = json.loads(path.read_text())
        if stored["config"] == json.loads(json.dumps(config)):
            print(f"{name}: found", flush=True)
            return stored["result"]
    print(f"{name}: computing", flush=True)
    result = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as draft:
        draft.write_text(json.dumps({"config": config, "result": result}, indent=1) + "\n")
    return result


def results(experiment: str) -> dict[str, dict[str, Any]]:
    """All stored results of an experiment by run name."""
    paths = sorted((OUTPUTS / experiment).glob("*.json"))
    return {path.stem: json.loads(path.read_text())["result"] for path in paths}


class Clock(Callback):
    """CPU seconds of training, and what ``measure(rule)`` says after every validation, itself off the clock.

    Validation belongs to the training of a ratio prior, whose stages it decides, and is off the clock for other rules.
    """

    def __init__(self, measure: Callable[[Any], dict[str, float]] | None = None) -> None:
        self.measure, self.curve = measure, []
        self.start = self.paused = self.off = 0.0

    @property
    def seconds(self) -> float:
        """CPU seconds of all threads since training began, without what is off the clock."""
        return time.process_time() - self.start - self.off

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = time.process_time()
        self.record(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.paused = time.process_time()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if getattr(pl_module, "stages", None) is None:
            self.off += time.process_time() - self.paused
        self.record(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.record(pl_module)

    def record(self, rule: LightningModule) -> None:
        """Append ``{"seconds", **measure(rule)}`` to the curve."""
        seconds, now = self.seconds, time.process_time()
        self.curve.append({"seconds": seconds, **(self.measure(rule) if self.measure else {})})
        self.off += time.process_time() - now


class Budget(Clock):
    """A clock that ends training after ``budget`` CPU seconds; meanwhile it averages the weights of the rule.

    ``measure`` is asked about the rule with averaged weights, ``averaged``, after 25, 36, 50, 71, ... updates.
    """

    average: AveragedModel

    def __init__(self, budget: float, measure: Callable[[Any], dict[str, Any]] | None = None) -> None:
        super().__init__(measure)
        self.budget, self.updates, self.due = budget, 0, 25.0

    @property
    def averaged(self) -> Any:
        """The rule with averaged weights."""
        return self.average.module

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.average = AveragedModel(pl_module, avg_fn=mean_so_far).eval()
        super().on_train_start(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        self.average.update_parameters(pl_module)
        self.updates += 1
        if self.updates >= self.due:
            self.record(pl_module)
            self.due *= 2**0.5
        trainer.should_stop = self.seconds > self.budget

    def record(self, rule: LightningModule) -> None:
        super().record(self.averaged)
        self.curve[-1]["updates"] = self.updates


def mean_so_far(mean: Tensor, new: Tensor, num: Tensor | int) -> Tensor:
    """An exponential average of weights over a hundred updates, at first over a tenth of the ``num`` there were."""
    return mean.lerp(new, max(0.01, 10 / (10 + int(num))))


def prepare(config: Path, overrides: Sequence[str] = ()) -> Any:
    """Trainer, rule and data of a YAML file with command-line ``overrides``, without checkpoints; one thread."""
    from latent_ebm.cli.trainer import make_command_line

    torch.set_num_threads(1)
    quiet = {"logger": "false", "callbacks": "null", "enable_checkpointing": "false", "default_root_dir": HERE / "runs"}
    options = [f"--trainer.{name}={value}" for name, value in quiet.items()]
    return make_command_line(["--config", str(config), *options, *overrides], run=False)


def train(config: Path, overrides: Sequence[str] = (), clock: Clock | None = None) -> tuple[Any, DataModule]:
    """Train the rule of a YAML file, ``prepare``d so, on its data."""
    cli = prepare(config, overrides)
    cli.trainer.callbacks.append(clock or Clock())
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return cli.model, cli.datamodule


def settings(config: Path, **more: Any) -> dict[str, Any]:
    """What a run depends on: the text of its YAML file without comments, and ``more``."""
    lines = (line.split(" #")[0].rstrip() for line in config.read_text().splitlines() if not line.startswith("#"))
    return {"file": config.name, "yaml": [line for line in lines if line], **more}
