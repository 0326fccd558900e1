"""Imports: ``samplers`` stands alone, the layers look one way, and Lightning stays where it
belongs.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A module may import what stands in its own layer or in one before it.
LAYERS = [
    {
        "samplers",
        "latent_ebm.blocks",
        "latent_ebm.conditions",
        "latent_ebm.writing",
        "latent_ebm.artefacts",
        "latent_ebm.plots",
        "latent_ebm.networks",
        "latent_ebm.selection",
        "latent_ebm.objectives",
        "latent_ebm.metrics",
        "latent_ebm.data",
        "latent_ebm.foreign",
        "latent_ebm.files",
        "latent_ebm.text",
        "latent_ebm.subjects",
        "latent_ebm.scorers",
    },
    {"latent_ebm.priors", "latent_ebm.kernels", "latent_ebm.likelihoods", "latent_ebm.denoisers"},
    {"latent_ebm.autoencoders"},
    {"latent_ebm.model"},
    {"latent_ebm.posteriors", "latent_ebm.guidance"},
    {"latent_ebm.learning", "latent_ebm.distillation"},
    {"latent_ebm.detection", "latent_ebm.evaluation", "latent_ebm.responsibility"},
    {"latent_ebm.export", "latent_ebm.applications"},
    {"latent_ebm.cli", "latent_ebm"},
]
MAY_IMPORT_LIGHTNING = {
    "latent_ebm.learning",
    "latent_ebm.distillation",
    "latent_ebm.data",
    "latent_ebm.cli",
}
FILES = sorted(
    path for package in ("samplers", "latent_ebm") for path in (ROOT / package).rglob("*.py")
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Absolute names of all that ``path`` imports, at the top or inside functions."""
    package = module_name(path).split(".")[: None if path.name == "__init__.py" else -1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                # "from latent_ebm import priors" names a module; "from latent_ebm import
                # LatentModel" a class.
                yield f"{stem}.{alias.name}" if is_module(f"{stem}.{alias.name}") else stem


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def concept(module: str) -> str:
    """The package or module of the architecture that ``module`` belongs to."""
    head, *rest = module.split(".")
    return f"{head}.{rest[0]}" if head == "latent_ebm" and rest else head


def layer(module: str) -> int:
    matches = [k for k, names in enumerate(LAYERS) if concept(module) in names]
    assert matches, f"{module} belongs to no layer"
    return matches[0]


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_look_one_way(path: Path) -> None:
    name = module_name(path)
    for other in imported(path):
        if other.split(".")[0] in ("samplers", "latent_ebm"):
            assert layer(other) <= layer(name), (
                f"{name} imports {other}, which is of a later layer"
            )
            assert name.split(".")[0] != "samplers" or other.startswith("samplers"), (
                f"{name} imports {other}"
            )
        assert other.split(".")[0] not in ("experiments", "tests"), f"{name} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_lightning_stays_where_it_belongs(path: Path) -> None:
    heavy = {name.split(".")[0] for name in imported(path)} & {
        "lightning",
        "pytorch_lightning",
        "lightning_fabric",
    }
    assert not heavy or concept(module_name(path)) in MAY_IMPORT_LIGHTNING


def import_graph() -> dict[str, set[str]]:
    """The modules of both packages that each module imports, at the top or inside functions."""
    own = ("samplers", "latent_ebm")
    return {
        module_name(path): {name for name in imported(path) if name.split(".")[0] in own}
        - {module_name(path)}
        for path in FILES
    }


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first again at the end; none if there is
    no circle.
    """
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = import_graph()
    assert len(graph) == len(FILES)
    assert graph["latent_ebm.cli.entry"] >= {
        "latent_ebm.cli.trainer",
        "latent_ebm.cli.commands.score",
    }
    assert find_circle(graph) == []
    graph["samplers.checks"] = {"samplers.langevin"}
    assert "samplers.checks" in find_circle(graph)


def test_samplers_stand_alone() -> None:
    code = "import sys, samplers; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"latent_ebm", "lightning", "pytorch_lightning", "pyro"} & set(done.stdout.split())


def test_a_detector_of_tables_loads_no_lightning(tmp_path: Path) -> None:
    code = (
        f"import sys, numpy as np; sys.path.insert(0, {str(ROOT)!r}); from latent_ebm.cli import "
        "main;"
        "np.save('x.npy', np.random.default_rng(0).normal(size=(30, 2)));"
        "assert main(['detect', 'x.npy', '--score', 'x.npy', '--out', 's.csv', '--report', "
        "'r.html']) == 0;"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert not {"lightning", "pytorch_lightning", "lightning_fabric"} & set(done.stdout.split())


def test_public_names_exist() -> None:
    import samplers

    assert len(set(samplers.__all__)) == len(samplers.__all__)
    assert all(hasattr(samplers, name) for name in samplers.__all__)
