"""What README promises is run: the quickstart, and the two commands' shape."""

import re
from pathlib import Path

import pytest
import torch

README = (Path(__file__).parents[1] / "README.md").read_text()


def block(heading: str) -> str:
    """The first fenced block after a heading."""
    return re.search(rf"^## {heading}$.*?^```\w+\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[1]


@pytest.mark.filterwarnings("ignore:.*litlogger")
def test_quickstart_runs(tmp_path, monkeypatch):
    code = block("Quickstart")
    assert len(code.splitlines()) <= 15
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["images"].shape == (16, 1, 8, 8)
    assert names["energies"].shape == (16,)
    assert bool(torch.isfinite(names["energies"]).all())


@pytest.mark.parametrize("heading", ["Run it", "Test it"])
def test_each_command_is_one_line_that_sets_itself_up(heading):
    (line,) = block(heading).splitlines()
    assert line.startswith("python3 -m venv .venv && ")
    assert "-c constraints.txt" in line
