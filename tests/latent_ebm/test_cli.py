"""The command line: what it writes, how it refuses, and that a killed training goes on as if nothing had happened."""

import csv
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from latent_ebm import RatioPrior
from latent_ebm.cli import main
from latent_ebm.cli.checkpoints import check_trusted, load_rule

PLAIN = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
ENTRY = "import sys; from latent_ebm.cli import main; sys.exit(main())"


def part(class_path: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": init_args}


def langevin(num_steps: int, step_size: float = 0.05) -> dict[str, Any]:
    return part("samplers.Langevin", step_size=step_size, num_steps=num_steps)


def energy() -> dict[str, Any]:
    return part("latent_ebm.networks.EnergyMLP", dim=2, hidden=[8])


def make_config(rule: str, epochs: int = 2) -> dict[str, Any]:
    """A tiny run of ``mle`` with persistent chains everywhere, or of ``ratio`` whose stages close often."""
    base = part("latent_ebm.GaussianPrior", dim=2)
    decoder = part("latent_ebm.networks.MLP", in_dim=2, out_shape=2, hidden=[8])
    if rule == "mle":
        prior = part("latent_ebm.EnergyPrior", network=energy(), base=base, sampler=langevin(3))
        more = {"prior_chains": part("samplers.PersistentChains", num_chains=30, event_shape=2)}
    else:
        prior = part("latent_ebm.RatioPrior", base=base, stages=[], sampler=langevin(3))
        stages = {"patience": 1, "min_drop": 1.0, "tolerance": -1.0, "max_stages": 3, "refresh": langevin(1)}
        more = {"stages": {"ratio": energy(), "dim": 2, "pool_size": 50, **stages}}
    chains = part("samplers.PersistentChains", num_chains=100, event_shape=2)
    rule_args = {
        "model": part(
            "latent_ebm.LatentModel",
            prior=prior,
            likelihood=part("latent_ebm.GaussianLikelihood", decoder=decoder, scale=0.3),
        ),
        "posterior": part("latent_ebm.MCMCPosterior", sampler=langevin(3), start=chains),
        "inference": part("latent_ebm.MCMCPosterior", sampler=langevin(5)),
        "optimizer": part("torch.optim.Adam", lr=0.01),
        **more,
    }
    name = {"mle": "ShortRunMLE", "ratio": "MultiStageRatio"}[rule]
    checkpoint = {"dirpath": "run", "filename": "last", "enable_version_counter": False}
    callback = part("lightning.pytorch.callbacks.ModelCheckpoint", save_on_train_epoch_end=True, **checkpoint)
    return {
        "seed_everything": 0,
        "trainer": {"accelerator": "cpu", "max_epochs": epochs, "log_every_n_steps": 1, "callbacks": [callback]},
        "model": part(f"latent_ebm.learning.{name}", **rule_args),
        "data": part("latent_ebm.data.Toy2D", num=100, batch_size=10),
    }


def write(config: dict[str, Any], folder: Path) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def fit(config: dict[str, Any], folder: Path, *arguments: str) -> int:
    return main(["fit", "--config", write(config, folder), *PLAIN, *arguments])


@pytest.fixture(scope="module", params=["mle", "ratio"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert fit(make_config(request.param), folder) == 0
    return folder / "run" / "last.ckpt"


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """One line on stderr that holds every one of ``words``."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "Seed set" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("latent-ebm: error: ")
    assert all(word in lines[0] for word in words), lines[0]


@pytest.mark.parametrize("command", [[], ["demo"], ["sample"], ["score"], ["evaluate"], ["fit"]], ids=str)
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert "usage: latent-ebm" in capsys.readouterr().out


@pytest.mark.parametrize("args", [[], ["smple"], ["sample"], ["sample", "x", "--out", "y.png", "--num", "0"]], ids=str)
def test_wrong_usage(args: list[str]) -> None:
    assert main(args) == 2


def test_sample(checkpoint: Path, tmp_path: Path) -> None:
    def draw(name: str, seed: int) -> np.ndarray:
        args = ["sample", str(checkpoint), "--num", "5", "--out", name, "--seed", str(seed)]
        assert main(args) == 0
        with np.load(name) as arrays:
            assert arrays["x"].shape == arrays["z"].shape == (5, 2)
            return arrays["x"]

    assert np.array_equal(draw("a.npz", 1), draw("b.npz", 1))
    assert not np.array_equal(draw("a.npz", 1), draw("b.npz", 2))
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz", "b.npz"}


def test_score(checkpoint: Path) -> None:
    assert main(["score", str(checkpoint), "test", "--out", "own.csv"]) == 0
    assert main(["sample", str(checkpoint), "--num", "5", "--out", "x.npz"]) == 0
    assert main(["score", str(checkpoint), "x.npz", "--out", "a.csv"]) == 0
    assert main(["score", str(checkpoint), "x.npz", "--out", "b.csv"]) == 0
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()
    with open("own.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "reconstruction", "tilt", "base", "joint"]
    assert [int(row["index"]) for row in rows] == list(range(20))
    joint = float(rows[0]["reconstruction"]) + float(rows[0]["tilt"]) + float(rows[0]["base"])
    assert float(rows[0]["joint"]) == pytest.approx(joint, rel=1e-4)


def test_evaluate(checkpoint: Path) -> None:
    assert main(["evaluate", str(checkpoint), "--quick", "--out", "figures"]) == 0
    assert Path("figures/metrics.json").is_file()


def test_logs_of_a_training(checkpoint: Path) -> None:
    logs = checkpoint.parents[1] / "runs"
    assert list(logs.rglob("config.yaml"))
    assert list(logs.rglob("events.out.tfevents.*"))


def test_a_checkpoint_explains_itself(checkpoint: Path) -> None:
    rule, data = load_rule(checkpoint)
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[name]) for name, value in rule.state_dict().items())
    assert not rule.training
    data.setup()
    assert len(data.train) == 100
    if isinstance(rule.model.prior, RatioPrior):
        assert len(rule.model.prior.stages) >= 1


KEY = "model.init_args.model.init_args.prior.init_args.sampler"


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (lambda c: c["model"]["init_args"]["model"]["init_args"]["prior"]["init_args"]["sampler"]["init_args"].update(num_step=1), 2, [KEY, "num_step"]),
        (lambda c: c["trainer"].update(max_epoch=1), 2, ["trainer.max_epoch"]),
        (lambda c: c["data"]["init_args"].update(batch_size=-1), 1, ["batch_size must be an integer >= 1, got -1"]),
        (lambda c: c["trainer"]["callbacks"][0]["init_args"].update(dirpath="/proc/run"), 1, ["cannot write", "/proc/run"]),
        (lambda c: c["model"]["init_args"]["posterior"]["init_args"].update(sampler=langevin(100, 5.0)), 1, ["finite", "step_size"]),
    ],
    ids=["unknown key", "unknown trainer key", "bad value", "unwritable", "diverging"],
)
def test_refused_settings(change: Any, status: int, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config("mle")
    change(config)
    assert fit(config, tmp_path) == status
    refused(capsys, *words)
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["score", "CKPT", "nan.npy", "--out", "s.csv"], ["finite", "nan.npy"]),
        (["score", "CKPT", "wide.npy", "--out", "s.csv"], ["wide.npy", "shape (2,)"]),
        (["score", "CKPT", "missing.npy", "--out", "s.csv"], ["missing.npy"]),
        (["score", "CKPT", "test", "--out", "/proc/s.csv"], ["cannot write", "/proc"]),
        (["score", "CKPT", "test", "--out", "s.txt"], ["--out must end with .csv"]),
        (["sample", "CKPT", "--out", "x.png"], ["images"]),
        (["sample", "none.ckpt", "--out", "x.png"], ["none.ckpt"]),
        (["sample", "cut.ckpt", "--out", "x.npz"], ["cut.ckpt", "whole checkpoint"]),
        (["sample", "foreign.ckpt", "--out", "x.npz"], ["foreign.ckpt", "'config'"]),
        (["sample", "bomb.ckpt", "--out", "x.npz"], ["bomb.ckpt", "plain tensors"]),
        (["fit", "--config", "config.yaml", "--ckpt_path", "bomb.ckpt", *PLAIN], ["bomb.ckpt", "plain tensors"]),
        (["fit", "--config", "config.yaml", "--ckpt_path", "none.ckpt", *PLAIN], ["none.ckpt"]),
    ],
    ids=lambda value: "-".join(value[:3]).replace("/", "_") if value[0] in ("fit", "score", "sample") else "",
)
def test_refused_files(
    args: list[str], words: list[str], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(make_config("mle"), tmp_path)
    np.save("nan.npy", np.array([[0.0, np.nan]]))
    np.save("wide.npy", np.zeros((3, 5)))
    content = checkpoint.read_bytes()
    Path("cut.ckpt").write_bytes(content[: len(content) // 2])
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, "foreign.ckpt")
    torch.save({"state_dict": {}, "config": Bomb()}, "bomb.ckpt")
    before = set(tmp_path.rglob("*"))
    assert main([str(checkpoint) if word == "CKPT" else word for word in args]) == 1
    refused(capsys, *words)
    assert {path for path in tmp_path.rglob("*") if path.suffix in (".csv", ".png", ".npz", ".ckpt", ".tmp")} <= before


class Bomb:
    """What a pickle must never be allowed to do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def test_the_bomb_is_live() -> None:
    pickle.loads(pickle.dumps(Bomb()))  # noqa: S301
    assert Path("exploded").exists()


@pytest.mark.parametrize(
    "path",
    ["os.system", "Langevin", "subprocess.Popen", "torch.hub.load", "torch.nn.modules.module.torch", "samplers.base.math", "latent_ebm.data.mnist.gzip.open"],
)
def test_configurations_name_only_what_is_ours(path: str) -> None:
    with pytest.raises(ValueError, match=r"x\.class_path must"):
        check_trusted({"x": {"class_path": path}}, ("latent_ebm", "samplers", "torch.nn", "torch.optim"))


def test_configurations_name_no_functions_of_others() -> None:
    with pytest.raises(ValueError, match="--trust os"):
        check_trusted({"x": [{"optimizer": "os.system"}]}, ("latent_ebm",))
    check_trusted({"x": {"class_path": "samplers.Langevin"}, "path": "../digits.csv", "name": "moons"}, ("samplers",))
    check_trusted({"x": {"class_path": "json.JSONDecoder"}}, ("json",))


def test_errors_keep_their_traceback_for_debugging(checkpoint: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt"):
        main(["sample", "none.ckpt", "--out", "x.npz", "--debug"])


def test_moving_average(tmp_path: Path) -> None:
    config = make_config("mle", epochs=1)
    average = part("lightning.pytorch.callbacks.EMAWeightAveraging", use_buffers=False, decay=0.5)
    config["trainer"]["callbacks"].append(average)
    assert fit(config, tmp_path) == 0
    rule, _ = load_rule("run/last.ckpt")
    assert all(bool(torch.isfinite(p).all()) for p in rule.parameters())


@pytest.mark.parametrize("rule", ["mle", "ratio"])
def test_a_killed_training_ends_in_the_same_weights(rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(rule, epochs=16)
    assert fit(config, tmp_path) == 0
    whole = torch.load("run/last.ckpt", weights_only=True)
    monkeypatch.chdir(tmp_path / "runs")
    kill_in_training(write(config, tmp_path), Path("run/last.ckpt"))
    killed = torch.load("run/last.ckpt", weights_only=True)
    assert 0 < killed["epoch"] < whole["epoch"]
    assert fit(config, tmp_path, "--ckpt_path=run/last.ckpt") == 0
    resumed = torch.load("run/last.ckpt", weights_only=True)
    assert resumed["global_step"] == whole["global_step"]
    assert resumed["state_dict"].keys() == whole["state_dict"].keys()
    tensors = {name: value for name, value in whole["state_dict"].items() if isinstance(value, torch.Tensor)}
    assert all(torch.equal(resumed["state_dict"][name], value) for name, value in tensors.items())


def kill_in_training(config: str, checkpoint: Path) -> None:
    """Start the training of ``config`` in a process of its own and kill it after its second epoch."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", ENTRY, "fit", "--config", config, *PLAIN]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        first = wait_for_change(checkpoint, 0, process)
        wait_for_change(checkpoint, first, process)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def wait_for_change(path: Path, before: int, process: subprocess.Popen) -> int:
    """Time of the next version of ``path``."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and path.stat().st_mtime_ns != before:
            return path.stat().st_mtime_ns
        time.sleep(0.002)
    raise AssertionError(f"no new {path}; exit status {process.returncode}")
