"""What README promises is run: the quickstart, the detector, and the two commands' shape."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latent_ebm.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text()
LONGER = ("|", "python3 -m venv")  # tables and commands, which cannot be wrapped


def blocks(heading: str) -> list[str]:
    """The fenced blocks below a heading."""
    section = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)[1]
    return re.findall(r"^```\w+\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def run(code: str) -> dict[str, Any]:
    """What the names of ``code`` are after it has run."""
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore:.*litlogger")
def test_quickstart_runs(tmp_path, monkeypatch):
    (code,) = blocks("Quickstart")
    assert len(code.splitlines()) <= 15
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = run(code)
    assert names["images"].shape == (16, 1, 8, 8)
    assert names["energies"].shape == (16,)
    assert bool(torch.isfinite(names["energies"]).all())


@pytest.mark.parametrize("heading", ["Run it", "Test it"])
def test_each_command_is_one_line_that_sets_itself_up(heading):
    (block,) = blocks(heading)
    (line,) = block.splitlines()
    assert line.startswith("python3 -m venv .venv && ")
    assert "-c constraints.txt" in line


def test_anomalies_are_found_in_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(blocks("For finding anomalies")[1])
    selected, malignant = names["selected"], names["tumours"].target[-69:] == 0
    assert selected.any()
    assert selected[malignant].mean() > 2 * selected[~malignant].mean()
    assert names["why"].shape == (selected.sum(), 30)


def test_anomalies_are_found_by_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).normal(size=(140, 3))
    for name, part in (("normal", rows[:100]), ("new", rows[100:120]), ("newer", rows[120:])):
        np.savetxt(f"{name}.csv", part, delimiter=",", header="a,b,c", comments="")
    for line in blocks("For finding anomalies")[0].splitlines():
        program, *args = line.split()
        assert program == "latent-ebm"
        assert main(args) == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"scores.csv", "report.html", "detector"}


def test_every_python_block_is_run():
    """By the tests above: one for each of these headings."""
    sections = re.split(r"^## ", README, flags=re.MULTILINE)
    found = [
        section.splitlines()[0]
        for section in sections
        for _ in re.findall("^```python$", section, re.MULTILINE)
    ]
    assert found == ["Quickstart", "For finding anomalies"]


def test_lines_are_short():
    lines = [line for line in README.splitlines() if not line.startswith(LONGER)]
    assert max(map(len, lines)) <= 99
