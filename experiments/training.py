"""Training by a budget: the learning rate falls as it is spent, and weights are averaged."""

import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from experiments.common import HERE, OUTPUTS, cached, digest, prepare, settings
from latent_ebm.data import Scenes
from latent_ebm.writing import atomic_path

WARM_UP, LEAST = 100, 0.03  # updates of rising rates; the last rate as a share of the first
KEEP_EVERY, WORKERS = 2, 4  # epochs between checkpoints; processes that draw scenes for a GPU


class Recipe(Callback):
    """Ends training when ``seconds`` or ``updates`` are spent, whichever comes first.

    Learning rates rise over 100 updates and fall along half a cosine as the budget is spent. The
    exponential average of the weights over ``memory`` updates is ``average``; early in training it
    is one over a tenth of the updates so far. Seconds are those of the CPU, or of the wall on a
    GPU. A checkpoint carries all of it, so that a run that was killed goes on within its budget.
    """

    average: LightningModule

    def __init__(
        self, seconds: float = math.inf, updates: float = math.inf, memory: int = 500
    ) -> None:
        self.budget, self.num, self.memory = seconds, updates, memory
        self.now = time.perf_counter if torch.cuda.is_available() else time.process_time
        self.before, self.updates, self.rates = 0.0, 0, list[float]()
        self.state: dict[str, Tensor] = {}

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before a restart among them."""
        return self.before + self.now() - self.start

    @property
    def spent(self) -> float:
        """The share of the budget that is spent."""
        return max(self.seconds / self.budget, self.updates / self.num)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.average = deepcopy(pl_module).requires_grad_(False).eval()
        self.average.load_state_dict(self.state or self.average.state_dict())
        self.rates = self.rates or [group["lr"] for group in groups_of(trainer)]
        self.start = self.now()

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        fall = LEAST + (1 - LEAST) * (1 + math.cos(math.pi * min(self.spent, 1))) / 2
        factor = fall * min(1, (self.updates + 1) / WARM_UP)
        for group, rate in zip(groups_of(trainer), self.rates, strict=True):
            group["lr"] = rate * factor

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        self.updates += 1
        share = max(1 / self.memory, 10 / (10 + self.updates))
        with torch.no_grad():
            torch._foreach_lerp_(  # pyright: ignore[reportPrivateUsage]
                list(self.average.parameters()), list(pl_module.parameters()), share
            )
        if self.updates % 100 == 0:
            loss = float(next(iter(trainer.callback_metrics.values()), math.nan))
            print(f"  {self.updates} updates, {self.seconds:.0f} s, {loss:.4g}", flush=True)
        trainer.should_stop = self.spent >= 1

    def record(self) -> dict[str, Any]:
        """What was spent, and on what."""
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "one CPU core"
        return {"updates": self.updates, "seconds": self.seconds, "device": device}

    def state_dict(self) -> dict[str, Any]:
        spent = {"before": self.seconds, "updates": self.updates, "rates": self.rates}
        return {**spent, "state": self.average.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.__dict__.update(state_dict)


def groups_of(trainer: Trainer) -> list[dict[str, Any]]:
    """The groups of parameters of all optimisers."""
    return [group for opt in trainer.optimizers for group in opt.param_groups]


@dataclass(frozen=True)
class Run:
    """A training run by a YAML file: its options, its budget, and the run whose weights it starts
    from.
    """

    name: str
    config: Path
    options: tuple[str, ...] = ()
    seconds: float = math.inf
    updates: float = math.inf
    start: "Run | None" = None

    @property
    def settings(self) -> dict[str, Any]:
        """What the outcome depends on."""
        start = None if self.start is None else self.start.settings
        budget = [str(self.seconds), str(self.updates)]
        return settings(self.config, options=list(self.options), budget=budget, start=start)

    @property
    def origin(self) -> "Run":
        """The run that this one starts from. Raises ``ValueError`` if there is none."""
        if self.start is None:
            raise ValueError(f"start of the run {self.name} must be a run, got None")
        return self.start

    @property
    def draft(self) -> Path:
        """The checkpoint of a run that is not over, named after the experiment and settings."""
        return (
            HERE / "runs" / self.config.parent.name / f"{self.name}-{digest(self.settings)}.ckpt"
        )

    @property
    def weights(self) -> Path:
        """The file of the averaged weights."""
        return OUTPUTS / self.config.parent.name / f"{self.draft.stem}.pt"

    def make(self) -> Any:
        """Trainer, rule and data, before training."""
        quiet = [f"--trainer.enable_{part}=false" for part in ("progress_bar", "model_summary")]
        return prepare(self.config, [*quiet, "--trainer.max_epochs=-1", *self.options])

    def recipe(self) -> Recipe:
        """What keeps to the budget."""
        return Recipe(self.seconds, self.updates)

    def begin(self, rule: Any) -> None:
        """Give an untrained rule the weights that it starts from."""
        if self.start is not None:
            rule.load_state_dict(self.start.rule().state_dict())

    def rule(self) -> Any:
        """The trained rule, from the file of its weights, or trained now."""
        if not self.weights.exists():
            self.train()
        rule = self.make().model
        rule.load_state_dict(torch.load(self.weights, weights_only=True)["weights"])
        return rule.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    def spent(self) -> dict[str, Any]:
        """Updates and seconds of training, and on what, after ``rule``."""
        return torch.load(self.weights, weights_only=True)["spent"]

    def train(self) -> None:
        """Train, from the weights of ``start`` or from where this was stopped; write weights."""
        cli, resume = self.make(), self.draft if self.draft.exists() else None
        if resume is None:
            self.begin(cli.model)
        keep = ModelCheckpoint(
            self.draft.parent,
            self.draft.stem,
            every_n_epochs=KEEP_EVERY,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        recipe = self.recipe()
        cli.trainer.callbacks += [recipe, keep]
        if torch.cuda.is_available():
            torch.set_float32_matmul_precision("high")
            cli.datamodule.num_workers = WORKERS if isinstance(cli.datamodule, Scenes) else 0
        print(f"{self.name}: training {'goes on' if resume else 'begins'}", flush=True)
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=resume, weights_only=True)
        self.weights.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.weights) as path:
            torch.save({"weights": recipe.average.state_dict(), "spent": recipe.record()}, path)
        self.draft.unlink(missing_ok=True)


def judged(
    run: Run, label: str, options: dict[str, Any], judge: Callable[[Any], dict[str, Any]]
) -> dict[str, Any]:
    """What ``judge`` finds of the trained rule of ``run``, and what its training spent; kept under
    the name of the run and a ``label``. The outcome depends on the settings and ``options``.
    """
    config = {**run.settings, "draw": options, "judge": 1}
    name = f"{run.config.parent.name}/{run.name}{label}"
    return cached(name, config, lambda: {**judge(run.rule()), **run.spent()})


def write_words(sources: Mapping[Path, Callable[[], Any]]) -> None:
    """Write the tokenizers of data modules to the files that YAML files name, unless they are
    there.
    """
    for words, source in sources.items():
        if not words.exists():
            data = source()
            data.setup()
            words.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(words) as path:
                data.tokenizer.save(path)
