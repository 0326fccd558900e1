"""The command line: what it writes, and how it refuses."""

import csv
import locale
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from latent_ebm import RatioPrior
from latent_ebm.cli import demo, held_out, main
from latent_ebm.cli.callbacks import SampleGrid
from latent_ebm.cli.checkpoints import load_rule
from latent_ebm.cli.errors import plain_warnings
from latent_ebm.cli.inference import write_scores
from latent_ebm.model import EnergyTerms
from tests.latent_ebm.tiny import PLAIN, fit, langevin, make_config, part, tensors, write


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ratio")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert fit(make_config("ratio"), folder) == 0
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


@pytest.mark.parametrize(
    "command", [[], ["demo"], ["sample"], ["score"], ["evaluate"], ["fit"]], ids=str
)
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert "usage: latent-ebm" in capsys.readouterr().out


@pytest.mark.parametrize(
    "args", [[], ["smple"], ["sample"], ["sample", "x", "--out", "y.png", "--num", "0"]], ids=str
)
def test_wrong_usage(args: list[str]) -> None:
    assert main(args) == 2


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_a_run_without_a_file_asks_for_one(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command]) == 2
    refused(capsys, f"{command} needs a YAML file, --config FILE")


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


def test_a_model_without_latents_is_sampled_but_not_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config("mle", epochs=1)
    ebm = config["model"]["init_args"]["model"]["init_args"]["prior"]
    optimizer = part("torch.optim.Adam", lr=0.001)
    config["model"] = part("latent_ebm.learning.SelfAdversarial", ebm=ebm, optimizer=optimizer)
    assert fit(config, tmp_path) == 0
    assert main(["sample", "run/last.ckpt", "--num", "5", "--out", "x.npz"]) == 0
    with np.load("x.npz") as arrays:
        assert {name: array.shape for name, array in arrays.items()} == {"x": (5, 2)}
    capsys.readouterr()
    assert main(["score", "run/last.ckpt", "x.npz", "--out", "scores.csv"]) == 1
    refused(capsys, "must hold a latent model", "SelfAdversarial")


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
    assert tensors(rule.state_dict()).keys() == tensors(state).keys()
    assert all(
        torch.equal(value, state[name]) for name, value in tensors(rule.state_dict()).items()
    )
    assert isinstance(rule.model.prior, RatioPrior)
    assert len(rule.model.prior.stages) >= 1
    assert not rule.training
    data.setup()
    assert len(data.train) == 100


KEY = "model.init_args.model.init_args.prior.init_args.sampler"


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (
            lambda c: c["model"]["init_args"]["model"]["init_args"]["prior"]["init_args"][
                "sampler"
            ]["init_args"].update(num_step=1),
            2,
            [KEY, "num_step"],
        ),
        (lambda c: c["trainer"].update(max_epoch=1), 2, ["trainer.max_epoch"]),
        (
            lambda c: c["data"]["init_args"].update(batch_size=-1),
            1,
            ["batch_size must be an integer >= 1, got -1"],
        ),
        (
            lambda c: c["trainer"]["callbacks"][0]["init_args"].update(dirpath="/proc/run"),
            1,
            ["cannot write", "/proc/run"],
        ),
        (
            lambda c: c["model"]["init_args"]["posterior"]["init_args"].update(
                sampler=langevin(100, 5.0)
            ),
            1,
            ["finite", "step_size"],
        ),
    ],
    ids=["unknown key", "unknown trainer key", "bad value", "unwritable", "diverging"],
)
def test_refused_settings(
    change: Any, status: int, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
        (
            ["fit", "--config", "config.yaml", "--ckpt_path", "bomb.ckpt", *PLAIN],
            ["bomb.ckpt", "plain tensors"],
        ),
        (["fit", "--config", "config.yaml", "--ckpt_path", "none.ckpt", *PLAIN], ["none.ckpt"]),
    ],
    ids=lambda value: (
        "-".join(value[:3]).replace("/", "_") if value[0] in ("fit", "score", "sample") else ""
    ),
)
def test_refused_files(
    args: list[str],
    words: list[str],
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
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
    assert {
        path
        for path in tmp_path.rglob("*")
        if path.suffix in (".csv", ".png", ".npz", ".ckpt", ".tmp")
    } <= before


class Bomb:
    """What a pickle must never be allowed to do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def test_the_bomb_is_live() -> None:
    pickle.loads(pickle.dumps(Bomb()))  # noqa: S301
    assert Path("exploded").exists()


def test_errors_keep_their_traceback_for_debugging(checkpoint: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt"):
        main(["sample", "none.ckpt", "--out", "x.npz", "--debug"])


def test_a_warning_is_one_line() -> None:
    usual = warnings.formatwarning
    with plain_warnings():
        shown = warnings.formatwarning("two\nlines", UserWarning, "a.py", 3)
    assert shown == "latent-ebm: warning: two lines\n"
    assert warnings.formatwarning is usual


def test_moving_average(tmp_path: Path) -> None:
    config = make_config("mle", epochs=1)
    average = part("lightning.pytorch.callbacks.EMAWeightAveraging", use_buffers=False, decay=0.5)
    config["trainer"]["callbacks"].append(average)
    assert fit(config, tmp_path) == 0
    rule, _ = load_rule("run/last.ckpt")
    assert all(bool(torch.isfinite(p).all()) for p in rule.parameters())


def test_pictures_of_a_training() -> None:
    config = Path(__file__).parents[2] / "experiments" / "digits" / "gaussian.yaml"
    short = [
        "--trainer.max_epochs=3",
        "--trainer.limit_train_batches=1",
        "--trainer.check_val_every_n_epoch=1",
    ]
    assert main(["fit", "--config", str(config), *short, *PLAIN]) == 0
    events = EventAccumulator("runs/digits/gaussian").Reload()
    assert set(events.Tags()["images"]) == {"samples", "reconstructions"}
    assert len(events.Images("samples")) == 1  # at most every tenth epoch
    assert (
        main(["sample", "runs/digits/gaussian/last.ckpt", "--num", "4", "--out", "grid.png"]) == 0
    )
    assert Path("grid.png").read_bytes().startswith(b"\x89PNG")


def test_demo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(held_out, "NUM_STEPS", 20)
    monkeypatch.setattr(demo, "SET_SIZE", 50)
    assert main(["demo", "--epochs", "1", "--out", "made"]) == 0
    names = {path.name for path in Path("made").iterdir()}
    assert names == {"samples.png", "reconstructions.png", "prior_vs_posterior.png", "scores.csv"}
    assert "density ratios" in capsys.readouterr().out


@pytest.mark.parametrize("num", [0, -1])
def test_pictures_need_numbers(num: int) -> None:
    with pytest.raises(ValueError, match=f"num must be an integer >= 1, got {num}"):
        SampleGrid(num=num)


def test_scores_are_written_in_utf8_wherever(tmp_path: Path) -> None:
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")  # whose letters are those of ASCII
    try:
        write_scores(tmp_path / "s.csv", EnergyTerms(*torch.zeros(3, 1)), ["Zürich"])
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    assert "Zürich,0" in (tmp_path / "s.csv").read_text(encoding="utf-8")
