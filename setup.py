"""What pyproject.toml cannot say: recipes in the wheel, and a description that an index page can
show.
"""

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithRecipes(build_py):
    """Copies the YAML files of ``experiments/`` to ``latent_ebm/recipes/`` of the wheel, as an
    editable one needs not.
    """

    def run(self) -> None:
        super().run()
        for path in [] if self.editable_mode else sorted(Path("experiments").glob("*/*.yaml")):
            target = Path(self.build_lib, "latent_ebm", "recipes", path.parent.name, path.name)
            self.mkpath(str(target.parent))
            self.copy_file(str(path), str(target))


def description(readme: str) -> str:
    """``readme`` without its pictures, and with the words alone of links into the repository."""
    without = re.sub(r"^!\[.*\]\(.*\)\n\n", "", readme, flags=re.MULTILINE)
    return re.sub(r"\[([^]]+)\]\((?!https?:)[^)]+\)", r"\1", without)


setup(
    cmdclass={"build_py": BuildWithRecipes},
    long_description=description(Path("README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
