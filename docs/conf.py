"""The documentation site: ``sphinx-build -W docs docs/_build/html``. No network is needed."""

import importlib
import inspect
import pkgutil
import re
import shutil
import textwrap
import unicodedata
from contextlib import suppress
from importlib.resources import files
from itertools import groupby
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxTranslator

HERE = Path(__file__).parent
HOMES = ("samplers.", "latent_ebm.")
MODULES = (  # public, and no packages
    "latent_ebm.applications.replacement",
    "latent_ebm.applications.trained",
    "latent_ebm.applications.tuning",
    "latent_ebm.conditions",
    "latent_ebm.objectives",
)

logger = logging.getLogger(__name__)

project = "latent_ebm"
html_title = "latent_ebm"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_static_path = ["_static", str(files("ziamath.fonts") / "STIXTwoMath-Regular.ttf")]
html_css_files = ["site.css"]
html_copy_source = html_show_copyright = html_show_sphinx = False
html_math_renderer = "mathml"
highlight_language = "text"

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False  # those of nn.Module and LightningModule are long
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

nb_execution_mode = "off"  # notebooks are stored with their outputs, and tests run them
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3


def packages() -> list[str]:
    """Every package of the library, by its import path."""
    found = ["samplers", "latent_ebm"]
    for name in found.copy():
        path = importlib.import_module(name).__path__
        found += [m.name for m in pkgutil.iter_modules(path, f"{name}.") if m.ispkg]
    return [*found, "latent_ebm.data.curation"]


def home(package: str, name: str) -> str:
    """The module that defines a public name of ``package``."""
    module = getattr(getattr(importlib.import_module(package), name), "__module__", package)
    return module if module.startswith(HOMES) else package


def heading(text: str, rule: str) -> list[str]:
    return [text, rule * len(text), ""]


def entry(package: str, name: str) -> str:
    """The directive that documents one public name."""
    value = getattr(importlib.import_module(package), name)
    if inspect.isclass(value) or inspect.isroutine(value):
        return f".. auto{'class' if inspect.isclass(value) else 'function'}:: {package}.{name}\n"
    return f".. py:data:: {package}.{name}\n   :value: {textwrap.shorten(str(value), 90)}\n"


def api_page(package: str) -> str:
    """The page of ``package``: its public names, below the theory of the module of each."""
    names = importlib.import_module(package).__all__
    lines = [*heading(package, "="), f".. automodule:: {package}", "   :no-members:", ""]
    by_home = sorted(names, key=lambda name: home(package, name))
    for module, group in groupby(by_home, lambda name: home(package, name)):
        if not f"{module}.".startswith(f"{package}."):
            lines += [f"- :py:obj:`.{name}`" for name in group]
            continue
        if module != package:
            lines += ["", *heading(module.removeprefix(f"{package}."), "-")]
            lines += [f".. automodule:: {module}", "   :no-members:", "   :no-index:", ""]
        lines += [entry(package, name) for name in group]
    return "\n".join(lines)


def write_pages(app: Sphinx) -> None:
    """Write the API pages, and copy the notebooks to where Sphinx finds them."""
    api, notebooks = HERE / "api", HERE / "notebooks"
    for folder in (api, notebooks):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for package in packages():
        (api / f"{package}.rst").write_text(api_page(package))
    for module in MODULES:
        lines = [*heading(module, "="), f".. automodule:: {module}", ""]
        (api / f"{module}.rst").write_text("\n".join(lines))
    for path in HERE.parent.glob("theory_notebooks/*.ipynb"):
        shutil.copy(path, notebooks)


def check_complete(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of every public name that no page documents."""
    documented = {name.rpartition(".")[2] for name in env.domains["py"].data["objects"]}
    for package in packages():
        for name in set(importlib.import_module(package).__all__) - documented:
            logger.warning("%s.%s is documented nowhere", package, name)


def skip(app: Sphinx, what: str, name: str, value: object, skip: bool, options: object) -> bool:
    """Leave out fields of named tuples, which their class describes."""
    return skip or str(getattr(value, "__doc__", "")).startswith("Alias for field number")


def styled_letter(match: re.Match[str]) -> str:
    """A script or double-struck letter as the character that MathML Core has for it."""
    style, letter = match[1].upper(), match[2]
    for name in (f"MATHEMATICAL {style} CAPITAL {letter}", f"{style} CAPITAL {letter}"):
        with suppress(KeyError):
            return f"<mi>{unicodedata.lookup(name)}</mi>"
    return match[0]


def to_mathml(formula: str, display: str) -> str:
    """LaTeX as MathML, which browsers show without a script and without a network."""
    found = convert(formula, display=display)
    found = re.sub(r'<mi mathvariant="(script|double-struck)">([A-Z])</mi>', styled_letter, found)
    found = re.sub(
        r"<mo[^>]*>&#x0007C;</mo>", '<mo stretchy="false" lspace="0" rspace="0">|</mo>', found
    )
    thin_space = r'\g<0><mspace width="0.17em"/>'
    return re.sub(r"<mi>(log|exp|min|max)</mi>(?=<m[is])", thin_space, found)


def visitor(display: str):
    """What Sphinx asks of a renderer of formulas: a function to enter a node, none to leave."""

    def visit(self: SphinxTranslator, node: nodes.Element) -> None:
        self.body.append(to_mathml(node.astext(), display))
        raise nodes.SkipNode

    return visit, None


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", visitor("inline"), visitor("block"))
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-skip-member", skip)
    app.connect("env-check-consistency", check_complete)
