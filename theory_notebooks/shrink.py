"""Store the pictures of executed notebooks with at most 256 colours, a third of their size:
``python theory_notebooks/shrink.py``
"""

import base64
import io
from pathlib import Path

import nbformat
from PIL import Image

HERE = Path(__file__).parent


def shrunk(png: bytes) -> bytes:
    """The picture on white, with a palette; itself if it has one already."""
    picture = Image.open(io.BytesIO(png))
    if picture.mode == "P":
        return png
    opaque = Image.new("RGBA", picture.size, "white")
    opaque.alpha_composite(picture.convert("RGBA"))
    few = opaque.convert("RGB").quantize(256, kmeans=3, dither=Image.Dither.NONE)
    out = io.BytesIO()
    few.save(out, "PNG", optimize=True)
    return out.getvalue()


def shrink(path: Path) -> None:
    """Shrink all pictures that the notebook at ``path`` shows."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                few = shrunk(base64.b64decode(png))
                output.data["image/png"] = base64.b64encode(few).decode() + "\n"
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for path in HERE.glob("*.ipynb"):
        shrink(path)
    for path in (HERE / "figures").glob("*.png"):
        path.write_bytes(shrunk(path.read_bytes()))
