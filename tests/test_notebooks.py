"""Every theory notebook runs from top to bottom, and is committed with the outputs of such a
run.
"""

import base64
import os
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
from nbclient import NotebookClient

from theory_notebooks.shrink import colours, shrunk

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "theory_notebooks").glob("*.ipynb"))
INDEX = {
    "README.md": "(theory_notebooks/{path.name})",
    "docs/paths/student.md": "(../notebooks/{path.name})",
}
every_notebook = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_notebooks() -> None:
    """Their numbers are different, and rise from 01; one that is not written yet is left out."""
    numbers = [int(path.stem[:2]) for path in FILES]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 1
    assert len(FILES) >= 11


@pytest.mark.cpu
@every_notebook
@pytest.mark.filterwarnings("ignore")
def test_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells are plain Python. Pictures go to a folder of the test; a claim that fails raises
    in its last cell.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    names = {"__name__": path.stem}
    with plt.rc_context(), warnings.catch_warnings():
        for cell in code_cells(path):
            exec(compile(cell.source, path.name, "exec"), names)
    assert (tmp_path / "figures" / f"{path.stem[:2]}.png").is_file()


def test_one_runs_in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a reader runs them: the quickest."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    )
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(FILES[6], as_version=4)
    NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()


@every_notebook
def test_is_committed_as_it_ran(path: Path) -> None:
    """Cells were run in order, none failed, there are pictures, and the last one asserts."""
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert cells[-1].source.count("assert ") >= 3


@every_notebook
def test_pictures_are_small(path: Path) -> None:
    """Of few colours, as ``theory_notebooks/shrink.py`` leaves them: it leaves them alone."""
    shown = [output.get("data", {}) for cell in code_cells(path) for output in cell.outputs]
    pictures = [base64.b64decode(data["image/png"]) for data in shown if "image/png" in data]
    pictures.append((path.parent / "figures" / f"{path.stem[:2]}.png").read_bytes())
    assert [shrunk(png, colours(path)) for png in pictures] == pictures


@every_notebook
@pytest.mark.parametrize("page", INDEX)
def test_is_in_the_index(page: str, path: Path) -> None:
    assert INDEX[page].format(path=path) in (ROOT / page).read_text()
    assert (path.parent / "figures" / f"{path.stem[:2]}.png").is_file()


@every_notebook
def test_uses_the_public_interface_only(path: Path) -> None:
    for cell in code_cells(path):
        for line in cell.source.splitlines():
            if line.startswith(
                ("from samplers", "from latent_ebm", "import samplers", "import latent_ebm")
            ):
                names = line.replace("import", " ").replace(".", " ").replace(",", " ").split()
                assert not [name for name in names if name.startswith("_")], line
