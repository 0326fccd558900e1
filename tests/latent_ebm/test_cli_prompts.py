"""The command line draws prompts, from a checkpoint and from the folder that it is exported to."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from matplotlib.image import imread

from latent_ebm import load
from latent_ebm.applications import TextToImage
from latent_ebm.cli import main
from latent_ebm.data import Emoji

NOISE = {"class_path": "samplers.VPCosine", "init_args": {"log_snr_min": -7.0}}


def part(path: str, **arguments: object) -> dict[str, object]:
    return {"class_path": path, "init_args": arguments}


def recipe() -> dict[str, object]:
    data = Emoji(source="shapes", side=8)
    data.setup()
    words = part(
        "latent_ebm.text.WordTokenizer",
        words=list(data.tokenizer.words),
        max_words=data.tokenizer.max_words,
    )
    network = part(
        "latent_ebm.networks.MobileUNet",
        shape=[3, 8, 8],
        text_dim=8,
        channels=[8],
        depth=[1],
        transformers=[1],
        self_attention=[False],
        cross_attention=[True],
        patch=2,
        text_map=True,
    )
    encoder = part("latent_ebm.text.TextTransformer", tokenizer=words, dim=8)
    model = part(
        "latent_ebm.learning.Denoising",
        denoiser=part("latent_ebm.denoisers.Preconditioned", network=network, schedule=NOISE),
        reverse=part("samplers.DDIM", schedule=NOISE, num_steps=2),
        shape=[3, 8, 8],
        optimizer=part("torch.optim.Adam", lr=0.01),
        conditioner=part("latent_ebm.text.TextConditioner", encoder=encoder),
    )
    shapes = part("latent_ebm.data.Emoji", source="shapes", side=8, batch_size=32, tokenizer=words)
    callback = part("lightning.pytorch.callbacks.ModelCheckpoint", dirpath=".", filename="last")
    trainer = {"max_epochs": 1, "logger": False, "callbacks": [callback]}
    return {"seed_everything": 0, "trainer": trainer, "model": model, "data": shapes}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("run.yaml").write_text(yaml.safe_dump(recipe()))
        quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
        assert main(["fit", "--config", "run.yaml", *quiet]) == 0
        assert main(["export", "last.ckpt", "--out", "model"]) == 0
    return folder


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


PROMPTS = ["--prompt", "red circle", "--prompt", "blue star", "--seed", "3"]


@pytest.mark.parametrize("source", ["last.ckpt", "model"])
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
    (["model", "--prompt", "red " * 99], "must have at most"),
    (["model", *PROMPTS, "--negative", "green"], "guidance must not be 1"),
    (["last.ckpt", "--negative", "green"], "--negative must come with --prompt"),
    (["nothing.ckpt", "--prompt", "red"], "nothing.ckpt"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", *arguments, "--out", "none.png"]) == 1
    assert words in capsys.readouterr().err
    assert not Path("none.png").exists()
