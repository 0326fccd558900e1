"""Networks as ONNX files, which ONNX Runtime evaluates without PyTorch and without this
library.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from latent_ebm.writing import atomic_path


def write_onnx(
    network: nn.Module, example: Tensor, path: str | os.PathLike[str], names: tuple[str, str]
) -> None:
    """Write ``network`` to ``path``: one input and one output, called ``names``, for any number of
    rows.

    ``example`` (n >= 2, \\*event) is an input of the network; both must be on the CPU. Set the
    network to the mode that the file shall have. The file does not mention the source code of the
    network. Raises ``ImportError`` without the extra "onnx".
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ImportError(
            f'{" and ".join(missing)} must be installed to export: pip install "latent-ebm[onnx]"'
        )
    rows = ({0: torch.export.Dim("rows")},)
    with quiet_exporter(), atomic_path(path) as temporary:
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=rows,
            input_names=names[:1],
            output_names=names[1:],
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass  # pyright: ignore[reportMissingImports]

        ClearMetadataAndDocStringPass()(
            program.model
        )  # it names the files and lines of every operation
        program.save(temporary)


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence the exporter's warnings about deprecated functions that it calls itself, and about
    libraries that are not installed.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
