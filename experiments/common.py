"""What the experiments share: training from a YAML file, a clock, and results that are computed
only once.

A result is a JSON file ``outputs/<experiment>/<name>.json``. It holds the configuration that it
was computed from, and is computed again only when this changes: to complete a table over several
sittings, run the same command again. Outputs stay on the machine. What the report needs of them,
everything but the arrays that figures are drawn from, is tracked in one file per experiment,
``results/<experiment>.json``, which is used where outputs are missing.
"""

import json
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from latent_ebm.data import DataModule
from latent_ebm.writing import atomic_path

HERE = Path(__file__).parent
OUTPUTS, RESULTS = HERE / "outputs", HERE / "results"


def cached(
    name: str, config: dict[str, Any], compute: Callable[[], dict[str, Any]], fresh: bool = False
) -> dict[str, Any]:
    """The result stored under ``name`` (``experiment/run``) if it was computed from ``config``,
    else the result of ``compute``. ``fresh`` computes it again in any case.
    """
    experiment, run = name.split("/", 1)
    stored = stored_runs(experiment).get(run)
    if not fresh and stored is not None and stored["config"] == digest(config):
        print(f"{name}: found", flush=True)
        return stored["result"]
    print(f"{name}: computing", flush=True)
    result = compute()
    write_json(OUTPUTS / f"{name}.json", {"config": config, "result": result})
    return result


def results(experiment: str) -> dict[str, dict[str, Any]]:
    """All stored results of an experiment by run name."""
    return {name: run["result"] for name, run in stored_runs(experiment).items()}


def file_name(name: str) -> str:
    """``name``, such as that of a detector, in names of results."""
    return name.replace(" ", "_").replace(",", "")


def is_run(name: str, head: str) -> bool:
    """Whether ``name`` is ``head`` and a number: of a seed, or of updates."""
    return name.startswith(head) and name.removeprefix(head).isdigit()


def of_seeds(stored: dict[str, Any], key: str) -> dict[int, Any]:
    """The results that are there of the run ``key``, which holds {} for the seed, by seed."""
    pattern = re.compile(re.escape(key).replace(r"\{\}", r"(\d+)"))
    matches = ((pattern.fullmatch(name), run) for name, run in stored.items())
    return {int(match[1]): run for match, run in matches if match and run}


def runs_of(stored: dict[str, Any], name: str, label: str = "") -> list[Any]:
    """The results that are there of the run ``name``, one per seed, with a ``label`` behind it."""
    return list(of_seeds(stored, f"{name}-{{}}{label}").values())


def stored_runs(experiment: str) -> dict[str, dict[str, Any]]:
    """``{"config": its digest, "result"}`` of every run, from its output or else from what is
    tracked.
    """
    tracked, found = RESULTS / f"{experiment}.json", {}
    if tracked.exists():
        found = json.loads(tracked.read_text())
    for path in (OUTPUTS / experiment).glob("*.json"):
        output = json.loads(path.read_text())
        found[path.stem] = {**output, "config": digest(output["config"])}
    return {name: found[name] for name in sorted(found)}


def track(experiment: str) -> None:
    """Write what the report needs of an experiment's outputs to ``results``."""
    runs = {
        name: {**run, "result": {key: v for key, v in run["result"].items() if not is_array(v)}}
        for name, run in stored_runs(experiment).items()
    }
    dense = partial(json.dumps, separators=(",", ":"))
    lines = [f"{dense(name)}:{dense(shortened(run))}" for name, run in runs.items()]
    RESULTS.mkdir(exist_ok=True)
    with atomic_path(RESULTS / f"{experiment}.json") as draft:
        draft.write_text("{" + ",\n".join(lines) + "}\n")


def shortened(value: Any) -> Any:
    """``value`` with its fractions to five significant digits: tables need no more."""

    def short(text: str) -> float:
        number = float(text)
        return number if number.is_integer() else float(f"{number:.5g}")

    return json.loads(json.dumps(value), parse_float=short)


def is_array(value: Any) -> bool:
    """Whether a value is there for figures alone: rows of numbers, or packed images."""
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], list)
    return isinstance(value, str) and len(value) > 1000


def digest(config: dict[str, Any]) -> str:
    """A short name of a configuration."""
    return sha256(json.dumps(json.loads(json.dumps(config)), sort_keys=True).encode()).hexdigest()[
        :16
    ]


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as draft:
        draft.write_text(json.dumps(content, indent=1) + "\n")


class Clock(Callback):
    """CPU seconds of training, and what ``measure(rule)`` returns after every validation. The
    measuring does not count.

    Validation counts for a ratio prior, because it decides about stages, but not for other rules.
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


def prepare(config: Path, overrides: Sequence[str] = ()) -> Any:
    """Trainer, rule and data of a YAML file with command-line ``overrides``, on one thread and
    without checkpoints.
    """
    from latent_ebm.cli.trainer import make_command_line

    torch.set_num_threads(1)
    quiet = {
        "logger": "false",
        "callbacks": "null",
        "enable_checkpointing": "false",
        "default_root_dir": HERE / "runs",
    }
    options = [f"--trainer.{name}={value}" for name, value in quiet.items()]
    return make_command_line(["--config", str(config), *options, *overrides], run=False)


def train(
    config: Path, overrides: Sequence[str] = (), clock: Clock | None = None
) -> tuple[Any, DataModule]:
    """Train the rule of a YAML file on its data, as ``prepare`` sets them up."""
    cli = prepare(config, overrides)
    cli.trainer.callbacks.append(clock or Clock())
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return cli.model, cli.datamodule


def settings(config: Path, **more: Any) -> dict[str, Any]:
    """What a run depends on: the text of its YAML file without comments, and ``more``."""
    lines = (
        line.split(" #")[0].rstrip()
        for line in config.read_text().splitlines()
        if not line.startswith("#")
    )
    return {"file": config.name, "yaml": [line for line in lines if line], **more}
