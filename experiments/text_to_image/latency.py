"""How long a picture takes on one thread: ONNX Runtime beside PyTorch."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

import onnxruntime  # pyright: ignore[reportMissingImports]
import torch

from experiments.benchmarks.timing import take_turns
from latent_ebm.applications import TextToImage
from latent_ebm.export.text_to_image import Drawing, count_draws, export_text_to_image


class Latency(NamedTuple):
    """Medians of CPU milliseconds per picture."""

    onnx: float
    torch: float


def latency(model: TextToImage, runs: int = 30) -> Latency:
    """Times of one picture of ``model``, from noise and the vectors of a text, on one thread.

    The two take turns, ``runs`` each, and the time is that of the CPU: other work on the machine
    changes both little. The model must be one that ``export_text_to_image``
    accepts.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = os.path.join(scratch, "pair")
        export_text_to_image(model, folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(os.path.join(folder, "image.onnx"), options)
    drawing = Drawing(model).eval()
    noise = torch.randn(1, 1 + count_draws(model.sampler), *model.latent_shape)
    given = {"noise": noise, **model.conditioner.encode([""])}
    arrays = {name: value.detach().numpy() for name, value in given.items()}
    contestants = {
        "onnx": lambda: session.run(None, arrays),
        "torch": lambda: drawing(**given),
    }
    with torch.no_grad(), one_thread():
        seconds = take_turns(contestants, runs)
    return Latency(**{name: 1e3 * median(times) for name, times in seconds.items()})


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes on one thread inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
