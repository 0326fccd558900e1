"""What is built and what it holds: packages, types, recipes, and a description that an index page
can show.
"""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from latent_ebm.cli import main, recipes

ROOT = Path(__file__).parents[1]
BUILD = (
    "import sys; from setuptools import build_meta as b; out = sys.argv[1]; b.build_wheel(out); "
    "b.build_sdist(out)"
)
RECIPES = {
    path.relative_to(ROOT / "experiments").as_posix()
    for path in (ROOT / "experiments").glob("*/*.yaml")
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built from a copy of the repository."""
    copy, out = tmp_path_factory.mktemp("copy") / "tree", tmp_path_factory.mktemp("built")
    keep_out = shutil.ignore_patterns(
        "__pycache__", ".*", "*.egg-info", "build", "_build", "outputs", "figures", "runs", "demo"
    )
    shutil.copytree(ROOT, copy, ignore=keep_out)
    subprocess.run(
        [sys.executable, "-c", BUILD, str(out)], cwd=copy, check=True, capture_output=True
    )
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(built.glob("*.whl")))


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel.read(name))


def test_the_wheel_holds_both_packages_whole_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "samplers",
        "latent_ebm",
    }
    modules = {
        path.relative_to(ROOT).as_posix()
        for p in ("samplers", "latent_ebm")
        for path in (ROOT / p).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == modules
    assert {
        "samplers/py.typed",
        "latent_ebm/py.typed",
        "latent_ebm/detection/report.html",
        "latent_ebm/evaluation/study.html",
        "latent_ebm/export/web/index.html",
        "latent_ebm/export/web/page.js",
    } <= names


def test_the_wheel_carries_the_recipes_as_they_are(wheel: zipfile.ZipFile) -> None:
    carried = {
        name.removeprefix("latent_ebm/recipes/"): name
        for name in wheel.namelist()
        if name.endswith(".yaml")
    }
    assert carried.keys() == RECIPES
    assert all(
        wheel.read(name) == (ROOT / "experiments" / key).read_bytes()
        for key, name in carried.items()
    )


def test_the_sdist_builds_the_same_and_holds_no_part_of_the_tests(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"experiments/{key}" for key in RECIPES} | {
        "setup.py",
        "README.md",
        "LICENSE",
    } <= names
    assert not [name for name in names if name.startswith("tests")]


def test_the_description_has_no_link_into_the_repository(metadata: Message) -> None:
    text = str(metadata.get_payload())
    assert not re.findall(r"!\[.*\]\(.*\)", text)
    assert all(link.startswith("https:") for link in re.findall(r"\]\(([^)]+)\)", text))
    assert "## Quickstart" in text
    assert "- 01 Energy and density: what a sampler can see" in text


def test_metadata(metadata: Message) -> None:
    classifiers = metadata.get_all("Classifier", [])
    assert "Typing :: Typed" in classifiers
    assert [c for c in classifiers if c.endswith("3.10")]  # as requires-python says
    assert metadata["Requires-Python"] == ">=3.10"


@pytest.mark.parametrize("installed", [False, True], ids=["checkout", "wheel"])
def test_recipes_are_listed_and_printed(
    installed: bool,
    wheel: zipfile.ZipFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if installed:
        wheel.extractall(tmp_path)
        monkeypatch.setattr(recipes, "INSTALLED", tmp_path / "latent_ebm" / "recipes")
        monkeypatch.setattr(recipes, "CHECKOUT", tmp_path / "none")
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] + ".yaml" for line in lines] == sorted(RECIPES)
    assert next(line for line in lines if "digits/mle" in line).endswith(
        "Latent energy prior by short-run MCMC maximum likelihood"
    )
    assert main(["recipe", "digits/mle"]) == 0
    assert capsys.readouterr().out == (ROOT / "experiments/digits/mle.yaml").read_text()


@pytest.mark.parametrize("name", ["mle", "digits/mle.yaml", "../digits/mle"])
def test_a_recipe_of_another_name_is_refused(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipe", name]) == 1
    assert (
        f"NAME must be one that `latent-ebm recipes` lists, got {name!r}"
        in capsys.readouterr().err
    )
