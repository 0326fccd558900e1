"""A text-to-image model as a static page, which draws pictures for prompts in the browser.

The folder holds the page, the files of ``export_text_to_image``, and the runtime that evaluates
them in ``ort/``. Nothing is loaded from elsewhere when the page is used.
"""

import os
from importlib.resources import files

from latent_ebm.applications.text_to_image import TextToImage
from latent_ebm.export.runtime import write_runtime
from latent_ebm.export.text_to_image import check_exportable, write_graphs
from latent_ebm.writing import atomic_folder

TEMPLATES = ("index.html", "page.js")


def export_page(
    model: TextToImage,
    folder: str | os.PathLike[str],
    runtime: str | os.PathLike[str] | None = None,
) -> None:
    """Write a page that draws with ``model`` to a new ``folder``, for any web server.

    Args:
        model: What ``export_text_to_image`` accepts, of images with 1 or 3 channels.
        folder: A new folder.
        runtime: The folder of the npm package "onnxruntime-web", version 1.30.0. None: npm fetches
            the package.

    Raises:
        ValueError: For a model that cannot be exported, or another package in ``runtime``.
        FileNotFoundError: If a file of the package is missing.
        FileExistsError: If ``folder`` exists already.
        RuntimeError: If npm is not installed or cannot fetch the package, or if files and model
            disagree.
        ImportError: Without the packages of the extra "onnx".
    """
    check_exportable(model)
    if model.shape[0] not in (1, 3):
        raise ValueError(f"shape must have 1 or 3 channels to be shown, got {model.shape}")
    with atomic_folder(folder) as draft:
        write_runtime(draft / "ort", runtime)
        for name in TEMPLATES:
            content = (files("latent_ebm.export") / "web" / name).read_bytes()
            (draft / name).write_bytes(content)
        write_graphs(model, draft)
