"""The command line of diffusion models and their students: training, sampling, export, and how it
refuses.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latent_ebm import load
from latent_ebm.cli import main
from latent_ebm.cli.checkpoints import load_denoiser, load_rule, read_checkpoint
from latent_ebm.conditions import Condition
from latent_ebm.distillation import UFOGen
from tests.latent_ebm.tiny import fit, make_config, part

SCHEDULE = part("samplers.VPCosine", log_snr_min=-7.0, log_snr_max=12.0)
OPTIMIZER = part("torch.optim.Adam", lr=0.001)
NAMED = part("latent_ebm.cli.checkpoints.load_denoiser", checkpoint="teacher/last.ckpt")


def run(folder: Path, name: str, rule: dict[str, Any]) -> None:
    """A tiny training whose checkpoint is ``name/last.ckpt``."""
    config = make_config("mle", epochs=1)
    config["model"] = rule
    config["trainer"]["callbacks"][0]["init_args"]["dirpath"] = name
    assert fit(config, folder) == 0


def teacher(num_classes: int | None) -> dict[str, Any]:
    network = part(
        "latent_ebm.networks.DenoiserMLP", shape=2, hidden=[16], num_classes=num_classes
    )
    denoiser = part("latent_ebm.denoisers.Preconditioned", network=network, schedule=SCHEDULE)
    reverse = part("samplers.DDIM", schedule=SCHEDULE, num_steps=5)
    rule = part(
        "latent_ebm.learning.Denoising",
        denoiser=denoiser,
        reverse=reverse,
        shape=[2],
        optimizer=OPTIMIZER,
    )
    if num_classes is not None:
        labels = part("latent_ebm.conditions.ClassLabels", num_classes=num_classes)
        rule["init_args"] |= {"conditioner": labels, "dropout": 0.5}
    return rule


def student() -> dict[str, Any]:
    g = part("latent_ebm.distillation.OneStep", denoiser=NAMED, init_log_snr=-5.0)
    arguments = {
        "teacher": NAMED,
        "student": g,
        "fake": None,
        "latent_shape": [2],
        "optimizer": OPTIMIZER,
        "conditioner": part("latent_ebm.conditions.ClassLabels", num_classes=3),
        "guidance": 1.5,
    }
    sampler = part("samplers.Langevin", step_size=0.16, num_steps=2)
    return part(
        "latent_ebm.distillation.EMDistillation", **arguments, sampler=sampler, log_snr=[-5.0, 5.0]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints ``teacher`` (of labelled data), ``plain`` (of unlabelled), ``student``,
    ``ufogen`` and ``run``.
    """
    folder = tmp_path_factory.mktemp("diffusion")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(folder, "teacher", teacher(3))
        run(folder, "plain", teacher(None))
        run(folder, "student", student())
        adversary = part(
            "latent_ebm.distillation.UFOGen",
            teacher=NAMED,
            critic=None,
            shape=[2],
            optimizer=OPTIMIZER,
        )
        run(folder, "ufogen", adversary)
        assert fit(make_config("mle", epochs=1), folder) == 0
    return folder


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def sample(*args: str) -> dict[str, np.ndarray]:
    assert main(["sample", *args, "--num", "5", "--out", "x.npz"]) == 0
    with np.load("x.npz") as arrays:
        return dict(arrays)


def test_steps_and_guidance_of_a_teacher_are_chosen() -> None:
    own, few = sample("teacher/last.ckpt"), sample("teacher/last.ckpt", "--steps", "2")
    assert own["x"].shape == few["x"].shape == (5, 2)
    assert not np.array_equal(own["x"], few["x"])
    assert np.array_equal(own["x"], sample("teacher/last.ckpt", "--steps", "5")["x"])
    guided = sample("teacher/last.ckpt", "--guidance", "2")
    assert guided["label"].tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("name", ["student", "ufogen"])
def test_students_are_sampled_without_options(name: str) -> None:
    assert sample(f"{name}/last.ckpt")["x"].shape == (5, 2)


def test_a_student_that_is_told_classes_draws_them_in_turn() -> None:
    assert sample("student/last.ckpt")["label"].tolist() == [0, 1, 2, 0, 1]


