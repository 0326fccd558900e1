"""How long a picture takes on one thread: PyTorch, ONNX Runtime, and the page in a browser."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import torch

from experiments.benchmarks.timing import take_turns
from latent_ebm.applications import TextToImage
from latent_ebm.applications.trained import text_to_image
from latent_ebm.export import export_page
from latent_ebm.export.text_to_image import Drawing, count_draws, export_text_to_image
from latent_ebm.learning.base import LearningRule
from tests.browser import CHROMIUM, Browser, served

RUNS, PICTURES = 30, 9  # of the contestants; on the page


def latency(rule: LearningRule, steps: int) -> dict[str, float]:
    """Milliseconds of a picture of what ``rule`` trains, without guidance, from noise and the
    vectors of a text: medians of CPU time of PyTorch and ONNX Runtime, which take turns on one
    thread, and the mean that the page reports, if there is a Chromium.
    """
    model = replace_sampler(text_to_image(rule), steps)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        export_text_to_image(model, folder / "pair")
        found = native(model, folder / "pair" / "image.onnx")
        if CHROMIUM is not None:
            export_page(model, folder / "site")
            found["browser"] = on_page(folder)
    return found


def replace_sampler(model: TextToImage | None, steps: int) -> TextToImage:
    """``model`` with so many steps, and no guidance."""
    if model is None:
        raise ValueError("rule must train a text-to-image model, got another one")
    sampler = replace(model.sampler, num_steps=steps)
    parts = (model.conditioner, model.denoiser, sampler, model.shape)
    return TextToImage(*parts, autoencoder=model.autoencoder).eval()


def native(model: TextToImage, graph: Path) -> dict[str, float]:
    """CPU milliseconds of PyTorch and ONNX Runtime."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options)
    noise = torch.randn(1, 1 + count_draws(model.sampler), *model.latent_shape)
    given = {"noise": noise, **model.conditioner.encode(["a fox"])}
    arrays = {name: value.detach().numpy() for name, value in given.items()}
    contestants = {
        "torch": partial(Drawing(model).eval(), **given),
        "onnx": partial(session.run, None, arrays),
    }
    with torch.no_grad(), one_thread():
        seconds = take_turns(contestants, RUNS)
    return {name: 1e3 * median(times) for name, times in seconds.items()}


def on_page(folder: Path) -> float:
    """Milliseconds of a picture that the page of ``folder`` reports, after a first drawing."""
    with served(folder / "site") as address:
        browser = Browser(folder / "profile")
        try:
            browser.send("Page.navigate", url=address)
            browser.until("document.readyState == 'complete'")
            browser.evaluate("import('./page.js').then(() => 0)")
            for number in (1, PICTURES):
                browser.write("#prompt", "a fox")
                browser.write("#number", str(number))
                browser.click("#draw")
                browser.until("!document.querySelector('#draw').disabled")
            told = browser.evaluate("document.querySelector('#message').textContent")
        finally:
            browser.close()
    return float(re.findall(r"(\d+) ms", told)[-1])


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes on one thread inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
