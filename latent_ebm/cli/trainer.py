"""Lightning's ``fit``, ``validate``, ``test`` and ``predict``, configured by one YAML file."""

import importlib
import logging
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from latent_ebm.artefacts.classes import shorten
from latent_ebm.cli.callbacks import StoreConfig
from latent_ebm.cli.checkpoints import check_progress, read_checkpoint
from latent_ebm.cli.modules import modules_here
from latent_ebm.cli.predictions import predictions_path, write_predictions
from latent_ebm.cli.runs import check_places, find_checkpoint
from latent_ebm.foreign import check_yaml
from latent_ebm.learning import AtomicCheckpointIO
from latent_ebm.learning.base import LearningRule

DEFAULTS = {
    "accelerator": "auto",
    "inference_mode": False,  # samplers take gradients in validation too
    "num_sanity_val_steps": 0,
    "logger": {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": "runs"},
    },
}
FIT = """Train the model of a YAML file. A run never overwrites another run: if the folder of
its checkpoints (dirpath) or of its logger holds one already, it either continues from a
checkpoint of that run, --ckpt_path FILE, or is refused. --ckpt_path last is the newest file
last*.ckpt in that folder; where there is none, it is refused too."""
PREDICT = """Write a table of what the rule of a YAML file says about every row of the test set;
for a latent model, the terms of the energy. The table is NAME-predictions.csv beside the
checkpoint NAME.ckpt of --ckpt_path, or predictions.csv here without one."""
PROGRAM = (
    "A YAML file is a program: the classes and functions that it names are imported and run. Read "
    "a file from someone else before you run it."
)
NOISE = (
    ".*does not have many workers.*",  # the data lie in memory
    ".*number of training batches.*is smaller than the logging interval.*",
    ".*exists and is not empty.*",  # a resumed run writes where the first one did
    ".*is not the same as the strategy's.*",
    ".*no pre-optimization state was saved.*",  # checkpoints hold the weights after the step
    ".*in eval mode at the start of training.*",  # trained parts that a rule holds fixed
    ".*isinstance.treespec, LeafSpec.*",  # Lightning with a recent torch
)


class CommandLine(LightningCLI):
    """A ``LightningCLI`` that raises instead of exiting, checks its output folders first, and
    never unpickles objects.
    """

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        self.config = parser.parse_args(args)  # pyright: ignore[reportArgumentType]

    def before_instantiate_classes(self) -> None:
        """Refuse an optimiser or scheduler that is a function: it would be called, and not with
        parameters.
        """
        optimizer, scheduler = "model.init_args.optimizer", "model.init_args.scheduler"
        check_factory(optimizer, self._get(self.config, optimizer), (Optimizer,))
        if (named := self._get(self.config, scheduler)) is not None:
            check_factory(scheduler, named, (LRScheduler,))

    def _parse_ckpt_path(self) -> None:
        """A checkpoint does not change the configuration."""

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        arguments = super()._prepare_subcommand_kwargs(subcommand)
        if (path := self.checkpoint) is None:
            return {**arguments, "weights_only": True}
        check_progress(read_checkpoint(path), path, resumed=subcommand == "fit")
        return {**arguments, "ckpt_path": str(path), "weights_only": True}

    @cached_property
    def checkpoint(self) -> Path | None:
        """The file of ``--ckpt_path``, if it is given."""
        return find_checkpoint(self.trainer, self._get(self.config, "ckpt_path"))

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        plugins = config.get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins = [AtomicCheckpointIO(), *plugins]
        logger = (
            None if config.get("barebones") else config.get("logger")
        )  # which the defaults name
        return super()._instantiate_trainer(
            {**config, "plugins": plugins, "logger": logger}, callbacks
        )

    def before_fit(self) -> None:
        """Fail now, not after the first epoch, if nothing can be written, another run would be
        written over, or no checkpoint can hold the configuration.
        """
        check_places(self.trainer, self.checkpoint)
        for callback in self.trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(callback, StoreConfig):
                callback.check()

    def before_predict(self) -> None:
        """Fail now if nothing can be written, or not in one place."""
        self.predictions = predictions_path(self.checkpoint)
        if self.trainer.world_size > 1:
            raise ValueError(
                f"trainer.devices must be 1 to predict, got {self.trainer.world_size} processes"
            )

    def after_predict(self) -> None:
        """Write a table of what was predicted."""
        num = write_predictions(self.predictions, self.trainer.predict_loop.predictions)
        print(f"{num} predictions: {self.predictions}")


def check_factory(place: str, value: object, kinds: tuple[type, ...]) -> None:
    """Raise ``ValueError`` unless the parsed ``value`` names a class of ``kinds``, and no function
    that may do anything.
    """
    path = getattr(value, "class_path", value)
    module, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    found = getattr(importlib.import_module(module), name, None) if module else None
    if not (isinstance(found, type) and issubclass(found, kinds)):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{place} must name a class that is an {names}, got {shorten(path)}")


def run_lightning(args: list[str]) -> None:
    """Run the sub-command ``args[0]`` with the rest of ``args``."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what Lightning calls
        for message in NOISE:
            warnings.filterwarnings("ignore", message)
        with modules_here():
            make_command_line(args)


def make_command_line(args: list[str], run: bool = True) -> CommandLine:
    """Parse ``args``, build the trainer, rule and data, and, with ``run``, do what the sub-command
    ``args[0]`` says.
    """
    set_loader("bounded yaml", load_yaml, (yaml.YAMLError,))
    strict: dict[str, Any] = {
        "exit_on_error": False,
        "allow_abbrev": False,
        "parser_mode": "bounded yaml",
    }
    strict["epilog"] = PROGRAM
    named = {**strict, "prog": "latent-ebm"}
    commands: dict[str, Any] = {name: dict(strict) for name in CommandLine.subcommands()}
    commands["fit"]["description"], commands["predict"]["description"] = FIT, PREDICT
    return CommandLine(
        LearningRule,
        LightningDataModule,
        save_config_callback=StoreConfig if run else None,
        save_config_kwargs={"overwrite": True},
        trainer_defaults=DEFAULTS,
        seed_everything_default=0,
        parser_kwargs={**named, **commands} if run else named,
        subclass_mode_model=True,
        subclass_mode_data=True,
        args=args,
        run=run,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
    )


def load_yaml(text: str) -> Any:
    """As jsonargparse reads YAML, if it is no larger than it looks."""
    return get_loader("yaml")(check_yaml(text))
