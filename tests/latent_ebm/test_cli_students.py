"""Students of a text-to-image model on the command line: trained for two steps from a checkpoint,
drawn from, and exported as models of few steps.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latent_ebm import load
from latent_ebm.applications import TextToImage
from latent_ebm.applications.trained import text_to_image
from latent_ebm.cli import main
from latent_ebm.cli.checkpoints import load_rule
from latent_ebm.cli.inlining import inline
from latent_ebm.distillation import UFOGen
from samplers import DDIM, Renoising
from tests.latent_ebm import tiny
from tests.latent_ebm.tiny import fit, part

TEACHER = "teacher/last.ckpt"
PROMPTS = ["--prompt", "red circle", "--prompt", "blue star", "--num", "2", "--seed", "3"]
DENOISER = part("latent_ebm.cli.checkpoints.load_denoiser", checkpoint=TEACHER)
ONE_STEP = part("latent_ebm.distillation.OneStep", denoiser=DENOISER, init_log_snr=-6.0)
SCORED = {"student": ONE_STEP, "fake": None, "latent_shape": [3, 8, 8], "guidance": 1.5}
SCORED |= {"log_snr": [-6.0, 6.0]}
CHAIN = part("samplers.Langevin", step_size=0.16, num_steps=4)
STUDENTS: dict[str, dict[str, Any]] = {
    "Progressive": {
        **{"student": None, "shape": [3, 8, 8], "guidance": [1.0, 4.0]},
        **{"teacher_steps": 4, "num_steps": 2, "stage_length": 2},
    },
    "UFOGen": {"critic": None, "shape": [3, 8, 8], "independent": True},
    "EMDistillation": {**SCORED, "sampler": CHAIN},
    "DistributionMatching": SCORED,
}
ALL = pytest.mark.parametrize("name", STUDENTS)
STEPS = {"Progressive": 2}  # one for all others


def student(name: str) -> dict[str, Any]:
    config = tiny.text_to_image(tiny.WORDS)
    config["trainer"] |= {"max_steps": 4 if name == "UFOGen" else 2}
    config["trainer"]["callbacks"][0]["init_args"] |= {"dirpath": name}
    conditioner = part("latent_ebm.cli.checkpoints.load_conditioner", checkpoint=TEACHER)
    shared = {"teacher": DENOISER, "conditioner": conditioner}
    adam = part("torch.optim.Adam", lr=0.01)
    rule = {**shared, "optimizer": adam, **STUDENTS[name]}
    return {**config, "model": part(f"latent_ebm.distillation.{name}", **rule)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher and all its students, as checkpoints and as folders."""
    folder = tmp_path_factory.mktemp("students")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny.write_words()
        config = tiny.text_to_image(tiny.WORDS)
        config["trainer"]["callbacks"][0]["init_args"] |= {"dirpath": "teacher"}
        assert fit(config, folder) == 0
        assert main(["export", TEACHER, "--out", "teacher/model"]) == 0
        for name in STUDENTS:
            assert fit(student(name), folder) == 0
            assert main(["export", f"{name}/last.ckpt", "--out", f"{name}/model"]) == 0
    return folder


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@ALL
def test_a_student_draws_prompts(name: str) -> None:
    """From its checkpoint, without the teacher's, and from its folder, which is of few steps."""
    Path(TEACHER).rename("away")
    try:
        assert main(["sample", f"{name}/last.ckpt", *PROMPTS, "--out", "a.npz"]) == 0
        assert main(["sample", f"{name}/model", *PROMPTS, "--out", "b.npz"]) == 0
    finally:
        Path("away").rename(TEACHER)
    a, b = (np.load(file)["x"] for file in ("a.npz", "b.npz"))
    assert a.shape == (4, 3, 8, 8)
    assert np.array_equal(a, b)
    model = load(f"{name}/model")
    assert isinstance(model, TextToImage)
    assert model.sampler.num_steps == STEPS.get(name, 1)
    assert isinstance(model.sampler, DDIM if name == "Progressive" else Renoising)
    assert main(["sample", f"{name}/model", *PROMPTS, "--steps", "4", "--out", "c.npz"]) == 0
    assert not np.array_equal(a, np.load("c.npz")["x"])


