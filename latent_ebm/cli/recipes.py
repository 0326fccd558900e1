"""The YAML files of ``experiments/``, which an installed package carries as
``latent_ebm/recipes/``: listed and printed.
"""

from pathlib import Path

import latent_ebm

PACKAGE = Path(latent_ebm.__file__).parent
INSTALLED, CHECKOUT = PACKAGE / "recipes", PACKAGE.parent / "experiments"


def find_recipes() -> dict[str, Path]:
    """The files by their names, such as ``digits/ratio``."""
    folder = INSTALLED if INSTALLED.is_dir() else CHECKOUT
    return {f"{path.parent.name}/{path.stem}": path for path in sorted(folder.glob("*/*.yaml"))}


def title(path: Path) -> str:
    """What the file trains: its first comment, up to the paper it cites."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    return comment.split(" (")[0]


def list_recipes() -> str:
    """A line for every recipe: its name and title."""
    recipes = find_recipes()
    width = max(map(len, recipes), default=0)
    return "\n".join(f"{name:{width}}  {title(path)}" for name, path in recipes.items())


def read_recipe(name: str) -> str:
    """The text of the recipe ``name``. Raises ``ValueError`` if there is none of that name."""
    recipes = find_recipes()
    if name not in recipes:
        raise ValueError(f"NAME must be one that `latent-ebm recipes` lists, got {name!r}")
    return recipes[name].read_text(encoding="utf-8")
