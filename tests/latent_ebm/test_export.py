"""Exported networks say what the original says, or why they cannot be exported."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from latent_ebm.denoisers import Preconditioned, load_teacher
from latent_ebm.denoisers.teachers import DiffusersNetwork
from latent_ebm.distillation import OneStep
from latent_ebm.export import export_diffusers, export_onnx, onnx
from latent_ebm.networks import UNet
from samplers.schedules import VPCosine
from samplers.vp_discrete import VPDiscrete


def student() -> OneStep:
    torch.manual_seed(0)
    schedule = VPCosine(log_snr_min=-7.0, log_snr_max=12.0)
    denoiser = Preconditioned(
        UNet((1, 8, 8), 8, patch=1, depth=1), schedule, prediction="edm", data_scale=0.5
    )
    for parameter in denoiser.parameters():
        nn.init.normal_(parameter, std=0.2)
    return OneStep(denoiser, -5.0)


def test_a_student_runs_without_this_library(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    g, z = student(), torch.randn(5, 1, 8, 8)
    export_onnx(g, (1, 8, 8), tmp_path / "student.onnx")
    session = runtime.InferenceSession(tmp_path / "student.onnx")
    (x,) = session.run(["x"], {"z": z.numpy()})
    torch.testing.assert_close(torch.from_numpy(x), g(z).detach(), rtol=1e-4, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["student.onnx"]


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        onnx,
        "find_spec",
        lambda name: None if name == "onnxscript" else importlib.util.find_spec("os"),
    )
    with pytest.raises(ImportError, match=r"onnxscript must be installed.*latent-ebm\[onnx\]"):
        export_onnx(student(), (1, 8, 8), tmp_path / "student.onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_must_fit_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    monkeypatch.setattr(onnx, "LARGEST", 1000)
    with pytest.raises(ValueError, match=r"network must have at most 1,000 bytes of .* got \d+,"):
        export_onnx(student(), (1, 8, 8), tmp_path / "student.onnx")
    assert not list(tmp_path.iterdir())


def test_a_model_of_diffusers_comes_back_as_it_was(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs the extra diffusers")
    torch.manual_seed(0)
    blocks = {
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
        "block_out_channels": (8,),
    }
    model = diffusers.UNet2DModel(8, 1, 1, **blocks, layers_per_block=1, norm_num_groups=4)
    schedule = VPDiscrete(100, 1e-3, 0.1, "scaled_linear")
    denoiser = Preconditioned(
        DiffusersNetwork(model), schedule, prediction="v", level=schedule.position
    )
    export_diffusers(denoiser, tmp_path / "teacher")
    again = load_teacher(tmp_path / "teacher")
    x, t = torch.randn(3, 1, 8, 8), torch.tensor(0.5)
    with torch.no_grad():
        torch.testing.assert_close(again(x, t), denoiser(x, t))
    assert (
        type(diffusers.DDIMScheduler.from_pretrained(tmp_path / "teacher" / "scheduler")).__name__
        == "DDIMScheduler"
    )
    with pytest.raises(FileExistsError, match="folder must be a new one"):
        export_diffusers(denoiser, tmp_path / "teacher")
    cosine = Preconditioned(DiffusersNetwork(model), VPCosine(), prediction="v")
    with pytest.raises(ValueError, match="denoiser must have a schedule VPDiscrete"):
        export_diffusers(cosine, tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


def test_a_network_of_this_library_is_none_of_diffusers(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="must be a model of diffusers to be written as one, got UNet"
    ):
        export_diffusers(student().denoiser, tmp_path / "teacher")
    assert not list(tmp_path.iterdir())
