"""What README promises is run: the quickstart, and the two commands' shape."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latent_ebm.cli import main
from latent_ebm.data import Images
from tests.test_experiments import fake_images

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(heading: str) -> list[str]:
    """The fenced blocks below a heading."""
    section = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)[1]
    return re.findall(r"^```\w+\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def run(code: str) -> dict[str, Any]:
    """What the names of ``code`` are after it has run."""
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


def block(heading: str) -> str:
    """The first fenced block below a heading."""
    return blocks(heading)[0]


@pytest.mark.filterwarnings("ignore:.*litlogger")
def test_quickstart_runs(tmp_path, monkeypatch):
    code = block("Quickstart")
    assert len(code.splitlines()) <= 15
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = run(code)
    assert names["images"].shape == (16, 1, 8, 8)
    assert names["energies"].shape == (16,)
    assert bool(torch.isfinite(names["energies"]).all())


@pytest.mark.parametrize("heading", ["Run it", "Test it"])
def test_each_command_is_one_line_that_sets_itself_up(heading):
    (line,) = block(heading).splitlines()
    assert line.startswith("python3 -m venv .venv && ")
    assert "-c constraints.txt" in line


def test_own_data_are_scored_in_python(tmp_path, monkeypatch):
    code = blocks("Score your own data")[1]
    monkeypatch.chdir(tmp_path)
    names = run(code)
    selected, malignant = names["selected"], names["tumours"].target[-69:] == 0
    assert selected.any()
    assert selected[malignant].mean() > 2 * selected[~malignant].mean()
    assert names["why"].contribution.shape == (selected.sum(), 30)
    kept = names["LatentEBMDetector"].load("detector")
    assert (
        kept.score_samples(names["new"]) == names["detector"].score_samples(names["new"])
    ).all()


def test_own_data_are_scored_by_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).normal(size=(140, 3))
    for name, part in (("normal", rows[:100]), ("new", rows[100:120]), ("newer", rows[120:])):
        np.savetxt(f"{name}.csv", part, delimiter=",", header="a,b,c", comments="")
    for line in block("Score your own data").splitlines():
        program, *args = line.split()
        assert program == "latent-ebm"
        assert main(args) == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"scores.csv", "report.html", "detector"}


@pytest.mark.cpu
def test_a_frozen_encoder_serves_a_detector(tmp_path, monkeypatch):
    (code,) = [code for code in blocks("From the command line") if code.startswith("from ")]
    config = str(Path("experiments/universal/vicreg.yaml").absolute())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Images, "load", fake_images)
    small = [
        "max_epochs=1",
        "limit_train_batches=1",
        "enable_progress_bar=false",
        "precision=32-true",
        "logger=false",
    ]
    options = [f"--trainer.{option}" for option in small]
    assert main(["fit", "--config", config, *options, "--data.batch_size=8"]) == 0
    scores = run(code)["scores"]
    assert scores.shape == (100,)
    assert np.isfinite(scores).all()


def test_every_python_block_is_run():
    """By the tests above: one for each of these headings."""
    sections = re.split(r"^## ", README, flags=re.MULTILINE)
    found = [
        section.splitlines()[0]
        for section in sections
        for _ in re.findall("^```python$", section, re.MULTILINE)
    ]
    assert found == ["Quickstart", "Score your own data", "From the command line"]
