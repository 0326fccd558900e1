"""The scripts for a GPU run from end to end on the CPU, at tiny sizes."""

import json
import sys
from pathlib import Path

import pytest
import torch

from experiments.common import write_json
from experiments.gpu import check, speed, train


@pytest.fixture(autouse=True)
def default_device() -> object:
    """The scripts set the default device of their process."""
    device = torch.get_default_device()
    yield
    torch.set_default_device(None if device.type == "cpu" else device)


def run(module: object, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    module.main()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile
def test_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "available", lambda builders: {})
    out = tmp_path / "speed.json"
    run(speed, monkeypatch, "--device", "cpu", "--tiny", "--out", str(out))
    found = json.loads(out.read_text())["result"]
    assert {"card", "ceilings", "chain-20", "posterior-CIFAR-2", "training-60/2-2"} < set(found)
    low, middle, high = found["chain-20"]["latent-ebm, captured"]
    assert 0 < low <= middle <= high


def test_tables_are_added_to_those_of_the_same_card(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    assert set(speed.begun(path, "cpu")) == {"card"}
    write_json(path, {"config": {}, "result": {**speed.begun(path, "cpu"), "ceilings": 1}})
    assert set(speed.begun(path, "cpu")) == {"card", "ceilings"}
    write_json(path, {"config": {}, "result": {"card": {"device": "another"}}})
    with pytest.raises(ValueError, match=r"speed\.json must be of .* got results of .*another"):
        speed.begun(path, "cpu")


def test_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "check.json"
    tests = Path(__file__).parent / "samplers" / "test_targets.py"
    with pytest.raises(SystemExit, match="0"):
        run(check, monkeypatch, "--device", "cpu", "--out", str(out), str(tests))
    found = json.loads(out.read_text())["result"]
    assert found["passed"] > 5
    assert found["failed"] == 0


def test_all_files_of_the_check_are_there() -> None:
    """A name without a file would end the check before its first test."""
    assert all((Path(__file__).parents[1] / name).exists() for name in check.TESTS)


def test_failures_are_counted_and_named(tmp_path: Path) -> None:
    right, wrong = (
        '<testcase classname="a" name="b"/>',
        '<testcase classname="a" name="c"><failure/></testcase>',
    )
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite tests="2" skipped="0" '
        f'time="1">{right}{wrong}</testsuite></testsuites>'
    )
    assert check.count(report) == {
        "passed": 1,
        "failed": 1,
        "skipped": 0,
        "seconds": 1.0,
        "names": ["a::c"],
    }


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice
def test_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = ["--teacher", "1", "--student", "1", "--latent", "1"]
    for _ in range(2):  # the second time goes on from checkpoints
        run(train, monkeypatch, "--tiny", "--out", str(tmp_path), *parts)
        found = json.loads((tmp_path / "train.json").read_text())["result"]
        assert {"teacher", "dmd", "emd-1", "ufogen", "latent mle", "latent ratio"} < set(found)
        parts = ["--teacher", "2", "--student", "0", "--latent", "0"]
    assert found["teacher"]["seconds"] == 2
    assert (tmp_path / "latent ratio.png").exists()
