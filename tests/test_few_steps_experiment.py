"""The clock and the curve of the experiment on one-step students."""

import math

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from experiments.mnist_diffusion import run
from experiments.mnist_diffusion.run import Watched


class Line(LightningModule):
    """A rule of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.ones(()))

    def training_step(self, batch: Tensor) -> Tensor:
        return (self.slope * batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def test_a_student_is_judged_off_the_clock_and_its_curve_goes_on_after_a_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line, clock = Line(), [0.0]  # seconds; judging takes a minute, and an update nothing

    def look(rule: Line) -> dict[str, float]:
        clock[0] += 60
        return {"slope": rule.slope.item()}

    def train(recipe: Watched, num: int) -> Watched:
        recipe.now = lambda: clock[0]
        off = dict.fromkeys(("enable_progress_bar", "enable_checkpointing", "logger"), False)
        trainer = Trainer(max_steps=num, accelerator="cpu", callbacks=[recipe], **off)
        trainer.fit(line, DataLoader(torch.ones(100, 1)))
        return recipe

    monkeypatch.setattr(run, "look", look)
    stopped, goes_on = train(Watched(math.inf, 60), 30), Watched(math.inf, 60)
    assert [point["updates"] for point in stopped.curve] == [25]
    goes_on.load_state_dict(stopped.state_dict())
    spent = train(goes_on, 100).record()
    assert [point["updates"] for point in spent["curve"]] == [25, 36, 51, 60]
    assert spent["seconds"] == spent["curve"][-1]["seconds"] == 0
    slopes = [point["slope"] for point in spent["curve"]]
    assert slopes == sorted(slopes, reverse=True)
