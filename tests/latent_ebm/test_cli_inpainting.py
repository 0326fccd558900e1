"""A small training of an inpainter as the recipe says: resumed, exported, and used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from latent_ebm.applications import Inpainter
from latent_ebm.cli import main
from latent_ebm.data import Subjects
from tests.latent_ebm.tiny import fit

RECIPE = Path(__file__).parents[2] / "experiments" / "subjects" / "inpainting.yaml"
ASK = ["--image", "x.png", "--mask", "mask.png", "--reference", "reference.png"]
PROMPT = ["--prompt", "a shape", "--num", "2", "--guidance", "2", "--steps", "2"]


def small(epochs: int, dirpath: str) -> dict[str, Any]:
    """The recipe with pictures of 16 x 16 pixels, a small network, and two batches an epoch."""
    config: dict[str, Any] = yaml.safe_load(RECIPE.read_text())
    config["trainer"] |= {"max_epochs": epochs, "logger": False, "accelerator": "cpu"}
    config["trainer"]["callbacks"] = config["trainer"]["callbacks"][1:]
    config["trainer"]["callbacks"][0]["init_args"]["dirpath"] = dirpath
    rule = config["model"]["init_args"]
    unet = rule["denoiser"]["init_args"]["network"]["init_args"]["unet"]["init_args"]
    rule["shape"], unet["shape"] = [3, 16, 16], [7, 16, 16]
    unet |= {"channels": [8, 16], "depth": [1, 1], "transformers": [0, 1], "text_dim": 8}
    unet |= {"self_attention": [False, False], "cross_attention": [False, True]}
    rule["conditioner"]["init_args"]["encoder"]["init_args"]["dim"] = 8
    config["data"]["init_args"] |= {"num": 16, "batch_size": 8, "side": 16, "size": 10}
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of four epochs in ``whole``, one that was resumed after two in ``parts``, and a
    held-out subject as files.
    """
    folder = tmp_path_factory.mktemp("inpainting")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert fit(small(4, "whole"), folder) == 0
        assert fit(small(2, "parts"), folder) == 0
        assert fit(small(4, "parts"), folder, "--ckpt_path=parts/last.ckpt") == 0
        data = Subjects(**{**small(1, "")["data"]["init_args"], "tokenizer": None})
        data.setup()
        row = data.test[0]
        pictures = {"x": row.x, "reference": row.condition["reference"]}
        for name, x in {**pictures, "mask": 2 * row.condition["mask"] - 1}.items():
            pixels = ((x + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels.squeeze()).save(f"{name}.png")
    return folder


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_a_resumed_training_ends_in_the_same_weights() -> None:
    whole, parts = (
        torch.load(f"{name}/last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    assert any(name.startswith("denoiser.network.unet.up") for name in whole)
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_checkpoint_and_exported_folder_fill_alike() -> None:
    assert main(["export", "whole/last.ckpt", "--out", "model"]) == 0
    assert isinstance(Inpainter.load("model"), Inpainter)
    for source, out in {"whole/last.ckpt": "a.png", "model": "b.png"}.items():
        assert main(["inpaint", source, *ASK, *PROMPT, "--out", out]) == 0
    first, second, picture, mask = (
        np.asarray(Image.open(f"{name}.png")) for name in ("a", "b", "x", "mask")
    )
    assert first.shape == (16, 32, 3)
    assert np.array_equal(first, second)
    assert set(np.unique(mask)) == {0, 255}
    for part in (first[:, :16], first[:, 16:]):
        assert np.array_equal(part[mask == 0], picture[mask == 0])
        assert not np.array_equal(part[mask > 0], picture[mask > 0])


def test_a_checkpoint_of_an_inpainter_draws_no_prompts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "whole/last.ckpt", "--prompt", "a shape", "--out", "none.png"]) == 1
    assert "got SubjectInpainting" in capsys.readouterr().err
    assert not Path("none.png").exists()
