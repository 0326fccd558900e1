"""Callbacks of the command line: checkpoints that hold their configuration, and pictures in
TensorBoard.
"""

from functools import cached_property
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from latent_ebm.cli.inlining import inline
from latent_ebm.data import DataModule
from latent_ebm.foreign import check_yaml
from latent_ebm.learning.latent import LatentRule
from latent_ebm.plots import image_grid
from samplers.checks import check_counts


class StoreConfig(SaveConfigCallback):
    """Writes the whole configuration as YAML text into every checkpoint and, if there is a logger,
    beside its logs.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.logger is not None and stage == "fit":
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for logger in trainer.loggers:  # as hyperparameters: hparams.yaml of Lightning's own
            logger.log_hyperparams(
                {part: self.plain()[part] for part in ("seed_everything", "model", "data")}
            )

    def plain(self) -> dict[str, Any]:
        """The configuration in plain dicts, lists and scalars."""
        return yaml.safe_load(self.parser.dump(self.config, skip_none=False))

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["config"] = self.text

    @cached_property
    def text(self) -> str:
        """The configuration, with the content of files that checkpoints need not open again. They
        are read once.
        """
        return yaml.safe_dump(inline(self.plain()), sort_keys=False)

    def check(self) -> None:
        """Read the files of ``text`` now, as they may change during training.

        Raises ``ValueError`` if checkpoints cannot hold what they say, or so much text.
        """
        check_yaml(self.text)


class SampleGrid(Callback):
    """Logs ``num`` samples of the prior, and as many held-out images above their reconstructions,
    to TensorBoard.

    The noise is the same every time, and training's random numbers are left alone. The held-out
    images are the first ``num`` of the first batch. The data must be images (1 or 3, H, W) in [-1,
    1].

    Args:
        every_n_epochs: Least number of epochs between two validations that log images.
        num: The number of samples and of held-out images.

    Raises:
        ValueError: For numbers below 1.
    """

    def __init__(self, every_n_epochs: int = 1, num: int = 64) -> None:
        check_counts(self, every_n_epochs=every_n_epochs, num=num)
        self.every_n_epochs, self.num = every_n_epochs, num
        self.last_epoch = -every_n_epochs
        self.held_out: Any = None

    def state_dict(self) -> dict[str, Any]:
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last_epoch = state_dict["last_epoch"]

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == dataloader_idx == 0:
            self.held_out = batch

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        due = trainer.current_epoch - self.last_epoch >= self.every_n_epochs
        if trainer.sanity_checking or not trainer.is_global_zero or not due:
            return
        self.last_epoch = trainer.current_epoch
        if isinstance(trainer.logger, TensorBoardLogger) and isinstance(pl_module, LatentRule):
            data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
            for name, x in self.pictures(pl_module).items():
                grid = image_grid(data.as_pictures(x) if isinstance(data, DataModule) else x)
                layout = "HW" if grid.ndim == 2 else "HWC"
                trainer.logger.experiment.add_image(
                    name, grid, trainer.global_step, dataformats=layout
                )

    def pictures(self, rule: LatentRule) -> dict[str, Tensor]:
        """Images (n, C, H, W) by name."""
        generator = torch.Generator(rule.device).manual_seed(0)
        x = rule.unpack(self.held_out).x[: self.num]
        z = rule.inference.sample(rule.model, x, generator=generator)
        pairs = torch.stack([x, rule.model.decode(z)], 1).flatten(0, 1)
        return {
            "samples": rule.model.sample(self.num, generator=generator),
            "reconstructions": pairs,
        }
