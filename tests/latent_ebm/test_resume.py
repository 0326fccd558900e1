"""A training that was killed goes on as if nothing had happened."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint

from latent_ebm.cli import main
from latent_ebm.cli.runs import check_places, find_checkpoint
from latent_ebm.learning import AtomicCheckpointIO
from tests.latent_ebm.tiny import PLAIN, QUIET, fit, make_config, tensors, write

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys, torch
from latent_ebm.cli import main

def save(content, file, save=torch.save, calls=[]):
    save(content, file)
    calls.append(file)
    if len(calls) == 3:  # half of the third checkpoint is written
        file.truncate(file.tell() // 2)
        os.kill(os.getpid(), signal.SIGKILL)

torch.save = save
main()
"""
SHORT = [
    "max_epochs=4",
    "limit_train_batches=2",
    "limit_val_batches=1",
    "check_val_every_n_epoch=1",
]


def differences(first: Path, second: Path) -> list[str]:
    """Names of what differs between two checkpoints: weights, random states, steps, those of the
    logs too.
    """
    one, two = (torch.load(path, weights_only=True) for path in (first, second))
    assert one["global_step"] == two["global_step"]
    counts = [
        c["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"]
        for c in (one, two)
    ]
    assert counts[0] == counts[1]
    assert one["state_dict"].keys() == two["state_dict"].keys()
    state = {**tensors(one["state_dict"]), "rng": one["rng"]["cpu"]}
    other = {**two["state_dict"], "rng": two["rng"]["cpu"]}
    logged = [
        checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"] for checkpoint in (one, two)
    ]
    assert logged[0] == logged[1]  # the steps at which curves go on
    return [name for name, value in state.items() if not torch.equal(value, other[name])]


