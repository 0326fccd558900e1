"""Lightning's sub-commands: predictions, classes of the user's own, schedulers, and what lies
beside the logs.
"""

import signal
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch.utilities.exceptions import SIGTERMException

from latent_ebm.cli import main
from latent_ebm.cli.predictions import write_predictions
from tests.latent_ebm.tiny import PLAIN, fit, make_config, part

OWN = """
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset


class Points(LightningDataModule):
    def __init__(self, num: int = 40):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        rows, index = torch.randn(num, 2, generator=generator), torch.arange(num)
        self.rows = TensorDataset(rows, torch.zeros(num), index)

    def train_dataloader(self):
        return DataLoader(self.rows, batch_size=20, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.rows, batch_size=20)

    predict_dataloader = val_dataloader
"""


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_predict_writes_a_table_beside_the_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(make_config("mle", epochs=1), tmp_path) == 0
    command = ["predict", "--config", "config.yaml", "--ckpt_path", "run/last.ckpt", *PLAIN]
    assert main(command) == 0
    assert "20 predictions: run/last-predictions.csv" in capsys.readouterr().out
    table = pd.read_csv("run/last-predictions.csv")
    assert list(table) == ["index", "reconstruction", "tilt", "base", "joint"]
    assert list(table["index"]) == list(range(20))
    assert table[["reconstruction", "tilt", "base"]].sum(axis=1).to_numpy() == pytest.approx(
        table["joint"], rel=1e-4
    )
    command[command.index("run/last.ckpt")] = "last"
    assert main(command) == 1
    assert "run/last-predictions.csv' holds earlier predictions" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_predictions_in_any_precision_are_written(dtype: torch.dtype, tmp_path: Path) -> None:
    features = torch.tensor([[0.5, -2.0], [1.25, 3.0]], dtype=dtype)
    assert write_predictions(tmp_path / "p.csv", [features, features]) == 4
    table = pd.read_csv(tmp_path / "p.csv")
    assert list(table["feature_0"]) == [0.5, 1.25, 0.5, 1.25]
    assert list(table["feature_1"]) == [-2.0, 3.0, -2.0, 3.0]


def test_predict_refuses_a_rule_with_nothing_to_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config("em")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["predict", "--config", "config.yaml", *PLAIN]) == 1
    assert (
        "EMDistillation has nothing to predict of a row: draw samples" in capsys.readouterr().err
    )
    assert not Path("predictions.csv").exists()


def test_data_modules_of_ones_own_in_the_working_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own_points.py").write_text(OWN)
    config = {**make_config("mle", epochs=1), "data": part("own_points.Points", num=40)}
    before = list(sys.path)
    assert fit(config, tmp_path) == 0
    assert (
        main(["predict", "--config", "config.yaml", "--ckpt_path", "run/last.ckpt", *PLAIN]) == 0
    )
    assert len(pd.read_csv("run/last-predictions.csv")) == 40
    assert sys.path == before
    assert main(["sample", "run/last.ckpt", "--num", "3", "--out", "x.npz"]) == 1
    assert "--trust own_points" in capsys.readouterr().err
    assert (
        main(["sample", "run/last.ckpt", "--num", "3", "--out", "x.npz", "--trust", "own_points"])
        == 0
    )
    assert main(["score", "run/last.ckpt", "test", "--out", "s.csv", "--trust", "own_points"]) == 1
    assert "the rows of a Points must be named by a file" in capsys.readouterr().err


@pytest.mark.parametrize("rule", ["mle", "diffusion_gan"])
def test_a_scheduler_in_yaml(rule: str, tmp_path: Path) -> None:
    config = make_config(rule)
    config["model"]["init_args"]["scheduler"] = part(
        "torch.optim.lr_scheduler.StepLR", step_size=1, gamma=0.5
    )
    assert fit(config, tmp_path) == 0
    states = torch.load("run/last.ckpt", weights_only=True)["optimizer_states"]
    rates = {group["lr"] for state in states for group in state["param_groups"]}
    assert rates == {0.0025}
    assert main(["sample", "run/last.ckpt", "--num", "3", "--out", "x.npz"]) == 0
    written = yaml.safe_load(next(Path("runs").rglob("hparams.yaml")).read_text())
    assert written["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.01
    assert written["data"]["init_args"]["batch_size"] == 20


def test_a_scheduler_that_is_no_scheduler(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config("mle")
    config["model"]["init_args"]["scheduler"] = "os.system"
    assert fit(config, tmp_path) != 0
    assert "scheduler" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))


def test_barebones(tmp_path: Path) -> None:
    config = make_config("mle")
    del config["trainer"]["callbacks"], config["trainer"]["log_every_n_steps"]
    assert (
        fit(config, tmp_path, "--trainer.barebones=true", "--trainer.num_sanity_val_steps=null")
        == 0
    )


def test_curves_of_epochs_shorter_than_the_interval(tmp_path: Path) -> None:
    config = make_config("mle", epochs=3)  # of five batches
    logger = part("lightning.pytorch.loggers.CSVLogger", save_dir="runs")
    config["trainer"].update(log_every_n_steps=7, logger=logger)
    assert fit(config, tmp_path) == 0
    curves = pd.read_csv(next(Path("runs").rglob("metrics.csv")))
    for name in ("loss/likelihood", "energy/data", "gradient/all"):
        assert list(curves["step"][curves[name].notna()]) == [6, 13]


def test_ctrl_c_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("latent_ebm.learning.ShortRunMLE.losses", interrupt)
    assert fit(make_config("mle"), tmp_path) == 130
    signal.signal(signal.SIGINT, handler)  # which Lightning takes away
    assert "latent-ebm: interrupted\n" in capsys.readouterr().err


def test_a_fit_that_is_terminated_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def terminate(*args: object) -> None:
        raise SIGTERMException  # as Lightning does after a batch, once SIGTERM has come

    monkeypatch.setattr("latent_ebm.learning.ShortRunMLE.losses", terminate)
    assert fit(make_config("mle"), tmp_path) == 143
    assert "latent-ebm: terminated\n" in capsys.readouterr().err


def test_an_argument_without_a_type_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own_rule.py").write_text(
        "from latent_ebm.learning.base import LearningRule\n\n\nclass Rule(LearningRule):\n"
        "    def __init__(self, optimizer):\n        super().__init__(optimizer)\n\n"
        "    def losses(self, batch):\n        return {}\n\n    generate = losses\n"
    )
    config = {
        **make_config("mle"),
        "model": part("own_rule.Rule", optimizer=part("torch.optim.Adam", lr=0.1)),
    }
    assert fit(config, tmp_path) == 1
    assert "annotate the argument of Rule as OptimizerCallable" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))
