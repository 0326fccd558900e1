"""Replacement of a subject: what stays, what changes, and what cannot be replaced."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latent_ebm.applications import Subject, TextToImage
from latent_ebm.applications.personalization import model_digest
from latent_ebm.applications.replacement import places, replace
from latent_ebm.cli import main
from latent_ebm.denoisers import Preconditioned
from latent_ebm.guidance import replace_subject
from latent_ebm.networks import MobileUNet
from latent_ebm.text import TextConditioner, TextTransformer, WordTokenizer
from samplers import DDIM, Ancestral, VPCosine
from tests.latent_ebm.pipelines import write_pipeline

SCHEDULE = VPCosine(-5.0, 8.0)
WORDS = WordTokenizer(["a", "cat", "dog", "on", "grass"], max_words=7)
SIDE = 8


def model(**changes: Any) -> TextToImage:
    torch.manual_seed(0)
    texts = TextConditioner(TextTransformer(WORDS, dim=8, show_padding=True))
    net = MobileUNet((3, SIDE, SIDE), 8, (8,), (1,), (1,), (True,), (True,))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    parts: dict[str, Any] = {
        "conditioner": texts,
        "denoiser": Preconditioned(net, SCHEDULE),
        "sampler": DDIM(SCHEDULE, 8),
        "shape": (3, SIDE, SIDE),
        "guidance": 1.5,
    }
    return TextToImage(**{**parts, **changes}).eval().requires_grad_(False)


def picture() -> torch.Tensor:
    return 0.5 * torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def subject_of(drawing: TextToImage, rows: torch.Tensor, steps: int = 0) -> Subject:
    digest = model_digest(drawing.conditioner, drawing.denoiser)
    times = drawing.sampler.times(rows)[:-1] if steps else None
    return Subject(rows.expand(steps, *rows.shape) if steps else rows, "dog", digest, times)


def test_the_same_subject_is_the_same_picture() -> None:
    """Rows that are those of the caption change nothing: what comes back is the inversion's."""
    drawing = model()
    own = drawing.conditioner.encode(["a cat on grass"])["text"][0, -2:]
    x = replace(drawing, picture(), "a cat on grass", "a cat on grass", subject_of(drawing, own))
    assert (x - picture()).abs().mean() < 0.15  # the error of an inversion in 8 steps
    scene = drawing.conditioner.encode(["a cat on grass"])
    again = replace_subject(
        drawing.denoiser,
        drawing.sampler,
        picture()[None],
        scene,
        scene,
        drawing.conditioner.unknown(1),
        1.5,
        [-2, -1],
    )
    torch.testing.assert_close(x, again[0].clamp(-1, 1))
    other = subject_of(drawing, -own)
    y = replace(drawing, picture(), "a cat on grass", "a cat on grass", other)
    assert (y - x).abs().max() > 1e-3


def test_rows_of_steps_that_are_equal_are_shared_rows() -> None:
    drawing = model(sampler=DDIM(SCHEDULE, 4))
    drawn = [
        replace(drawing, picture(), "a cat", "a dog", subject_of(drawing, torch.ones(2, 8), steps))
        for steps in (0, 4)
    ]
    torch.testing.assert_close(*drawn)


def test_only_tokens_that_differ_have_maps_of_their_own() -> None:
    texts = model().conditioner
    tokens = texts.tokens(["a cat on grass", "a dog on grass"])["tokens"]
    assert places(texts, tokens, 0) == [2]
    assert places(texts, tokens, 2) == [2, 6, 7]


def test_fewer_kept_maps_give_another_picture() -> None:
    drawing = model(sampler=DDIM(SCHEDULE, 4))
    bold = subject_of(drawing, 3 * torch.ones(2, 8))
    pictures = [replace(drawing, picture(), "a cat", "a dog", bold, kept=k) for k in (0.0, 1.0)]
    assert (pictures[0] - pictures[1]).abs().max() > 1e-3


WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"image": torch.zeros(3, 4, 4)}, r"image must have shape \(3, 8, 8\), got \(3, 4, 4\)"),
    ({}, {"image": torch.full((3, 8, 8), 2.0)}, r"image must lie in \[-1, 1\], got up to 2"),
    ({}, {"prompt": "a dog on grass"}, r"as many tokens as caption, .* got 5 and 3"),
    ({}, {"prompt": "a cat"}, "prompt must name another subject than caption"),
    ({}, {"guidance": 1}, "guidance must not be 1, for then no null can be trained .*, got 1"),
    ({"sampler": Ancestral(SCHEDULE, 3)}, {}, "needs a sampler DDIM with eta 0"),
    ({}, {"kept": 2.0}, r"kept must be in \[0, 1\]"),
    ({}, {"subject": "rex"}, "subject must be a Subject, got 'rex'"),
    ({}, {"subject": Subject(torch.ones(2, 8), "dog", "?")}, "tuned on another model"),
]


@pytest.mark.parametrize(("changes", "arguments", "words"), WRONG)
def test_refusals(changes: dict[str, Any], arguments: dict[str, Any], words: str) -> None:
    usual = {"image": picture(), "caption": "a cat", "prompt": "a dog"}
    with pytest.raises(ValueError, match=words):
        replace(model(**changes), **{**usual, **arguments})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("scene.png")
    return tmp_path


REPLACE = ["--image", "scene.png", "--caption", "a cat", "--prompt", "a dog", "--steps", "3"]


def test_the_command_replaces(folder: Path) -> None:
    drawing = model()
    drawing.save("model")
    subject = subject_of(drawing, torch.ones(2, 8))
    subject.save("rex.safetensors")
    more = [*REPLACE, "--subject", "rex.safetensors", "--guidance", "2"]
    assert main(["replace", "model", *more, "--out", "x.npz"]) == 0
    assert main(["replace", "model", *more, "--out", "x.png"]) == 0
    with Image.open("scene.png") as scene, Image.open("x.png") as drawn:
        assert scene.size == (16, 16)
        assert drawn.convert("RGB").size[0] >= 8
        small = np.array(scene.resize((8, 8), Image.Resampling.BICUBIC))
    x = torch.from_numpy(small).permute(2, 0, 1) / 127.5 - 1
    expected = replace(drawing, x, "a cat", "a dog", subject, 2.0, 3)
    torch.testing.assert_close(torch.from_numpy(np.load("x.npz")["x"])[0], expected)


def test_a_pipeline_of_diffusers_replaces(folder: Path) -> None:
    write_pipeline(folder / "pipeline")
    words = ["--caption", "red circle", "--prompt", "blue circle", "--steps", "2"]
    assert main(["replace", "pipeline", "--image", "scene.png", *words, "--out", "x.npz"]) == 0
    assert np.load("x.npz")["x"].shape == (1, 3, 8, 8)


def test_the_command_refuses(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawing = model()
    drawing.save("model")
    subject_of(drawing, torch.ones(2, 8)).save("rex.safetensors")
    Path("link.npz").symlink_to("rex.safetensors")
    Path("text.png").write_text("text")
    for more, words in (
        (["--prompt", "a dog on grass"], "prompt must have as many tokens as caption"),
        (["--image", "none.png"], "none.png"),
        (
            ["--image", "text.png"],
            "text.png must hold a plain image: cannot identify image file 't",
        ),
        (["--out", "scene.png"], "must not be written to, for it is read"),
        (["--out", "x.txt"], "--out must end with .png or .npz"),
        (["--subject", "scene.png"], "must hold a subject"),
        (["--subject", "rex.safetensors", "--out", "link.npz"], "must not be written to"),
    ):
        before = Path("scene.png").read_bytes()
        assert main(["replace", "model", *REPLACE, "--out", "x.png", *more]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
        assert not list(Path().glob("x.*"))
        assert Path("scene.png").read_bytes() == before
