r"""What every learning rule shares: losses that are summed under one optimiser, and random streams that survive a kill."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from latent_ebm.learning.resuming import complete_batch
from samplers import PersistentChains
from samplers.base import check_finite

OptimizerCallable = Callable[[Iterable], torch.optim.Optimizer]


class LearningRule(LightningModule, ABC):
    """A rule defines ``losses`` and ``generate``; training and resuming follow.

    ``optimizer`` makes the optimiser from the trainable parameters. A batch is a tensor x, or a tuple (x, label, index).
    """

    def __init__(self, optimizer: OptimizerCallable) -> None:
        super().__init__()
        self.optimizer = optimizer
        self._rng: dict[str, Tensor] = {}

    @abstractmethod
    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Losses in nats per datum by name; their sum is minimised."""

    @abstractmethod
    def generate(self, num: int) -> dict[str, Tensor]:
        """``num`` samples of the model: ``x`` (num, \\*event), and what they were made of, if anything."""

    @staticmethod
    def unpack(batch: Any) -> tuple[Tensor, Tensor | None]:
        """``(x, index or None)`` of a batch. Raises ``FloatingPointError`` if x is not finite."""
        x, index = (batch, None) if isinstance(batch, Tensor) else (batch[0], batch[2] if len(batch) > 2 else None)
        check_finite("x", x, "remove or impute the offending rows")
        return x, index

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        losses = self.losses(batch)
        total = total_loss(losses)
        every = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if self.trainer.global_step % every == 0:
            self.log_dict({f"loss/{name}": loss.detach() for name, loss in losses.items()})
        return total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer([p for p in self.parameters() if p.requires_grad])

    def setup(self, stage: str) -> None:
        """Keep distributed training from overwriting the chains of other processes with those of the first."""
        chains = [name for name, module in self.named_modules() if isinstance(module, PersistentChains)]
        self._ddp_params_and_buffers_to_ignore = [f"{name}.particles" for name in chains]

    def on_fit_start(self) -> None:
        """Resume the random streams of a checkpoint; else give every process one of its own (Lightning seeds all alike)."""
        for name, module in self._random_modules():
            states = self._rng.get(name, torch.empty(0))
            if self.global_rank < len(states):
                module.set_rng_state(states[self.global_rank])
            elif self.global_rank > 0:
                module.manual_seed(torch.initial_seed() + self.global_rank)
        self._rng = {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        streams = {name: self.all_gather(module.get_rng_state()) for name, module in self._random_modules()}
        checkpoint["rng"] = {
            name: state.view(self.trainer.world_size, -1).cpu()
            for name, state in streams.items()
            if isinstance(state, Tensor)
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._rng = checkpoint.get("rng", {})
        if "loops" in checkpoint:
            complete_batch(checkpoint["loops"])

    def _random_modules(self) -> list[tuple[str, Any]]:
        """The modules that hold random streams: torch for the CPU, and that of the accelerator in use."""
        device = self.device.type
        return [("cpu", torch)] + ([] if device == "cpu" else [(device, torch.get_device_module(device))])


def total_loss(losses: dict[str, Tensor]) -> Tensor:
    """The sum of ``losses``. Raises ``FloatingPointError`` unless it is finite."""
    total = torch.stack(list(losses.values())).sum()
    check_finite("loss", total[None], "use a smaller learning rate or step_size")
    return total
