r"""What every learning rule shares: losses that are summed for one optimiser, and random streams
that continue when training is resumed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, ClassVar, NoReturn

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from latent_ebm.autoencoders import LatentSpace
from latent_ebm.conditions import Batch, BatchLike, Condition, as_batch
from latent_ebm.data.captioned import check_tokenizer
from latent_ebm.learning.resuming import adopt_settings, complete_batch, settings_of
from samplers import PersistentChains
from samplers.checks import check_kind
from samplers.run_checks import check_finite

OptimizerCallable = Callable[[Iterable], Optimizer]
SchedulerCallable = Callable[[Optimizer], LRScheduler]


class LearningRule(LightningModule, ABC):
    """A rule defines ``losses`` and ``generate``; training, held-out metrics and resuming follow.

    A batch is a tensor x, a tuple (x, label, index), or a ``Batch``. If training is resumed with
    other settings of the optimiser, the new settings count.

    Args:
        optimizer: Makes the optimiser from the trainable parameters.
        scheduler: Makes a scheduler of its learning rate, which steps after every epoch.
        latents: What encodes the rows of a batch and decodes samples, held fixed; None: the rule
            works on data.
    """

    PARTS: ClassVar[tuple[str, ...]] = ("all",)  # what each optimiser trains

    def __init__(
        self,
        optimizer: OptimizerCallable,
        scheduler: SchedulerCallable | None = None,
        latents: LatentSpace | None = None,
    ) -> None:
        super().__init__()
        for name, made in {"optimizer": optimizer, "scheduler": scheduler or LRScheduler}.items():
            if not callable(made):
                raise ValueError(
                    f"{name} must be a function that makes one (of a YAML file: annotate the "
                    "argument of "
                    f"{type(self).__name__} as {name.capitalize()}Callable of "
                    f"latent_ebm.learning.base), got {made!r}"
                )
        if latents is not None:
            check_kind(self, LatentSpace, latents=latents)
        self.optimizer, self.scheduler = optimizer, scheduler
        self.latents = None if latents is None else latents.requires_grad_(False).eval()
        self._rng: dict[str, Tensor] = {}
        self._settings: dict[str, Any] = {}
        self._resumed_in_batch = False

    @abstractmethod
    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        """Losses in nats per datum by name; their sum is minimised."""

    @abstractmethod
    def generate(
        self,
        num: int,
        condition: Condition | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """``num`` samples of the model: ``x`` (num, \\*event), and the latents that they were made
        from, if any.

        ``condition`` has ``num`` rows, as a batch carries it; if left out, it is unknown.
        """

    def unpack(self, batch: BatchLike) -> Batch:
        """``(x, condition, index)`` of what a loader yields, see ``as_batch``, with the latents of
        x if the rule has them. Raises ``FloatingPointError`` if x is not finite.
        """
        batch = as_batch(batch)
        check_finite("x", batch.x, "remove or impute the offending rows")
        if self.latents is None:
            return batch
        index = batch.index if self.training else None  # held-out rows have indices of their own
        return batch._replace(x=self.latents.encode(batch.x, index))

    def decoded(self, x: Tensor) -> dict[str, Tensor]:
        """Samples ``x`` as data, and the latents ``z`` that they are decoded from, if any."""
        return {"x": x} if self.latents is None else {"x": self.latents.decode(x), "z": x}

    def held_out(self, batch: BatchLike) -> dict[str, Tensor]:
        """Metrics of a held-out batch by name: the losses, unless a rule defines others."""
        with torch.no_grad():
            return self.losses(batch)

    def watch(self) -> dict[str, Tensor]:
        """Further metrics of the last batch by name; called only at steps that are logged."""
        return {}

    @property
    def batches_seen(self) -> int:
        """Number of training batches so far."""
        return self.global_step

    @property
    def logs_now(self) -> bool:
        """Whether the trainer writes what this step logs, the last of every ``log_every_n_steps``
        steps.
        """
        every = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        return every > 0 and (self.batches_seen + 1) % every == 0

    def training_step(self, batch: BatchLike, batch_idx: int) -> Tensor | None:
        losses = self.losses(batch)
        total = total_loss(losses)
        if self.logs_now:
            self.log_losses(losses)
        return total

    def log_dict(self, *args: Any, **kwargs: Any) -> None:
        """Log as Lightning does, but not under a barebones trainer, which warns at every log."""
        if not self.trainer.barebones:
            super().log_dict(*args, **kwargs)

    def log_losses(self, losses: dict[str, Tensor]) -> None:
        """Log the training ``losses`` and the metrics of ``watch``."""
        self.log_dict(
            {f"loss/{name}": loss.detach() for name, loss in losses.items()} | self.watch()
        )

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.logs_now:
            part = self.PARTS[self.trainer.optimizers.index(optimizer)]
            self.log(f"gradient/{part}", gradient_norm(optimizer))

    def validation_step(
        self, batch: BatchLike, batch_idx: int, dataloader_idx: int = 0
    ) -> Tensor | None:
        self.log_held_out("val", self.held_out(batch), batch, dataloader_idx)

    def test_step(self, batch: BatchLike, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log_held_out("test", self.held_out(batch), batch, dataloader_idx)

    def log_held_out(
        self, stage: str, metrics: dict[str, Tensor], batch: BatchLike, dataloader_idx: int
    ) -> None:
        """Log ``metrics`` of a batch as ``stage/name``. For loaders after the first, the name ends
        in the number of the loader.
        """
        rows = len(as_batch(batch).x)
        loader = f"/dataloader_idx_{dataloader_idx}" if dataloader_idx else ""
        named = {f"{stage}/{name}{loader}": value for name, value in metrics.items()}
        self.log_dict(
            named, batch_size=rows, sync_dist=True, prog_bar=True, add_dataloader_idx=False
        )

    def predict_step(self, batch: BatchLike, batch_idx: int = 0) -> object:
        """Raises ``ValueError``: most rules have no prediction for a row of data."""
        raise ValueError(
            f"{type(self).__name__} has nothing to predict of a row: draw samples, with "
            "latent-ebm sample"
        )

    @classmethod
    def load_from_checkpoint(cls, *args: object, **kwargs: object) -> NoReturn:
        """Raises ``NotImplementedError``: a checkpoint does not store the arguments of a rule."""
        raise NotImplementedError(
            f"{cls.__name__} cannot be built from a checkpoint alone: use "
            "latent_ebm.cli.checkpoints.load_rule(path) for one "
            "of latent-ebm fit; else build the rule and load_state_dict(torch.load(path, "
            "weights_only=True)['state_dict'])"
        )

    def make_optimizers(self) -> list[Optimizer]:
        """The optimisers, one for each of ``PARTS``."""
        return [self.optimizer([p for p in self.parameters() if p.requires_grad])]

    def configure_optimizers(
        self,
    ) -> Optimizer | list[Optimizer] | tuple[list[Optimizer], list[LRScheduler]]:
        """One optimiser or several, and their schedulers if there are any, as Lightning expects
        them.
        """
        optimizers = self.make_optimizers()
        if self.scheduler is None:
            return optimizers if len(optimizers) > 1 else optimizers[0]
        schedulers = [self.scheduler(optimizer) for optimizer in optimizers]
        if any(isinstance(scheduler, ReduceLROnPlateau) for scheduler in schedulers):
            raise ValueError(
                "scheduler must follow the epochs, not a metric, got ReduceLROnPlateau"
            )
        return optimizers, schedulers

    def setup(self, stage: str) -> None:
        """Keep distributed training from overwriting the chains of other processes with the chains
        of the first.
        """
        chains = [
            name for name, module in self.named_modules() if isinstance(module, PersistentChains)
        ]
        self._ddp_params_and_buffers_to_ignore = [f"{name}.particles" for name in chains]

    def on_fit_start(self) -> None:
        """Resume the random streams of a checkpoint. Without one, give every process its own
        stream, because Lightning seeds all alike.
        """
        for name, module in self._random_modules():
            states = self._rng.get(name, torch.empty(0))
            if self.global_rank < len(states):
                module.set_rng_state(states[self.global_rank])
            elif self.global_rank > 0:
                module.manual_seed(torch.initial_seed() + self.global_rank)
        self._rng = {}
        self._settings["now"] = settings_of(self.trainer.optimizers)

    def on_train_start(self) -> None:
        """Apply optimiser settings that differ from those of the checkpoint. Raises
        ``ValueError`` if the data and a text encoder have different tokenizers.
        """
        for part in self.modules():
            check_tokenizer(self.trainer.train_dataloader, part)
        if "before" in self._settings:
            scheduled = self.scheduler is not None
            adopt_settings(
                self.trainer.optimizers,
                self._settings.pop("before"),
                self._settings["now"],
                scheduled,
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["settings"] = self._settings.get("now", [])
        streams = {
            name: self.all_gather(module.get_rng_state())
            for name, module in self._random_modules()
        }
        checkpoint["rng"] = {
            name: state.view(self.trainer.world_size, -1).cpu()
            for name, state in streams.items()
            if isinstance(state, Tensor)
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._rng = checkpoint.get("rng", {})
        if "settings" in checkpoint:
            self._settings["before"] = checkpoint["settings"]
        if "loops" in checkpoint:
            self._resumed_in_batch = complete_batch(checkpoint["loops"])

    def on_validation_start(self) -> None:
        """Correct the step that Lightning logs: after the validation it counts once more the batch
        that the checkpoint has completed.
        """
        if self._resumed_in_batch:
            self.trainer.fit_loop.epoch_loop._batches_that_stepped -= 1
        self._resumed_in_batch = False

    def on_train_batch_start(self, batch: BatchLike, batch_idx: int) -> None:
        self._resumed_in_batch = False

    def _random_modules(self) -> list[tuple[str, ModuleType]]:
        """The modules that hold random streams: torch for the CPU, and the module of the
        accelerator in use.
        """
        device = self.device.type
        return [("cpu", torch)] + (
            [] if device == "cpu" else [(device, torch.get_device_module(device))]
        )


def total_loss(losses: dict[str, Tensor]) -> Tensor:
    """The sum of ``losses``. Raises ``FloatingPointError`` unless it is finite."""
    total = torch.stack(list(losses.values())).sum()
    check_finite("loss", total[None], "use a smaller learning rate or step_size")
    return total


def gradient_norm(optimizer: Optimizer) -> Tensor:
    """Euclidean norm of the gradient of all parameters of ``optimizer``."""
    parameters = [
        p for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    return torch.stack([torch.linalg.vector_norm(p.grad) for p in parameters]).norm()
