"""Teachers from disk: the same denoiser as the arithmetic of their own scheduler, with no network
and no pickle.
"""

import json
import shutil
import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from latent_ebm.denoisers import Preconditioned, load_teacher
from latent_ebm.denoisers.teachers import scheduler_parts
from latent_ebm.networks import DenoiserMLP
from samplers import DDIM, VE, Karras, Rectified, VPDiscrete
from samplers.schedules import broadcast
from tests.samplers.table import seeded

DDPM = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
}


@pytest.fixture
def diffusers(monkeypatch):
    """The library, on a machine whose sockets do not connect."""
    module = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")

    def refuse(*args) -> None:
        raise AssertionError(
            f"a teacher must be loaded without network, but {args[1:]} was to be reached"
        )

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return module


def save(diffusers, path: Path, scheduler, **options) -> Preconditioned:
    """A small network of random weights and ``scheduler``, saved as diffusers does, and loaded as
    a teacher.
    """
    torch.manual_seed(0)
    defaults = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    blocks = {
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
    }
    model = diffusers.UNet2DModel(
        **{**defaults, **blocks, "block_out_channels": (8, 8), **options}
    )
    model.save_pretrained(path / "unet")
    scheduler.save_pretrained(path / "scheduler")
    teacher = load_teacher(path)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    return teacher


def network_of(teacher: Preconditioned) -> torch.nn.Module:
    return teacher.network.model  # pyright: ignore[reportReturnType]


def images(num: int) -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(2, num, 1, 8, 8, generator=seeded()))  # pyright: ignore[reportReturnType]


@torch.no_grad()
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_beta_schedules(diffusers, tmp_path: Path, betas: str, prediction: str) -> None:
    """``pred_original_sample`` of DDPM at training steps, at those noised by ``add_noise``;
    diffusers' betas are float32.
    """
    scheduler = diffusers.DDPMScheduler(
        beta_schedule=betas, prediction_type=prediction, clip_sample=False
    )
    teacher = save(diffusers, tmp_path, scheduler).double()
    x, noise = (a.double() for a in images(5))
    steps = torch.tensor([0, 17, 400, 700, 990])
    x_t = scheduler.add_noise(x, noise, steps)
    x_0 = teacher(x_t, steps.double() / 999)
    for i, step in enumerate(steps):
        output = network_of(teacher)(x_t[i : i + 1], step).sample
        expected = scheduler.step(
            output, step, x_t[i : i + 1], generator=seeded()
        ).pred_original_sample
        torch.testing.assert_close(x_0[i : i + 1], expected, rtol=1e-5, atol=1e-5)
    alpha, sigma = teacher.schedule(steps.double() / 999)
    mine = broadcast(alpha, x) * x + broadcast(sigma, x) * noise
    torch.testing.assert_close(mine, x_t, rtol=0, atol=2e-5)


