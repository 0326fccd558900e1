"""How long a picture takes on one thread: ONNX Runtime beside PyTorch."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

import onnxruntime  # pyright: ignore[reportMissingImports]
import torch

from latent_ebm.applications import TextToImage
from latent_ebm.export.text_to_image import Drawing, count_draws, export_text_to_image

WARM = 3  # runs that are not counted


class Latency(NamedTuple):
    """Medians of CPU milliseconds per picture."""

    onnx: float
    torch: float


def latency(model: TextToImage, runs: int = 30) -> Latency:
    """Times of one picture of ``model``, from noise and the vectors of a text, on one thread.

    The two take turns, ``runs`` each, and the time is that which the thread computed: other work
    on the machine changes both little. The model must be one that ``export_text_to_image``
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
    with torch.no_grad(), one_thread():
        return Latency(
            *interleaved(lambda: session.run(None, arrays), lambda: drawing(**given), runs=runs)
        )


def interleaved(*calls: Callable[[], object], runs: int) -> list[float]:
    """Median CPU milliseconds of each of ``calls``, made in turns."""
    times = [[milliseconds(call) for call in calls] for _ in range(WARM + runs)][WARM:]
    return [median(column) for column in zip(*times, strict=True)]


def milliseconds(call: Callable[[], object]) -> float:
    start = time.thread_time()
    call()
    return 1e3 * (time.thread_time() - start)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes on one thread inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
