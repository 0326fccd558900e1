"""Networks as ONNX files, which ONNX Runtime evaluates without PyTorch and without this
library.
"""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from latent_ebm.writing import atomic_path

LARGEST = 1_500_000_000  # a file of this format ends at 2 GiB


def write_onnx(
    network: nn.Module,
    examples: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    outputs: Sequence[str],
) -> None:
    """Write ``network`` to ``path``, one file with its weights, for any number of rows.

    The file does not mention the source code of the network.

    Args:
        network: On the CPU, and in the mode that the file shall have.
        examples: An input (n >= 2, \\*event) for every argument of its ``forward``, by the name
            that it has in the file, in order.
        path: The file.
        outputs: Names of the tensors that the network returns.

    Raises:
        ImportError: Without the packages of the extra "onnx".
        ValueError: For a network whose weights do not fit in one file.
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ImportError(
            f'{" and ".join(missing)} must be installed to export: pip install "latent-ebm[onnx]"'
        )
    size = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    if size > LARGEST:
        raise ValueError(
            f"network must have at most {LARGEST:,} bytes of weights, which one ONNX file holds, "
            f"got {size:,}"
        )
    rows = tuple({0: torch.export.Dim("rows")} for _ in examples)
    with quiet_exporter(), atomic_path(path) as temporary:
        program = torch.onnx.export(
            network,
            tuple(examples.values()),
            dynamo=True,
            dynamic_shapes=rows,
            input_names=list(examples),
            output_names=outputs,
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass  # pyright: ignore[reportMissingImports]

        ClearMetadataAndDocStringPass()(
            program.model
        )  # it names the files and lines of every operation
        program.save(temporary, external_data=False)


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence the exporter's warnings about deprecated functions that it calls itself, about
    libraries that are not installed, and about axes of one name.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            warnings.filterwarnings(
                "ignore", "# The axis name: rows will not be used", UserWarning
            )
            yield
    finally:
        logger.setLevel(level)