def test_a_student_holds_the_teacher_that_it_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = load_denoiser("teacher/last.ckpt").state_dict()
    monkeypatch.chdir(tmp_path)  # where there is no teacher
    rule, _ = load_rule(folder / "student" / "last.ckpt")
    assert all((value == named[name]).all() for name, value in rule.teacher.state_dict().items())
    assert "load_denoiser" not in read_checkpoint(folder / "student" / "last.ckpt")["config"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["sample", "run/last.ckpt", "--steps", "3", "--out", "a.npz"],
            ["--steps must be left out", "ShortRunMLE"],
        ),
        (
            ["sample", "student/last.ckpt", "--guidance", "2", "--out", "a.npz"],
            ["--guidance", "EMDistillation"],
        ),
        (
            ["sample", "plain/last.ckpt", "--guidance", "2", "--out", "a.npz"],
            ["guidance must come with a condition"],
        ),
        (["export", "teacher/last.ckpt", "--out", "a.onnx"], ["one-step student", "Denoising"]),
        (
            ["export", "teacher/last.ckpt", "--diffusers", "--out", "folder"],
            ["model of diffusers", "DenoiserMLP"],
        ),
        (
            ["export", "run/last.ckpt", "--diffusers", "--out", "folder"],
            ["must hold a denoiser", "ShortRunMLE"],
        ),
        (["export", "run/last.ckpt", "--out", "teacher"], ["--out must be a new folder"]),
        (["export", "student/last.ckpt", "--out", "a.bin"], ["--out must end with .onnx"]),
    ],
    ids=lambda value: "-".join(value[:2] + value[-1:]).replace("/", "_") if len(value) > 2 else "",
)
def test_refused(args: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words), line
    assert not Path(args[-1]).exists() or args[-1] == "teacher"


def test_a_teacher_must_be_a_denoiser() -> None:
    with pytest.raises(ValueError, match=r"run/last\.ckpt must hold a denoiser.*ShortRunMLE"):
        load_denoiser("run/last.ckpt")


@pytest.mark.parametrize(
    ("name", "part"),
    [("teacher", "denoiser"), ("student", "student"), ("ufogen", "generator"), ("run", "model")],
)
def test_what_was_trained_is_exported_as_a_folder(name: str, part: str, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    assert main(["export", f"{name}/last.ckpt", "--out", str(folder)]) == 0
    trained, loaded = getattr(load_rule(f"{name}/last.ckpt")[0], part), load(folder)
    assert type(loaded) is type(trained)
    for key, value in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_a_folder_serves_as_a_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the checkpoint that it was exported from; the student's own needs neither."""
    assert (
        main(["export", "teacher/last.ckpt", "--out", str(tmp_path / "teacher" / "last.ckpt")])
        == 1
    )
    assert main(["export", "teacher/last.ckpt", "--out", str(tmp_path / "exported")]) == 0
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teacher").mkdir()
    (tmp_path / "exported").rename(tmp_path / "teacher" / "last.ckpt")
    assert load_denoiser("teacher/last.ckpt").training
    run(tmp_path, "student", student())
    shutil.rmtree("teacher")
    assert sample("student/last.ckpt")["x"].shape == (5, 2)


def test_a_saved_model_is_sampled(tmp_path: Path) -> None:
    folder = str(tmp_path / "exported")
    assert main(["export", "run/last.ckpt", "--out", folder]) == 0
    wanted = load(folder).sample(5, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(sample(folder)["x"], wanted.numpy(force=True))
    assert main(["sample", folder, "--num", "5", "--steps", "2", "--out", "x.npz"]) == 1
    assert main(["export", "teacher/last.ckpt", "--out", f"{folder}2"]) == 0
    assert main(["sample", f"{folder}2", "--num", "5", "--out", "x.npz"]) == 1


def test_averaged_weights_are_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = make_config("mle", epochs=1)
    average = part("lightning.pytorch.callbacks.EMAWeightAveraging", decay=0.5)
    config["trainer"]["callbacks"].append(average)
    assert fit(config, tmp_path) == 0
    assert main(["export", "run/last.ckpt", "--out", "model"]) == 0
    checkpoint, name = torch.load("run/last.ckpt"), "prior.network.layers.0.weight"
    mine = load("model").state_dict()[name]
    assert torch.equal(mine, checkpoint["state_dict"][f"model.{name}"])
    assert not torch.equal(mine, checkpoint["current_model_state"][f"model.{name}"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the exporter itself
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_student_is_exported() -> None:
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    assert main(["export", "ufogen/last.ckpt", "--out", "student.onnx"]) == 0
    z = torch.randn(7, 2)
    (x,) = runtime.InferenceSession("student.onnx").run(["x"], {"z": z.numpy()})
    rule, _ = load_rule("ufogen/last.ckpt")
    assert isinstance(rule, UFOGen)
    with torch.no_grad():
        k = torch.full((7,), rule.num_steps)
        torch.testing.assert_close(
            torch.from_numpy(x),
            rule.denoise(rule.coefficients(k)[1][0].float() * z, k, Condition()),
        )
