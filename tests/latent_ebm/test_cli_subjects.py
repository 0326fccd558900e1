"""The command line teaches a model a subject from a folder of images, and draws it."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latent_ebm.applications import Subject, TextToImage
from latent_ebm.cli import main
from latent_ebm.denoisers import Preconditioned
from latent_ebm.files.masks import read_masks
from latent_ebm.networks import MobileUNet
from latent_ebm.text import TextConditioner, TextTransformer, WordTokenizer
from samplers import DDIM, VPCosine
from tests.latent_ebm.pipelines import write_pipeline

SIDE = 8
OPTIONS = ["--class", "circle", "--rows", "3", "--steps", "3", "--refine", "1"]
TUNE = ["--images", "images", "--masks", "masks", *OPTIONS, "--out", "subject.safetensors"]


def write_model(folder: Path) -> None:
    torch.manual_seed(0)
    words = WordTokenizer(["red", "blue", "circle"], max_words=6)
    texts = TextConditioner(TextTransformer(words, dim=8, show_padding=True))
    net = MobileUNet((3, SIDE, SIDE), 8, (8,), (1,), (1,), (True,), (True,))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    schedule = VPCosine(-5.0, 8.0)
    TextToImage(
        texts, Preconditioned(net, schedule), DDIM(schedule, 2), (3, SIDE, SIDE), guidance=2.0
    ).save(folder)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, images of twice its size, their masks, and the same images with transparency."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    mask = np.zeros((16, 16), np.uint8)
    mask[:, :8] = 255
    for name in ("images", "masks", "cut"):
        Path(name).mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(f"images/{i}.png")
        Image.fromarray(mask).save(f"masks/{i}.png")
        Image.fromarray(np.dstack([image, mask])).save(f"cut/{i}.png")
    return tmp_path


def draw(*options: str) -> np.ndarray:
    more = ["--prompt", "red circle", "--num", "2", "--out", "x.npz", *options]
    assert main(["sample", "model", *more]) == 0
    return np.load("x.npz")["x"]


def test_a_subject_is_learned_and_drawn(capfd: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in Path("model").iterdir()}
    assert main(["tune", "model", *TUNE]) == 0
    out, err = capfd.readouterr()
    size = Path("subject.safetensors").stat().st_size
    assert f"'circle' of 2 images: subject.safetensors, {size:,} bytes" in out
    assert "2 of 2 images are resized to 8 x 8 pixels" in out
    assert re.search(r"tuning 'circle': 100%.*5/5", err)
    assert size < 2000
    assert before == {path: path.read_bytes() for path in Path("model").iterdir()}
    subject = Subject.load("subject.safetensors")
    assert (subject.word, subject.rows.shape) == ("circle", (2, 3, 8))
    x = draw("--subject", "subject.safetensors")
    expected = TextToImage.load("model").generate(
        ["red circle"], 2, subject=subject, generator=torch.Generator().manual_seed(0)
    )
    assert np.array_equal(x, expected.numpy())
    assert np.abs(x - draw()).max() > 1e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_any_precision_learn_and_draw(dtype: torch.dtype) -> None:
    TextToImage.load("model").to(dtype).save("model")
    assert main(["tune", "model", *TUNE]) == 0
    wanted = np.float64 if dtype == torch.float64 else np.float32
    assert draw("--subject", "subject.safetensors").dtype == wanted
    asked = ["--image", "images/0.png", "--caption", "red circle", "--prompt", "blue circle"]
    assert main(["replace", "model", *asked, "--kept", "1", "--out", "y.npz"]) == 0
    assert np.load("y.npz")["x"].dtype == wanted


def test_the_seed_decides() -> None:
    rows = []
    for seed in ("0", "0", "1"):
        assert main(["tune", "model", *TUNE, "--seed", seed]) == 0
        rows.append(Subject.load("subject.safetensors").rows)
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


def test_transparency_is_a_mask(capsys: pytest.CaptureFixture[str]) -> None:
    """The same as that of a folder; without both, the background is learned too."""
    rows = []
    for images in (["--images", "cut", "--masks", "masks"], ["--images", "cut"]):
        assert main(["tune", "model", *TUNE[4:], *images]) == 0
        rows.append(Subject.load("subject.safetensors").rows)
    assert torch.equal(*rows)
    assert "there are no masks" not in capsys.readouterr().out
    assert main(["tune", "model", *TUNE[4:], "--images", "images"]) == 0
    assert "there are no masks: the background is learned too" in capsys.readouterr().out


def test_masks_in_subfolders_belong_to_the_images_there() -> None:
    rows = []
    for turn in (False, True):
        for kind in ("images", "masks"):
            for i in range(2):
                place = Path(f"{kind}-{turn}") / (f"{1 - i if turn else i}")
                place.mkdir(parents=True)
                with Image.open(f"{kind}/{i}.png") as image:
                    (image.rotate(180 * i) if kind == "masks" else image).save(place / "a.png")
        masks = read_masks(Path(f"masks-{turn}"), Path(f"images-{turn}"), SIDE)
        rows.append(masks[::-1] if turn else masks)
    assert np.array_equal(*rows)
    assert not np.array_equal(rows[0][0], rows[0][1])


def test_a_pipeline_of_diffusers_learns_and_draws(folder: Path) -> None:
    write_pipeline(folder / "pipeline")
    assert main(["tune", "pipeline", *TUNE, "--refine", "0"]) == 0
    assert Subject.load("subject.safetensors").rows.shape == (3, 16)
    drawn = []
    for more in ([], ["--subject", "subject.safetensors"]):
        options = ["--prompt", "red circle", "--steps", "2", "--out", "x.npz", *more]
        assert main(["sample", "pipeline", *options]) == 0
        drawn.append(np.load("x.npz")["x"])
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-4


def spoil(name: str) -> None:
    """Change the files in the way that ``name`` says."""
    if name == "no mask":
        Path("masks/1.png").unlink()
    elif name == "small mask":
        Image.new("L", (8, 8), 255).save("masks/1.png")
    elif name in ("empty mask", "full mask"):
        Image.new("L", (16, 16), 255 * (name == "full mask")).save("masks/1.png")
    elif name == "two names":
        Image.new("L", (16, 16), 255).save("masks/1.bmp")
    elif name == "inside":
        Path("masks").rename("images/masks")
    elif name == "transparent mask":
        Image.open("cut/1.png").save("masks/1.png")
    elif name == "one opaque":
        Image.new("RGB", (16, 16)).save("cut/1.png")
    elif name == "damaged":
        Path("images/1.png").write_bytes(b"nothing")
    elif name == "no images":
        for path in Path("images").iterdir():
            path.unlink()


REFUSED = [
    ("no mask", [], "masks must hold a mask for every image, got none for images/1.png"),
    ("small mask", [], "masks/1.png must have the size of its image (height x width), 16 x 16"),
    ("empty mask", [], "masks/1.png must show where the subject is by some pixels, got none"),
    ("full mask", [], "masks/1.png must show where the subject is by some pixels, got all"),
    ("two names", [], "names of their own, got masks/1.bmp and masks/1.png"),
    ("inside", ["--masks", "images/masks"], "masks must lie in a folder outside of images"),
    ("transparent mask", [], "masks/1.png must be a mask in black and white without transparency"),
    ("damaged", [], "images/1.png must hold a plain image"),
    ("no images", [], "images must hold images"),
    ("", ["--images", "none"], "there must be a folder of images 'none'"),
    ("", ["--masks", "none"], "there must be a folder of images 'none'"),
    ("", ["--class", "zebra"], "prompts must consist of known words, got 'zebra'"),
    ("", ["--template", "a picture"], "templates must have {} in place of the word"),
    ("", ["--template", "red blue red blue {}"], "must leave 3 of its 7 tokens to the subject"),
    ("", ["--rows", "6"], "num_rows must be at most 5"),
    ("", ["--out", "subject.pt"], "--out must end with .safetensors"),
]


@pytest.mark.filterwarnings("ignore:words that are not known")
@pytest.mark.parametrize(("name", "options", "words"), REFUSED)
def test_what_cannot_be_tuned_is_refused(
    name: str, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By one line, and nothing is written."""
    spoil(name)
    assert main(["tune", "model", *TUNE, *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not list(Path().glob("*subject*"))


def test_transparency_of_some_images_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    spoil("one opaque")
    assert main(["tune", "model", *TUNE[4:], "--images", "cut"]) == 1
    assert "got cut/1.png without transparency among others" in capsys.readouterr().err


def test_a_subject_of_another_model_is_not_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    rows = torch.zeros(2, 8)
    Subject(rows, "circle", "0" * 16).save("other.safetensors")
    Path("link.npz").symlink_to("other.safetensors")
    sample = ["sample", "model", "--out", "x.png"]
    for more, words in (
        (["--prompt", "red", "--subject", "other.safetensors"], "tuned on another model, of dig"),
        (["--prompt", "red", "--subject", "images/0.png"], "must hold a subject"),
        (["--prompt", "red", "--subject", "none"], "a subject that latent-ebm tune wrote"),
        (["--subject", "other.safetensors"], "--subject must come with --prompt"),
        (["--prompt", "red", "--subject", "other.safetensors", "--out", "link.npz"], "it is read"),
    ):
        assert main([*sample, *more]) == 1
        assert words in capsys.readouterr().err
        assert not Path("x.png").exists()
