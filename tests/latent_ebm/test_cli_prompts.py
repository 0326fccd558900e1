"""The command line draws prompts, from a checkpoint and from the folder that it is exported to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from latent_ebm import load
from latent_ebm.applications import TextToImage
from latent_ebm.cli import main
from latent_ebm.data import Emoji
from tests.latent_ebm.tiny import WORDS, fit, part, text_to_image, write_words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_words()
        assert fit(text_to_image(WORDS), folder) == 0
        Path("words.json").unlink()  # a checkpoint holds the words
        assert main(["export", "run/last.ckpt", "--out", "model"]) == 0
    return folder


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


PROMPTS = ["--prompt", "red circle", "--prompt", "blue star", "--seed", "3"]


@pytest.mark.parametrize("source", ["run/last.ckpt", "model"])
def test_every_prompt_has_a_row(source: str) -> None:
    assert main(["sample", source, *PROMPTS, "--num", "3", "--out", "x.npz"]) == 0
    assert main(["sample", source, *PROMPTS, "--num", "3", "--out", "x.png"]) == 0
    model = load("model")
    assert isinstance(model, TextToImage)
    expected = model.generate(
        ["red circle", "blue star"], 3, generator=torch.Generator().manual_seed(3)
    )
    assert np.array_equal(np.load("x.npz")["x"], expected.numpy())
    height, width, _ = imread("x.png").shape
    assert height * 3 == pytest.approx(width * 2, rel=0.1)


def test_steps_guidance_and_negative_are_chosen() -> None:
    more = ["--steps", "3", "--guidance", "2", "--negative", "green star"]
    assert main(["sample", "model", *PROMPTS, *more, "--num", "1", "--out", "more.npz"]) == 0
    expected = load("model").generate(
        ["red circle", "blue star"],
        1,
        2.0,
        3,
        "green star",
        generator=torch.Generator().manual_seed(3),
    )
    assert np.array_equal(np.load("more.npz")["x"], expected.numpy())


REFUSED = [
    (["model", "--prompt", "red " * 10_000], "must have at most 3 words, got 10,000"),
    (["model", "--prompt", "red", "--prompt", "bl\x00ue"], "prompts[1] must hold no control"),
    (["model", "--prompt", "?!"], "must hold a word or be empty, got '?!'"),
    (["model", *PROMPTS, "--negative", "green"], "guidance must not be 1"),
    (["run/last.ckpt", "--negative", "green"], "--negative must come with --prompt"),
    (["nothing.ckpt", "--prompt", "red"], "nothing.ckpt"),
    (["model"], "--prompt must say what to draw, as model holds a TextToImage"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", *arguments, "--out", "none.png"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not list(Path().glob("none*"))


def test_data_with_other_tokens_than_the_conditioner_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words would become other words, without a sign. Equal tokenizers are as good as one."""
    data = Emoji(source="shapes", side=8)
    data.setup()
    words = list(data.tokenizer.words)
    longest = data.tokenizer.max_words
    same, other = (
        part("latent_ebm.text.WordTokenizer", words=order, max_words=longest)
        for order in (words, words[::-1])
    )
    config = text_to_image(same)
    config["trainer"]["callbacks"] = []
    assert fit(config, tmp_path, "--trainer.enable_checkpointing=false") == 0
    config["data"]["init_args"]["tokenizer"] = other
    assert fit(config, tmp_path) == 1
    expected = "tokenizer of the data must be that of the text encoder, but they split captions"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--prompt", "red"], []])
def test_a_folder_that_is_read_is_not_written_to(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also not over a link to one of its files."""
    before = Path("model/config.json").read_bytes()
    link = tmp_path / "link.npz"
    link.symlink_to(Path("model/config.json").absolute())
    assert main(["sample", "model", *arguments, "--out", str(link)]) == 1
    assert "must not be written to, for it is read" in capsys.readouterr().err
    assert Path("model/config.json").read_bytes() == before