@pytest.mark.parametrize("path", ["digits/mle", "digits/ratio"])
def test_a_killed_training_ends_in_the_same_weights(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files as they are shipped, with their pictures, and fewer batches."""
    monkeypatch.chdir(tmp_path)
    checkpoint = Path(f"runs/{path}/last.ckpt")
    config = str(ROOT / "experiments" / f"{path}.yaml")
    short = [*(f"--trainer.{option}" for option in SHORT), *PLAIN]
    assert main(["fit", "--config", config, *short]) == 0
    shutil.move("runs", "whole")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    command = [sys.executable, "-c", KILLED, "fit", "--config", config, *short]
    assert (
        subprocess.run(command, env=environment, capture_output=True).returncode == -signal.SIGKILL
    )
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 1
    assert checkpoint.with_name(".last.ckpt.tmp").exists()
    assert main(["fit", "--config", config, *short, f"--ckpt_path={checkpoint}"]) == 0
    assert differences(checkpoint, Path(f"whole/{path}/last.ckpt")) == []
    assert not checkpoint.with_name(".last.ckpt.tmp").exists()


def every_step(rule: str, **more: Any) -> dict[str, Any]:
    """A run of two epochs of five batches that keeps a checkpoint of every step in ``run``."""
    config = make_config(rule)
    options = config["trainer"]["callbacks"][0]["init_args"]
    del options["save_on_train_epoch_end"]
    options.update(every_n_train_steps=1, save_top_k=-1, filename="{step}", **more)
    config["trainer"].update(val_check_interval=2, logger=False)
    config["model"]["init_args"]["optimizer"]["init_args"]["lr"] = (
        0.1  # by which a stage of ratios closes
    )
    return config


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize(
    ("rule", "steps"),
    [("mle", (2, 5, 8)), ("ratio", (4, 5)), ("em", (3,)), ("diffusion_gan", (6,))],
)
def test_a_checkpoint_inside_an_epoch_resumes(
    rule: str, steps: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle, before a validation that is due, and after the last batch."""
    monkeypatch.chdir(tmp_path)
    assert fit(every_step(rule), tmp_path) == 0
    last = max(Path("run").iterdir(), key=lambda path: path.stat().st_mtime)
    for step in steps:
        again = f"again-{step}"
        assert (
            fit(every_step(rule, dirpath=again), tmp_path, f"--ckpt_path=run/step={step}.ckpt")
            == 0
        )
        assert differences(last, Path(again) / last.name) == []
    if rule == "ratio":
        assert len(torch.load(last, weights_only=True)["state_dict"]["model.prior.weights"]) > 1


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    writer, path = AtomicCheckpointIO(), tmp_path / "run" / "last.ckpt"
    draft = path.with_name(".last.ckpt.tmp")
    writer.save_checkpoint({"x": torch.ones(2)}, path)
    draft.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot write the checkpoint .*last\.ckpt.*No space left"):
        writer.save_checkpoint({"x": torch.zeros(2)}, path)
    assert torch.equal(writer.load_checkpoint(path)["x"], torch.ones(2))
    assert list(path.parent.iterdir()) == [path]
    draft.write_bytes(b"what a kill left")
    writer.save_checkpoint({"x": torch.zeros(2)}, path)
    assert torch.equal(writer.load_checkpoint(path)["x"], torch.zeros(2))
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_checkpoint_fails_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run/last.ckpt").mkdir(parents=True)  # what cannot be replaced by a file
    config = make_config("mle")
    config["trainer"]["logger"] = False
    config["trainer"]["callbacks"][0]["init_args"]["filename"] = "last"
    monkeypatch.setattr("latent_ebm.cli.trainer.check_places", lambda *args: None)
    assert fit(config, tmp_path) == 1
    assert "cannot write the checkpoint" in capsys.readouterr().err
    assert [path.name for path in Path("run").iterdir()] == ["last.ckpt"]


def test_a_run_does_not_write_over_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = make_config("mle", epochs=1)
    assert fit(config, tmp_path) == 0
    content = Path("run/last.ckpt").read_bytes()
    assert fit(config, tmp_path) == 1
    assert f"--ckpt_path {tmp_path}/run/last.ckpt, or move" in capsys.readouterr().err
    Path("run").rename("first")
    assert fit(config, tmp_path) == 0  # the logger makes a version of its own
    assert {path.name for path in Path("runs/lightning_logs").iterdir()} == {
        "version_0",
        "version_1",
    }
    assert fit(config, tmp_path, "--ckpt_path=first/last.ckpt") == 1
    assert "run' holds another run" in capsys.readouterr().err
    config["trainer"]["logger"] = {
        "class_path": "CSVLogger",
        "init_args": {"save_dir": "runs", "version": 0},
    }
    Path("run").rename("second")
    assert fit(config, tmp_path) == 1
    assert "holds the logs of another run: move or remove" in capsys.readouterr().err
    assert not Path("run").exists()
    assert Path("first/last.ckpt").read_bytes() == content


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_a_run_without_a_last_checkpoint_is_refused(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It would begin anew, over the other run, or predict without training."""
    monkeypatch.chdir(tmp_path)
    other = put("run/model.ckpt")
    config = write(make_config("mle", epochs=1), tmp_path)
    assert main([command, "--config", config, "--ckpt_path=last", *PLAIN]) == 1
    assert "ckpt_path must name a file, or be 'last'" in capsys.readouterr().err
    assert other.read_text() == "of another run"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "config.yaml"}


def put(name: str) -> Path:
    """A file of this name in the place of a checkpoint."""
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text("of another run")
    return path


def test_last_is_the_newest_checkpoint_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    trainer = Trainer(**QUIET)
    trainer.callbacks += [ModelCheckpoint("run"), OnExceptionCheckpoint("crash", "crash")]
    for age, name in enumerate(("step=9", "last-v1", "last")):
        os.utime(put(f"run/{name}.ckpt"), (10 - age, 10 - age))
    assert find_checkpoint(trainer, "last") == tmp_path / "run" / "last-v1.ckpt"
    assert find_checkpoint(trainer, "run/last.ckpt") == Path("run/last.ckpt")
    assert find_checkpoint(trainer, "~/run/last.ckpt") == tmp_path / "run" / "last.ckpt"
    assert find_checkpoint(trainer, None) is None
    assert put("crash/crash.ckpt") == find_checkpoint(trainer, "last")
    for name in ("run/last.ckpt", "crash/crash.ckpt"):
        check_places(trainer, tmp_path / name)
    for resumed in (None, put("other/last.ckpt")):
        with pytest.raises(FileExistsError, match="run' holds another run"):
            check_places(trainer, resumed)


@pytest.mark.parametrize("word", ["last", "best"])
def test_words_that_find_nothing_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match=f"got '{word}', for which there is none"):
        find_checkpoint(Trainer(**QUIET), word)


def test_a_path_at_home_does_not_hide_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    put("first/last.ckpt")
    put("run/last.ckpt")
    assert fit({**make_config("mle"), "ckpt_path": "~/first/last.ckpt"}, tmp_path) == 1
    assert "run' holds another run" in capsys.readouterr().err
