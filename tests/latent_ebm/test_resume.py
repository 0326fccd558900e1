"""A training that was killed goes on as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.latent_ebm.tiny import PLAIN, fit, make_config, tensors, write

ENTRY = "import sys; from latent_ebm.cli import main; sys.exit(main())"


@pytest.mark.parametrize("rule", ["mle", "ratio", "em", "diffusion_gan"])
def test_a_killed_training_ends_in_the_same_weights(rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = make_config(rule, epochs=8)
    assert fit(config, tmp_path) == 0
    whole = torch.load("run/last.ckpt", weights_only=True)
    (tmp_path / "again").mkdir()
    monkeypatch.chdir(tmp_path / "again")
    kill_in_training(write(config, tmp_path), Path("run/last.ckpt"))
    killed = torch.load("run/last.ckpt", weights_only=True)
    assert 0 < killed["epoch"] < whole["epoch"]
    assert fit(config, tmp_path, "--ckpt_path=run/last.ckpt") == 0
    resumed = torch.load("run/last.ckpt", weights_only=True)
    assert resumed["global_step"] == whole["global_step"]
    assert resumed["state_dict"].keys() == whole["state_dict"].keys()
    assert all(torch.equal(resumed["state_dict"][name], value) for name, value in tensors(whole["state_dict"]).items())
    if rule == "ratio":
        assert len(whole["state_dict"]["model.prior.weights"]) > len(killed["state_dict"]["model.prior.weights"]) > 0


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
