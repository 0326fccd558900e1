"""Store the pictures of executed notebooks in a few colours, a third of their size:
``python -m theory_notebooks.shrink``
"""

import base64
import io
from pathlib import Path

import nbformat
from PIL import Image

from experiments.pictures import small_png

HERE, PICTURES = Path(__file__).parent, ("09", "10", "11")  # notebooks that show coloured pictures


def colours(path: Path) -> int:
    """How many colours the pictures of a notebook, or its figure, have."""
    return 32 if path.stem[:2] in PICTURES else 24


def shrunk(png: bytes, num: int) -> bytes:
    """The picture in ``num`` colours; itself if it has no more."""
    picture = Image.open(io.BytesIO(png))
    if picture.mode == "P" and picture.getcolors(num):
        return png
    return small_png(picture, num)


def shrink(path: Path) -> None:
    """Shrink all pictures that the notebook at ``path`` shows."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                few = shrunk(base64.b64decode(png), colours(path))
                output.data["image/png"] = base64.b64encode(few).decode() + "\n"
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for path in HERE.glob("*.ipynb"):
        shrink(path)
    for path in (HERE / "figures").glob("*.png"):
        path.write_bytes(shrunk(path.read_bytes(), colours(path)))
