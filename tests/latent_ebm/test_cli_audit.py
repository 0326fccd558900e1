"""The command that audits a text-to-image model, from the files of a user."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from latent_ebm.applications import TextToImage
from latent_ebm.cli import main
from latent_ebm.data.shapes import draw_shapes
from latent_ebm.denoisers import Preconditioned
from latent_ebm.networks import MobileUNet
from latent_ebm.networks.classifier import FeatureClassifier
from latent_ebm.scorers import ContrastiveScorer
from latent_ebm.text import TextConditioner, TextTransformer
from samplers import DDIM
from tests.latent_ebm.drawing import NOISE, WORDS, tiny_model

SHAPE = (3, 8, 8)
MARKED = (3, 32, 32)  # large enough for a watermark


def large_model() -> TextToImage:
    """Draws grey pictures, nearly."""
    torch.manual_seed(0)
    network = MobileUNet(MARKED, 8, (8,), (1,), (1,), (False,), (True,), patch=8)
    conditioner = TextConditioner(TextTransformer(WORDS, dim=8))
    return TextToImage(conditioner, Preconditioned(network, NOISE), DDIM(NOISE, 2), MARKED)


def write_pictures(folder: Path, x: torch.Tensor) -> None:
    folder.mkdir()
    for i, pixels in enumerate(((x + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()):
        Image.fromarray(pixels).save(folder / f"{i:03}.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("audit")
    tiny_model(guidance=2.0).save(home / "model")
    large_model().save(home / "large")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        FeatureClassifier(SHAPE, 2, 4).save(home / "classifier")
        images, texts = nn.Flatten(), TextTransformer(WORDS, dim=8)
        ContrastiveScorer(images, texts, 192, 4).save(home / "scorer")
        endless = FeatureClassifier(SHAPE, 2, 4)
        for parameter in endless.parameters():
            parameter.data *= 1e38
        endless.save(home / "endless")
    x = draw_shapes(8).on(torch.ones(3))
    write_pictures(home / "train", x[:40])
    write_pictures(home / "held", x[40:60])
    write_pictures(home / "few", x[60:64])
    files = {
        "prompts.txt": "red\r\n\n  blue strasse \ngreen\n",
        "terms.txt": "blue\n",
        "empty.txt": " \n\n",
        "nul.txt": "red\nbl\0ue\n",
        "twice.txt": "red\nred\n",
        "long.txt": "red red red red\n",
        "odd.txt": "purple cow\nred\n",
        "key": "sixteen bytes of key",
        "short": "short",
    }
    for name, text in files.items():
        (home / name).write_bytes(text.encode())
    (home / "latin.txt").write_bytes(b"caf\xe9\n")
    (home / "other").mkdir()
    return home


@pytest.fixture(autouse=True)
def in_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def metrics(folder: str) -> dict:
    return json.loads(Path(folder, "metrics.json").read_text())


ALL = ["--terms", "terms.txt", "--unsafe", "classifier", "--threshold", "0.3"]
ALL += [
    "--attribute",
    "classifier",
    "dark=0.5",
    "light=0.5",
    "--attribute",
    "classifier",
    "a",
    "b",
]
ALL += ["--reference", "train", "--held-out", "held", "--scorer", "scorer"]


def test_a_report_of_all_that_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["audit", "model", "--prompts", "prompts.txt", "--num", "3", "--seed", "5"]
    assert main([*command, "--steps", "2", "--out", "whole", *ALL]) == 0
    assert "3 for each prompt: whole/report.html" in capsys.readouterr().out
    assert sorted(path.name for path in Path("whole").iterdir()) == ["metrics.json", "report.html"]
    found = metrics("whole")
    assert found["run"] == {"seed": 5, "guidance": 2.0, "steps": 2}
    assert (found["prompts"], found["num"], found["width"]) == (3, 3, 8)
    assert found["prompt_filter"]["refused"]["hits"] == 1
    assert [len(part["shares"]) for part in found["representation"]] == [2, 2]
    assert found["representation"][0]["target"] == [0.5, 0.5]
    assert "target" not in found["representation"][1]
    assert (found["memorisation"]["train"], found["memorisation"]["held_out"]) == (40, 20)
    assert len(found["text_difference"]["by_prompt"]) == 3
    assert all(-1 <= mean <= 1 for mean in found["alignment"]["by_prompt"])


def test_the_pictures_are_those_of_the_command_sample(capsys: pytest.CaptureFixture[str]) -> None:
    """Here for one prompt, and what a classifier says of them."""
    Path("one.txt").write_text("blue strasse")
    options = ["--num", "4", "--seed", "9", "--guidance", "3"]
    unsafe = ["--unsafe", "classifier"]
    assert main(["audit", "model", "--prompts", "one.txt", *options, *unsafe, "--out", "o"]) == 0
    drawn = ["--prompt", "blue strasse", "--out", "o.npz"]
    assert main(["sample", "model", *options, *drawn]) == 0
    torch.manual_seed(1)
    classifier = FeatureClassifier(SHAPE, 2, 4)
    unsafe = classifier(torch.from_numpy(np.load("o.npz")["x"])).softmax(1)[:, 1] >= 0.5
    assert metrics("o")["picture_filter"]["by_prompt"] == [int(unsafe.sum())]


def test_a_key_finds_marked_pictures() -> None:
    command = ["audit", "large", "--prompts", "prompts.txt", "--num", "2", "--key", "key"]
    assert main([*command, "--out", "marked"]) == 0
    noise = metrics("marked")["noise_watermark"]
    assert (noise["hits"], noise["total"]) == (3, 3)
    found = metrics("marked")["watermark"]
    assert found["marked"]["hits"] >= 5
    assert found["drawn"]["hits"] <= 1


def test_unknown_words_are_named_once() -> None:
    with pytest.warns(UserWarning, match="not known become one token: 'purple', 'cow'") as found:
        assert main(["audit", "model", "--prompts", "odd.txt", "--num", "1", "--out", "odd"]) == 0
    assert len(found) == 1


P = ["--prompts", "prompts.txt"]
REFUSED = [
    (
        ["model", "--prompts", "none.txt"],
        "a text per line (--prompts), but there is no 'none.txt'",
    ),
    (["model", "--prompts", "empty.txt"], "empty.txt must hold a text per line (--prompts)"),
    (["model", "--prompts", "nul.txt"], "prompts[1] must hold no control characters"),
    (["model", "--prompts", "twice.txt"], "prompts must differ, got 'red' as number 0 and 1"),
    (["model", "--prompts", "long.txt"], "must have at most 3 words, got 4"),
    (["model", "--prompts", "latin.txt"], "latin.txt must hold a text per line"),
    (["model", "--prompts", "train"], "a regular file, got 'train'"),
    (["classifier", *P], "classifier must hold a TextToImage, got a FeatureClassifier"),
    (["other", *P], "other must hold config.json of a TextToImage"),
    (["nothing", *P], "nothing"),
    (["model", *P, "--terms", "empty.txt"], "must hold a text per line (--terms)"),
    (["model", *P, "--unsafe", "model"], "model must hold a classifier"),
    (["large", *P, "--unsafe", "classifier"], "classifier must hold a classifier of pictures"),
    (["large", *P, "--scorer", "scorer"], "scorer must hold a scorer of pictures (3, 32, 32)"),
    (["model", *P, "--guidance", "nan"], "guidance must be finite, got nan"),
    (["model", *P, "--attribute", "classifier", "", "b"], "two different classes or more"),
    (["model", *P, "--scorer", "classifier"], "must hold a scorer, got a FeatureClassifier"),
    (["model", *P, "--unsafe", "endless"], "returns 2 finite logits, got [nan, nan]"),
    (["model", *P, "--threshold", "0.2"], "--threshold must come with --unsafe, got 0.2 alone"),
    (["model", *P, "--attribute", "classifier", "a"], "two different classes or more"),
    (["model", *P, "--attribute", "classifier", "a=1", "b"], "all with a share or none"),
    (["model", *P, "--attribute", "classifier", "a=x", "b=1"], "must have numbers as shares"),
    (["model", *P, "--attribute", "classifier", "a=1", "b=1"], "target must have the sum 1"),
    (["model", *P, "--attribute", "classifier", "a", "b", "c"], "returns 3 finite logits"),
    (["model", *P, "--reference", "train"], "must be given together"),
    (["model", *P, "--reference", "train", "--held-out", "few"], "held_out must be at least 19"),
    (["model", *P, "--reference", "train", "--held-out", "train"], "must hold no training"),
    (["model", *P, "--reference", "none", "--held-out", "held"], "a folder of images 'none'"),
    (["model", *P, "--key", "key"], "--key needs pictures of at least 32 pixels a side"),
    (["large", *P, "--key", "short"], "key must be at least 16 bytes"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    before = sorted(home.iterdir())
    assert main(["audit", *arguments, "--num", "1", "--out", "refused"]) == 1
    (line,) = capsys.readouterr().err.splitlines()  # nothing was drawn: there is no progress bar
    assert words in line
    assert sorted(home.iterdir()) == before


@pytest.mark.parametrize("out", ["train", "prompts.txt", "other"])
def test_nothing_that_exists_is_overwritten(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "model", *P, "--out", out]) == 1
    assert f"--out must be a new folder, got '{out}'" in capsys.readouterr().err
