"""Folders of ``diffusers`` pipelines: the same pictures as from ``diffusers`` itself, there and
back, without a network.
"""

import inspect
import json
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from latent_ebm.applications import TextToImage
from latent_ebm.autoencoders import PatchPCA
from latent_ebm.cli import main
from latent_ebm.denoisers import Preconditioned
from latent_ebm.export import export_pipeline
from latent_ebm.networks import MLP, MobileUNet
from latent_ebm.text import TextConditioner, TextTransformer, WordTokenizer
from latent_ebm.text.pretrained import PretrainedTextEncoder
from samplers import DDIM, VPCosine
from samplers.schedules import broadcast
from tests.latent_ebm.pipelines import ddim, write_pipeline

WEIGHTS, SCHEDULER = "diffusion_pytorch_model.safetensors", "scheduler_config.json"
PROMPTS = ["red circle", "blue"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"{args[1:]} was to be reached")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pipeline(tmp_path / "pipeline")
    return tmp_path / "pipeline"


def theirs(folder: Path, model: TextToImage, guidance: float, **more: Any) -> Tensor:
    """Pictures (2, 3, 8, 8) of ``PROMPTS`` that ``diffusers`` draws from the noise of seed 0."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    noise = broadcast(model.denoiser.schedule(torch.ones(()))[1], noise) * noise
    drawn = pipeline(
        PROMPTS, latents=noise.float(), guidance_scale=guidance, output_type="pt", **more
    )
    return 2 * drawn.images - 1


def ours(model: TextToImage, **more: Any) -> Tensor:
    return model.generate(PROMPTS, generator=torch.Generator().manual_seed(0), **more)


CHANGES: list[dict[str, Any]] = [
    {},
    {"prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    {"beta_schedule": "linear", "prediction_type": "sample"},
]


@pytest.mark.parametrize("changes", CHANGES)
def test_pictures_are_those_of_diffusers(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_pipeline(tmp_path, scheduler=ddim(**changes))
    model = TextToImage.load(tmp_path)
    assert model.guidance == 7.5
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    x = ours(model, num_steps=10)
    expected = theirs(tmp_path, model, 7.5, num_inference_steps=10)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-4)
    other = theirs(tmp_path, model, 1.0, num_inference_steps=10)
    assert (x - other).abs().max() > 0.01
    negative = ours(model, num_steps=10, negative="blue")
    expected = theirs(
        tmp_path, model, 7.5, num_inference_steps=10, negative_prompt=["blue", "blue"]
    )
    torch.testing.assert_close(negative, expected, rtol=0, atol=1e-4)


def test_the_command_draws(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    prompts = ["--prompt", "red circle", "--prompt", "blue", "--num", "1", "--seed", "0"]
    assert main(["sample", "pipeline", *prompts, "--steps", "3", "--out", "x.npz"]) == 0
    expected = ours(TextToImage.load(folder), num_steps=3)
    assert np.array_equal(np.load("x.npz")["x"], expected.numpy())
    assert main(["sample", "pipeline", *prompts, "--steps", "2", "--out", "grid.png"]) == 0
    assert Path("grid.png").stat().st_size > 0


def trained(folder: Path, **changes: Any) -> TextToImage:
    """A model of the pipeline in ``folder`` with other weights, as after a training."""
    model = TextToImage.load(folder)
    for parameter in model.denoiser.parameters():
        parameter.mul_(1.05)
    parts = {name: getattr(model, name) for name in inspect.signature(TextToImage).parameters}
    return TextToImage(**{**parts, **changes}).eval()


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_a_model_becomes_a_pipeline(folder: Path, spacing: str) -> None:
    """Of the size, the statistics and the length of prompts that it has now."""
    before = TextToImage.load(folder)
    sampler = DDIM(before.denoiser.schedule, 10, grid=spacing)
    model = trained(folder, sampler=sampler, shape=(3, 16, 8))
    assert model.autoencoder is not None
    model.autoencoder.set_statistics(torch.zeros(4), torch.full((4,), 3.0))
    export_pipeline(model, folder.parent / "again")
    expected = theirs(folder.parent / "again", model, 7.5, num_inference_steps=10)
    x = ours(model)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-4)
    again = TextToImage.load(folder.parent / "again")
    torch.testing.assert_close(ours(again, num_steps=10), x, rtol=0, atol=1e-5)


def unlike(folder: Path) -> dict[str, TextToImage]:
    """Models that no pipeline draws like, by what is said of them."""
    model = TextToImage.load(folder)
    schedule, encoder = model.denoiser.schedule, model.conditioner.encoder
    assert isinstance(encoder, PretrainedTextEncoder)
    assert isinstance(model.denoiser, Preconditioned)
    hiding = PretrainedTextEncoder(encoder.tokenizer, encoder.model)
    own = TextTransformer(WordTokenizer(["red"]), dim=16)
    unet = model.denoiser.network
    cosine = VPCosine()
    other = trained(folder)
    assert other.autoencoder is not None
    other.autoencoder.set_statistics(torch.zeros(4), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    mobile = MobileUNet((4, 4, 4), 16, (8,), (1,), (1,), (False,), (True,))
    pca = PatchPCA(channels=4, patch=2)
    return {
        "show_padding of the text encoder must be True": trained(
            folder, conditioner=TextConditioner(hiding)
        ),
        "the text encoder must be a Pretrained.*, got TextTransformer": trained(
            folder, conditioner=TextConditioner(own)
        ),
        "the network must be a DiffusersNetwork .*, got MobileUNet": trained(
            folder, denoiser=Preconditioned(mobile, schedule, "eps")
        ),
        "denoiser must have a schedule VPDiscrete": trained(
            folder, denoiser=Preconditioned(unet, cosine, "eps"), sampler=DDIM(cosine, 10)
        ),
        "level of denoiser must be the position": trained(
            folder, denoiser=Preconditioned(unet, schedule, "eps")
        ),
        "sampler must be DDIM .* on one of the grids": trained(folder, sampler=DDIM(schedule, 9)),
        "sampler must be DDIM with eta 0": trained(
            folder, sampler=DDIM(schedule, 9, 0.5, "leading")
        ),
        "the autoencoder must be a Pretrained.*, got PatchPCA": trained(folder, autoencoder=pca),
        "latents must have mean 0 and one deviation": other,
    }


def test_what_no_pipeline_draws_like_is_refused(folder: Path) -> None:
    for said, model in unlike(folder).items():
        with pytest.raises(ValueError, match=said):
            export_pipeline(model, folder.parent / "again")
    assert [path.name for path in folder.parent.iterdir()] == ["pipeline"]


def test_the_command_writes_a_pipeline(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder.parent)
    assert main(["export", "pipeline", "--diffusers", "--out", "again"]) == 0
    x, y = (ours(TextToImage.load(name), num_steps=2) for name in ("pipeline", "again"))
    assert torch.equal(x, y)
    assert main(["export", "pipeline", "--diffusers", "--out", "again"]) == 1
    assert "again" in capsys.readouterr().err


def edit(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; None removes one."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def to_pickle(path: Path) -> None:
    """Weights as older versions wrote them."""
    torch.save(load_file(path), path.with_name("diffusion_pytorch_model.bin"))
    path.unlink()


def flux(folder: Path) -> None:
    edit(folder / "model_index.json", _class_name="FluxPipeline")


WRONG: list[tuple[Callable[[Path], None], str]] = [
    (
        flux,
        "_class_name of .*model_index.json must be StableDiffusionPipeline, got 'FluxPipeline'",
    ),
    (
        lambda p: edit(p / "model_index.json", text_encoder=["transformers", "T5EncoderModel"]),
        "text_encoder of .* must be CLIPTextModel, got 'T5EncoderModel'",
    ),
    (
        lambda p: edit(p / "model_index.json", vae=["diffusers", "VQModel"]),
        "vae of .* must be AutoencoderKL or AutoencoderTiny, got 'VQModel'",
    ),
    (
        lambda p: edit(p / "model_index.json", tokenizer=None),
        "tokenizer of .* must be a class, got",
    ),
    (lambda p: edit(p / "model_index.json", unet=[None, None]), "unet of .* got None"),
    (lambda p: (p / "model_index.json").write_text("{"), "must hold the index of a pipeline"),
    (lambda p: (p / "model_index.json").write_text("[]"), "the index of a pipeline .* got a list"),
    (lambda p: (p / "unet" / "config.json").write_text("{"), r"unet/config\.json must hold"),
    *[
        (lambda p, part=part: shutil.rmtree(p / part), f"must hold a folder {part}, as model_ind")
        for part in ("unet", "vae", "scheduler", "tokenizer", "text_encoder")
    ],
    (
        lambda p: (p / "tokenizer" / "tokenizer.json").unlink(),
        "tokenizer must hold a tokenizer of transformers",
    ),
    (lambda p: (p / "vae" / WEIGHTS).unlink(), "pickled weights are not read"),
    (lambda p: to_pickle(p / "unet" / WEIGHTS), r"pickled weights are not read\), got .*\.bin"),
    (lambda p: (p / "text_encoder" / "model.safetensors").unlink(), "text_encoder must hold"),
    (lambda p: (p / "unet" / WEIGHTS).write_bytes(b"junk"), "unet must hold a model of diffusers"),
    (lambda p: edit(p / "unet" / "config.json", in_channels=9), "unet must hold a model of diff"),
    (
        lambda p: edit(p / "unet" / "config.json", addition_embed_type="text_time"),
        "unet must hold",
    ),
    (
        lambda p: edit(p / "scheduler" / SCHEDULER, prediction_type="velocity"),
        "scheduler must hold a scheduler whose schedule is known here: .* predict one of",
    ),
    (
        lambda p: edit(p / "scheduler" / SCHEDULER, rescale_betas_zero_snr=True),
        "rescale_betas_zero_snr of a scheduler must be unset",
    ),
    (lambda p: edit(p / "scheduler" / SCHEDULER, thresholding=True), "thresholding of .* unset"),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_other_folders_are_refused(
    folder: Path, change: Callable[[Path], None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder)
    capsys.readouterr()
    out = folder.parent / "grid.png"
    assert main(["sample", str(folder), "--prompt", "red", "--out", str(out)]) == 1
    lines = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("latent-ebm")
    ]
    assert len(lines) == 1
    assert re.search(said, lines[0]), lines[0]
    assert len(lines[0]) < 500
    assert not out.exists()


UNETS: list[tuple[dict[str, Any], str]] = [
    ({"in_channels": 9}, "in_channels of .* must be 4, as the other parts have it, got 9"),
    ({"cross_attention_dim": 8}, "cross_attention_dim of .* must be 16, .* got 8"),
    ({"time_cond_proj_dim": 8}, "a U-Net of noise, time and text alone, got time_cond_proj_dim 8"),
]


@pytest.mark.parametrize(("changes", "said"), UNETS)
def test_other_networks_are_refused(folder: Path, changes: dict[str, Any], said: str) -> None:
    """Those of inpainting, of another text encoder, and with guidance as an input."""
    import diffusers

    config = json.loads((folder / "unet" / "config.json").read_text())
    diffusers.UNet2DConditionModel.from_config({**config, **changes}).save_pretrained(
        folder / "unet"
    )
    with pytest.raises(ValueError, match=said):
        TextToImage.load(folder)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"but there is no '.*nothing'"):
        TextToImage.load(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"folder must be a folder, got the file '.*file'"):
        TextToImage.load(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match=r"or model_index\.json of a .*, got file"):
        TextToImage.load(tmp_path)
    MLP(2, 2, (4,)).save(tmp_path / "mlp")
    with pytest.raises(ValueError, match="must hold a TextToImage, got a MLP"):
        TextToImage.load(tmp_path / "mlp")
