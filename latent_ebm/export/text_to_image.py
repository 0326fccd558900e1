r"""A text-to-image model as two ONNX files and a vocabulary, for programs that do not have this
library.

``text.onnx`` maps token ids to the vectors of a text and their mask. ``image.onnx`` maps standard
normal noise, vectors and mask to images. All steps of the sampler and the decoder of the
autoencoder are in this one graph; what the sampler draws on its way is part of the noise that is
given. ``vocabulary.json`` is the file of ``WordTokenizer.save``. The written pair is compared with
the model.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from latent_ebm.applications.text_to_image import TextToImage
from latent_ebm.denoisers.generation import like
from latent_ebm.export.onnx import write_onnx
from latent_ebm.text import WordTokenizer
from latent_ebm.writing import atomic_folder
from samplers.checks import check_kind
from samplers.probability_flow import ProbabilityFlow
from samplers.reverse import ReverseSampler
from samplers.schedules import broadcast

TEXT, IMAGE, VOCABULARY = "text.onnx", "image.onnx", "vocabulary.json"
MAX_STEPS = 8  # of the sampler: the graph holds the denoiser once for each
TOLERANCE = 1e-4


class Given(TorchFunctionMode):
    """Inside, every draw of normal noise takes the next tensor of ``noise`` instead."""

    def __init__(self, noise: Iterable[Tensor]) -> None:
        super().__init__()
        self.noise = iter(noise)

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if func is torch.Tensor.normal_:
            return next(self.noise)
        return func(*args, **(kwargs or {}))


class Drawing(nn.Module):
    """What ``model`` does after its text encoder, with noise that is given.

    The weight of guidance is a constant where the denoiser takes it as an input.
    """

    def __init__(self, model: TextToImage) -> None:
        super().__init__()
        self.denoiser, self.sampler = model.denoiser, model.sampler
        self.autoencoder = model.autoencoder
        self.weight = None if model.weights is None else model.guidance

    def forward(self, noise: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Images (rows, C, H, W) in [-1, 1].

        Args:
            noise: Standard normal (rows, 1 + draws, \\*latent_shape): the start, and what the
                sampler draws on its way.
            text: Vectors (rows, m, dim) of a text.
            mask: True for those that count (rows, m).
        """
        told = {"text": text, "mask": mask}
        if self.weight is not None:
            told["guidance"] = noise.new_full(noise.shape[:1], self.weight)
        _, sigma = self.denoiser.schedule(noise.new_ones(()))
        start, *fresh = noise.unbind(1)
        with Given(fresh):
            x_T = broadcast(sigma, start) * start
            z = self.sampler.sample(partial(self.denoiser, **told), x_T)
        x = z if self.autoencoder is None else self.autoencoder.decode(z)
        return x.clamp(-1, 1)


def count_draws(sampler: ReverseSampler) -> int:
    """How often ``sampler`` draws noise on its way."""
    draws = itertools.count()
    with Given(torch.zeros(1, 1) for _ in draws):
        sampler.sample(lambda x_t, t: x_t, torch.zeros(1, 1))
    return next(draws)


def export_text_to_image(model: TextToImage, folder: str | os.PathLike[str]) -> None:
    """Write ``model`` to a new ``folder`` as ``text.onnx``, ``image.onnx`` and
    ``vocabulary.json``.

    Both graphs take any number of rows. ``text.onnx`` has the input ``tokens`` (rows, max_tokens)
    int64 and the outputs ``text`` (rows, max_tokens, dim) and ``mask`` (rows, max_tokens) bool.
    ``image.onnx`` has the inputs ``noise`` (rows, 1 + draws, \\*latent_shape), ``text`` and
    ``mask``, and the output ``image`` (rows, C, H, W) in [-1, 1]. The noise is standard normal:
    where the sampler starts, and what it draws on its way, which is nothing for ``DDIM``.

    The model is left in evaluation mode. If ONNX Runtime is installed, the files are compared with
    the model.

    Raises:
        ValueError: For a model with guidance that its denoiser has not learnt, with another
            tokenizer than ``WordTokenizer``, with more than 8 steps, or whose sampler chooses
            its steps.
        FileExistsError: If the folder exists already.
        RuntimeError: If files and model disagree; no folder is left then.
        ImportError: Without the extra "onnx".
    """
    check_exportable(model)
    with atomic_folder(folder) as draft:
        write_graphs(model, draft)


def check_exportable(model: TextToImage) -> WordTokenizer:
    """The tokenizer of ``model``. Raises ``ValueError`` if other programs cannot run the model."""
    check_kind("export", TextToImage, model=model)
    tokenizer, sampler = model.conditioner.encoder.tokenizer, model.sampler
    if not isinstance(tokenizer, WordTokenizer):
        raise ValueError(
            "tokenizer must be a WordTokenizer to be exported, as its rule is simple enough for "
            f"other programs, got {type(tokenizer).__name__}"
        )
    if model.guidance != 1 and model.weights is None:
        raise ValueError(
            "guidance must be 1 to be exported, unless the denoiser has learnt it, got "
            f"{model.guidance:g}"
        )
    if sampler.num_steps > MAX_STEPS:
        raise ValueError(
            f"num_steps of the sampler must be at most {MAX_STEPS} to be exported, got "
            f"{sampler.num_steps}"
        )
    if isinstance(sampler, ProbabilityFlow):
        raise ValueError(
            f"sampler must take fixed steps to be exported, such as those of DDIM, got {sampler}"
        )
    first = like(model.denoiser)
    if first.dtype != torch.float32 or first.device.type != "cpu":
        raise ValueError(
            f"model must be in float32 on the CPU to be exported, got {first.dtype} on "
            f"{first.device}"
        )
    return tokenizer


def write_graphs(model: TextToImage, folder: Path) -> None:
    """Write both graphs and the vocabulary of an exportable ``model`` into ``folder``."""
    encoder, tokenizer = model.eval().conditioner.encoder, check_exportable(model)
    drawing = Drawing(model).eval()
    prompts = ["", " ".join(tokenizer.words[: tokenizer.max_words])]
    tokens = tokenizer(prompts)
    noise = torch.randn(2, 1 + count_draws(model.sampler), *model.latent_shape)
    with torch.no_grad():
        text, mask = encoder(tokens)
        image = drawing(noise, text, mask)
    write_onnx(encoder, {"tokens": tokens}, folder / TEXT, ("text", "mask"))
    given = {"noise": noise, "text": text, "mask": mask}
    write_onnx(drawing, given, folder / IMAGE, ("image",))
    tokenizer.save(folder / VOCABULARY)
    if find_spec("onnxruntime") is not None:
        check_parity(folder, tokens.numpy(), noise.numpy(), image.numpy())


def check_parity(folder: Path, tokens: np.ndarray, noise: np.ndarray, image: np.ndarray) -> None:
    """Raise ``RuntimeError`` unless the graphs in ``folder`` draw ``image`` (rows, C, H, W) for
    ``tokens`` (rows, m) and ``noise``.
    """
    import onnxruntime  # pyright: ignore[reportMissingImports]

    encoder, drawing = (onnxruntime.InferenceSession(folder / name) for name in (TEXT, IMAGE))
    text, mask = encoder.run(["text", "mask"], {"tokens": tokens})
    (found,) = drawing.run(["image"], {"noise": noise, "text": text, "mask": mask})
    worst = float(np.abs(found - image).max())
    if not worst <= TOLERANCE:
        raise RuntimeError(
            f"the ONNX files must agree with the model up to {TOLERANCE:g}, got {worst:g}"
        )
