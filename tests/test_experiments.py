"""Every YAML file says what it is, is accepted whole, and takes a step of training and of validation."""

from pathlib import Path

import pytest
import torch

from latent_ebm.cli import main
from latent_ebm.data import MNIST
from latent_ebm.data.base import Pair

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "experiments").glob("*/*.yaml"))


def fake_mnist(self: MNIST) -> tuple[Pair, Pair, Pair]:
    """Noise in the shape of MNIST."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(300, 1, 28, 28, generator=generator) * 2 - 1
    pair = x[:100], torch.arange(100) % 10
    return pair, pair, pair


def test_there_are_experiments() -> None:
    assert {"digits", "mnist", "pinwheel"} <= {path.parent.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_header(path: Path) -> None:
    header = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert "arXiv:" in header
    assert f"latent-ebm fit --config {path.relative_to(ROOT).as_posix()}" in header
    assert "RESULTS.md" in header


@pytest.mark.filterwarnings("ignore:.*never moved:UserWarning")  # one of 200 chains, with untrained stages
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_takes_a_step(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MNIST, "load", fake_mnist)
    monkeypatch.setattr(MNIST, "prepare_data", lambda self: None)
    assert (
        main(["fit", "--config", str(path), "--trainer.fast_dev_run=true", "--trainer.enable_progress_bar=false"]) == 0
    )
