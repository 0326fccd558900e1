"""The exported pair of graphs draws what the model draws; models that it cannot hold are refused
before anything is written.
"""

from pathlib import Path

import pytest
import torch

from latent_ebm.export import export_text_to_image
from latent_ebm.export.text_to_image import Drawing, check_exportable, check_parity
from latent_ebm.text import Tokenizer, WordTokenizer
from samplers import DDIM, Ancestral, Heun, ProbabilityFlow, Renoising, ReverseSampler

from .drawing import NOISE, noise_of, seeded, tiny_model


def test_the_pair_draws_what_the_model_draws(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    model = tiny_model(Renoising(NOISE, 2), guidance=2.0, weights=(1.0, 3.0))
    export_text_to_image(model, tmp_path / "pair")
    encoder, drawing = (
        runtime.InferenceSession(tmp_path / "pair" / name) for name in ("text.onnx", "image.onnx")
    )
    tokenizer = WordTokenizer.load(tmp_path / "pair" / "vocabulary.json")
    for prompts in (["blue red"], ["", "green", "red green blue"]):
        tokens = tokenizer(prompts).numpy()
        text, mask = encoder.run(["text", "mask"], {"tokens": tokens})
        noise = noise_of(model, len(prompts)).numpy()
        (found,) = drawing.run(["image"], {"noise": noise, "text": text, "mask": mask})
        expected = model.generate(prompts, generator=seeded())
        assert 0.1 < expected.std() < 0.8
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=2e-5, rtol=0)
        with pytest.raises(RuntimeError, match=r"agree with the model up to 0\.0001, got 0\.01"):
            check_parity(tmp_path / "pair", tokens, noise, found + 0.01)
    assert b".py" not in (tmp_path / "pair" / "image.onnx").read_bytes()


class Letters(Tokenizer):
    """A tokenizer that only this file knows."""

    max_tokens, num_tokens = 4, 300

    def split(self, prompt: str) -> tuple[list[int], list[str]]:
        return [1, *map(ord, prompt)], []


REFUSED = [
    (lambda: tiny_model(guidance=1.5), "guidance must be 1 to be exported, .* got 1.5"),
    (lambda: tiny_model(DDIM(NOISE, 50)), "num_steps of the sampler must be at most 8 .* got 50"),
    (lambda: tiny_model(ProbabilityFlow(NOISE)), "must take fixed steps .* got ProbabilityFlow"),
    (lambda: tiny_model(tokenizer=Letters()), "must be a WordTokenizer .* got Letters"),
    (lambda: tiny_model().double(), "must be in float32 on the CPU .* got torch.float64"),
    (lambda: torch.nn.Linear(1, 1), "model must be a TextToImage"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_cannot_be_exported_is_refused(make, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        export_text_to_image(make(), tmp_path / "pair")
    assert not list(tmp_path.iterdir())


DRAWS = [
    (DDIM(NOISE, 8), 0),
    (Heun(NOISE, 3), 0),
    (DDIM(NOISE, 4, eta=0.5), 4),
    (Ancestral(NOISE, 1), 1),
]


@pytest.mark.parametrize(("sampler", "draws"), DRAWS)
def test_noise_of_the_sampler_is_an_input(sampler: ReverseSampler, draws: int) -> None:
    """The network of the file draws what the model draws, for any number of fresh draws."""
    model = tiny_model(sampler, autoencoder=True).eval()
    check_exportable(model)
    noise = noise_of(model, 2)
    assert noise.shape == (2, 1 + draws, 4, 4, 4)
    found = Drawing(model)(noise, **model.conditioner.encode(["red", "blue"]))
    torch.testing.assert_close(found, model.generate(["red", "blue"], generator=seeded()))