@ALL
def test_the_student_has_moved_and_nothing_else(name: str) -> None:
    """The text encoder is the teacher's, and stays as it is; so does the teacher."""
    rule, _ = load_rule(f"{name}/last.ckpt")
    teacher, _ = load_rule(TEACHER)
    model, base = text_to_image(rule), text_to_image(teacher)
    assert model is not None
    assert base is not None
    for before, after in zip(
        base.conditioner.parameters(), model.conditioner.parameters(), strict=True
    ):
        assert torch.equal(before, after)
    frozen, free = base.denoiser.state_dict(), model.denoiser.state_dict()
    prefix = "denoiser." if "denoiser.network.noise.layers.0.weight" in free else ""
    free = {key.removeprefix(prefix): value for key, value in free.items()}
    assert frozen.keys() <= free.keys(), "adapters of the base find their layers"
    assert any(not torch.equal(frozen[key], free[key]) for key in frozen)
    if not isinstance(rule, UFOGen):
        copy = dict(rule.named_children())["teacher"].state_dict()
        assert all(torch.equal(frozen[key], copy[key]) for key in frozen)


@pytest.mark.parametrize("name", ["UFOGen", "EMDistillation"])
def test_one_step_is_that_of_the_rule(name: str) -> None:
    rule, _ = load_rule(f"{name}/last.ckpt")
    model = text_to_image(rule)
    assert model is not None
    tokens = model.conditioner.tokens(["red circle", "blue star"])
    x = rule.generate(2, tokens, generator=torch.Generator().manual_seed(0))["x"]
    found = model.generate(["red circle", "blue star"], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, x.clamp(-1, 1), atol=1e-5, rtol=1e-4)


def test_one_student_of_progressive_has_every_weight() -> None:
    draw = ["sample", "Progressive/model", *PROMPTS, "--out", "x.npz"]
    found = []
    for weight in ("1", "2.5", "4"):
        assert main([*draw, "--guidance", weight]) == 0
        found.append(np.load("x.npz")["x"])
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[1], found[2])
    assert main(["sample", "Progressive/last.ckpt", *PROMPTS, "--out", "x.npz"]) == 0
    assert np.array_equal(np.load("x.npz")["x"], found[0]), "the least weight"


def test_weights_that_are_not_learnt_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    draw = ["sample", "Progressive/model", *PROMPTS, "--out", "none.npz"]
    assert main([*draw, "--guidance", "5"]) == 1
    assert "guidance must lie in [1.0, 4.0]" in capsys.readouterr().err
    assert main([*draw, "--guidance", "2", "--negative", "red"]) == 1
    assert "negative must be left out" in capsys.readouterr().err
    assert not Path("none.npz").exists()


REFUSED = [
    (
        ["export", "UFOGen/last.ckpt", "--out", "none.onnx"],
        "without prompts to be written as .onnx",
    ),
    (["sample", "UFOGen/last.ckpt", "--out", "none.npz"], "as by --prompt TEXT of latent-ebm"),
    (["sample", "UFOGen/last.ckpt", *PROMPTS, "--guidance", "nan", "--out", "none.npz"], "finite"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    assert words in capsys.readouterr().err
    assert not list(Path().glob("none.*"))


@pytest.mark.parametrize("source", [TEACHER, "teacher/model"])
def test_a_yaml_file_names_parts_of_a_text_to_image_model(source: str) -> None:
    """Checkpoint or folder: what replaces the loader is the configuration of the part alone."""
    for name, kind in (("denoiser", "Preconditioned"), ("conditioner", "TextConditioner")):
        loader = part(f"latent_ebm.cli.checkpoints.load_{name}", checkpoint=source)
        found = inline({name: loader})
        assert isinstance(found, dict)
        assert found[name]["class_path"].endswith(kind)


def test_a_conditioner_must_be_there() -> None:
    config = student("UFOGen")
    wrong = part("latent_ebm.cli.checkpoints.load_conditioner", checkpoint="UFOGen/last.ckpt")
    config["model"]["init_args"]["conditioner"] = wrong
    assert fit(config, Path()) != 0