@torch.no_grad()
def test_ddim_is_that_of_diffusers(diffusers, tmp_path: Path) -> None:
    """A path of nine steps between training steps a hundred apart."""
    scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction", clip_sample=False)
    teacher = save(diffusers, tmp_path, scheduler)
    scheduler.set_timesteps(10)
    x = found = images(3)[0]
    for step in scheduler.timesteps[:-1]:
        t, s = step.double() / 999, (step - 100).double() / 999
        x = scheduler.step(network_of(teacher)(x, step).sample, step, x).prev_sample
        found = DDIM(teacher.schedule, 9).step(teacher, found, t, s)
    torch.testing.assert_close(found, x, rtol=1e-5, atol=2e-5)
    assert (x - images(3)[0]).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("schedule", ["karras", "exponential"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_edm(diffusers, tmp_path: Path, schedule: str, prediction: str) -> None:
    numbers = {"sigma_min": 0.01, "sigma_max": 50.0, "sigma_data": 0.4, "rho": 5.0}
    scheduler = diffusers.EDMEulerScheduler(
        **numbers, sigma_schedule=schedule, prediction_type=prediction
    )
    teacher = save(diffusers, tmp_path, scheduler)
    assert teacher.schedule == (
        Karras(0.01, 50.0, 5.0) if schedule == "karras" else VE(0.01, 50.0)
    )
    x, noise = images(4)
    scheduler.set_timesteps(4)
    for i, sigma in enumerate(scheduler.sigmas[:4]):
        t = teacher.schedule.time(-2 * sigma.log())
        x_t = x + sigma * noise
        inputs, level = (
            scheduler.precondition_inputs(x_t, sigma),
            scheduler.precondition_noise(sigma),
        )
        expected = scheduler.precondition_outputs(
            x_t, network_of(teacher)(inputs, level).sample, sigma
        )
        torch.testing.assert_close(teacher(x_t, t), expected, rtol=1e-5, atol=1e-5)
        assert t.item() == pytest.approx(1 - i / 3, abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching(diffusers, tmp_path: Path, shift: float) -> None:
    """An Euler step of the scheduler moves by ``(tau' - tau) v``; taken to tau' = 0 it ends at the
    denoiser.
    """
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    teacher = save(diffusers, tmp_path, scheduler)
    assert teacher.schedule == Rectified()
    x, noise = images(3)
    scheduler.set_timesteps(5)
    for tau, step in zip(scheduler.sigmas[1:-1], scheduler.timesteps[1:], strict=True):
        x_t = scheduler.scale_noise(x, step[None], noise)
        torch.testing.assert_close(x_t, (1 - tau) * x + tau * noise)
        t = teacher.schedule.time(2 * ((1 - tau) / tau).log())
        expected = x_t - tau * network_of(teacher)(x_t, step).sample
        torch.testing.assert_close(teacher(x_t, t), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_labels_and_learned_variances(diffusers, tmp_path: Path) -> None:
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range")
    teacher = save(diffusers, tmp_path, scheduler, num_class_embeds=4, out_channels=2)
    (x, _), t, label = images(2), torch.tensor(0.5), torch.tensor([1, 3])
    found = teacher(x, t, label=label)
    assert found.shape == x.shape
    assert (found - teacher(x, t, label=label.flip(0))).abs().max() > 1e-4


@torch.no_grad()
def test_reverse_samplers_take_a_teacher(diffusers, tmp_path: Path) -> None:
    teacher = save(diffusers, tmp_path, diffusers.DDPMScheduler(prediction_type="v_prediction"))
    assert teacher.schedule == VPDiscrete()
    assert DDIM(teacher.schedule, 3).sample(teacher, images(2)[0]).isfinite().all()
    assert teacher.to("meta")(
        torch.empty(2, 1, 8, 8, device="meta"), torch.empty(2, device="meta")
    ).is_meta


def test_weights_of_a_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained, fresh = DenoiserMLP(3, (8,)), DenoiserMLP(3, (8,))
    save_file(trained.state_dict(), tmp_path / "network.safetensors")
    teacher = load_teacher(
        tmp_path / "network.safetensors", Preconditioned(fresh, Karras(), "edm", 0.5)
    )
    x, t = torch.randn(4, 3), torch.rand(4)
    torch.testing.assert_close(teacher(x, t), Preconditioned(trained, Karras(), "edm", 0.5)(x, t))
    assert not any(p.requires_grad for p in teacher.parameters())
    with pytest.raises(
        ValueError,
        match=r"network\.safetensors must hold the weights of skeleton\.network.*size mismatch",
    ):
        load_teacher(
            tmp_path / "network.safetensors", Preconditioned(DenoiserMLP(2, (8,)), Karras())
        )
    last = list(trained.state_dict())[-1]
    partly = {**DenoiserMLP(3, (8,)).state_dict(), last: torch.zeros(9)}
    save_file(partly, tmp_path / "partly.safetensors")
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(ValueError, match="size mismatch"):
        load_teacher(tmp_path / "partly.safetensors", Preconditioned(fresh, Karras()))
    assert all(torch.equal(before[name], value) for name, value in fresh.state_dict().items())
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        load_teacher(tmp_path / "none.safetensors", Preconditioned(fresh, Karras()))


def test_a_file_needs_a_skeleton(tmp_path: Path) -> None:
    (tmp_path / "network.safetensors").touch()
    with pytest.raises(
        ValueError, match="skeleton must be given for a path that is not a directory, got None"
    ):
        load_teacher(tmp_path / "network.safetensors")


def test_a_mistyped_path(tmp_path: Path) -> None:
    """Is not taken for a file without a skeleton."""
    for path in (tmp_path / "techer", "~/no such folder", tmp_path / "network.safetensors"):
        with pytest.raises(
            FileNotFoundError, match="path must name a model directory of diffusers or a file"
        ):
            load_teacher(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        (2**40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        b"PK\3\4 no tensors",
    ],
    ids=["empty", "length", "long header", "list", "zip"],
)
def test_broken_safetensors(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        ValueError,
        match=r"a\.safetensors must hold the weights of skeleton\.network as \.safetensors: ",
    ):
        load_teacher(path, Preconditioned(DenoiserMLP(3, (8,)), Karras()))


def test_the_extra_is_asked_for(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(
        ImportError, match=r"needs diffusers: pip install 'latent-ebm\[diffusers\]'"
    ):
        load_teacher(tmp_path)


def test_incomplete_and_foreign_directories(diffusers, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"unet.config\.json is missing"):
        load_teacher(tmp_path)
    for name, config in (
        ("unet/config", {"_class_name": "Path"}),
        ("scheduler/scheduler_config", DDPM),
    ):
        path = tmp_path / f"{name}.json"
        path.parent.mkdir()
        path.write_text(json.dumps({**config, "beta_schedule": "linear"}))
    with pytest.raises(ValueError, match="must be a model of diffusers, got 'Path'"):
        load_teacher(tmp_path)


def edit(path: Path, **change: object) -> None:
    """Change entries of a JSON file; None removes one."""
    config = {**json.loads(path.read_text()), **change}
    path.write_text(
        json.dumps({name: value for name, value in config.items() if value is not None})
    )


@pytest.mark.parametrize(
    "name",
    ["DDPMScheduler", "LCMScheduler", "EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler"],
)
def test_what_a_scheduler_leaves_out_is_the_default_of_its_class(
    diffusers, tmp_path: Path, name: str
) -> None:
    scheduler = getattr(diffusers, name)()
    whole = save(diffusers, tmp_path, scheduler)
    (tmp_path / "scheduler/scheduler_config.json").write_text(json.dumps({"_class_name": name}))
    assert load_teacher(tmp_path).schedule == whole.schedule
    if name == "LCMScheduler":
        assert whole.schedule == VPDiscrete(1000, 0.00085, 0.012, "scaled_linear")


def test_weights_of_a_variant(diffusers, tmp_path: Path) -> None:
    """In one file or several; pickled ones are named in the refusal."""
    whole, unet = save(diffusers, tmp_path, diffusers.DDPMScheduler()), tmp_path / "unet"
    plain = unet / "diffusion_pytorch_model.safetensors"
    network_of(whole).half().save_pretrained(unet, variant="fp16")  # pyright: ignore[reportCallIssue]
    assert same_weights(load_teacher(tmp_path), whole, tolerance=1e-3)
    plain.unlink()
    teacher = load_teacher(tmp_path)
    assert same_weights(teacher, whole)
    assert {p.dtype for p in teacher.parameters()} == {torch.float32}
    (unet / "diffusion_pytorch_model.fp16.safetensors").unlink()
    network_of(whole).save_pretrained(unet, variant="fp16", max_shard_size="5KB")  # pyright: ignore[reportCallIssue]
    assert len(list(unet.glob("*.safetensors"))) > 1
    assert same_weights(load_teacher(tmp_path), whole)
    for part in unet.glob("*.safetensors"):
        part.unlink()
    (unet / "diffusion_pytorch_model.bin").touch()
    with pytest.raises(
        FileNotFoundError, match=r"unet must hold .*pickled weights are not read.*got .*model\.bin"
    ):
        load_teacher(tmp_path)


def same_weights(one: Preconditioned, other: Preconditioned, tolerance: float = 0.0) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(p, q.float(), rtol=0, atol=tolerance) for p, q in pairs)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "unet/config",
            {"layers_per_block": 2},
            r"unet must hold a model of diffusers and its weights: .*do not fit.*missing",
        ),
        (
            "unet/config",
            {"layers_per_block": 10**9},
            "unet must hold a model .*at most 15,000 calls of PyTorch",
        ),
        (
            "unet/config",
            {"block_out_channels": [4 * 10**6, 8]},
            "unet must hold a model .*but its files have only",
        ),
        (
            "unet/config",
            {"block_out_channels": "wide"},
            "unet must hold a model of diffusers and its weights: ",
        ),
        (
            "unet/config",
            {"quantization_config": {"quant_method": "a"}},
            "unet must hold a model without quantization_config",
        ),
        (
            "scheduler/scheduler_config",
            {"beta_start": "small"},
            "scheduler must hold a scheduler .*beta_start must be finite",
        ),
        (
            "scheduler/scheduler_config",
            {"num_train_timesteps": 10**12},
            "scheduler must hold .*num_train_steps must be finite",
        ),
        (
            "scheduler/scheduler_config",
            {"num_train_timesteps": 1.5},
            "scheduler must hold .*num_train_timesteps must be an int",
        ),
        (
            "scheduler/scheduler_config",
            {"prediction_type": ["epsilon"]},
            "scheduler must hold a scheduler",
        ),
    ],
    ids=[
        "more layers",
        "a billion layers",
        "wide",
        "word",
        "quantized",
        "betas",
        "steps",
        "fraction",
        "list",
    ],
)
def test_edited_configurations(
    diffusers, saved: Path, tmp_path: Path, name: str, change: dict, message: str
) -> None:
    folder = shutil.copytree(saved, tmp_path / "model")
    edit(folder / f"{name}.json", **change)
    with pytest.raises(ValueError, match=message):
        load_teacher(folder)


def test_broken_folders(diffusers, saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "model")
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="unet must hold a model of diffusers and its weights: "):
        load_teacher(folder)
    (folder / "unet/config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"config\.json must hold an object of JSON, got a list"):
        load_teacher(folder)
    (folder / "unet/config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json must hold an object of JSON: Expecting"):
        load_teacher(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model."""
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    path = tmp_path_factory.mktemp("teacher")
    save(diffusers, path, diffusers.DDPMScheduler())
    return path


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**DDPM, "beta_schedule": "sigmoid"}, "betas must be one of linear, .*, got 'sigmoid'"),
        (
            {**DDPM, "beta_schedule": "linear", "trained_betas": [0.1, 0.2]},
            "trained_betas of a scheduler must be unset",
        ),
        (
            {**DDPM, "beta_schedule": "linear", "rescale_betas_zero_snr": True},
            "rescale_betas_zero_snr of a scheduler",
        ),
        (
            {**DDPM, "beta_schedule": "linear", "prediction_type": "score"},
            "predict one of epsilon, v_prediction, sample",
        ),
        ({"_class_name": "KarrasVeScheduler"}, "a scheduler must have betas"),
    ],
)
def test_schedulers_of_another_kind_are_refused(config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scheduler_parts(config)
