"""Outputs: never an input, never half-written, and what cannot be written is said before the work
starts.
"""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from latent_ebm.cli import main
from latent_ebm.cli.files import check_apart, check_folder, check_new, check_output
from latent_ebm.writing import atomic_folder, atomic_path
from tests.latent_ebm.tiny import fit, make_config, part


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        np.savetxt(
            "data.csv",
            np.random.default_rng(0).normal(size=(100, 2)),
            delimiter=",",
            header="a,b",
            comments="",
        )
        config = make_config("mle", epochs=1)
        config["data"] = part("latent_ebm.data.Arrays", path="data.csv", batch_size=20)
        assert fit(config, folder) == 0
        Path("soft.csv").symlink_to("data.csv")
        Path("loop.csv").symlink_to("loop.csv")
        os.link("data.csv", "hard.csv")
        os.link("run/last.ckpt", "ckpt.csv")
        np.savez("data.npz", X=np.zeros((5, 2)))
        os.mkfifo("pipe.csv")
    return folder


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["score", "CKPT", "data.csv", "--out", "data.csv"],
            "'data.csv' must not be written to, for it is read",
        ),
        (["score", "CKPT", "data.csv", "--out", "./run/../data.csv"], "must not be written to"),
        (["score", "CKPT", "data.csv", "--out", "soft.csv"], "'soft.csv' must not be written to"),
        (["score", "CKPT", "soft.csv", "--out", "hard.csv"], "'hard.csv' must not be written to"),
        (["score", "CKPT", "test", "--out", "data.csv"], "must not be written to"),
        (["score", "ckpt.csv", "test", "--out", "ckpt.csv"], "must not be written to"),
        (["score", "CKPT", "loop.csv", "--out", "new/s.csv"], "there is no 'loop.csv'"),
        (
            ["score", "CKPT", "test", "--out", "pipe.csv"],
            "--out must name a regular file or a new one",
        ),
        (["score", "CKPT", "test", "--out", "data.csv/s.csv"], "data.csv': Not a directory"),
        (["score", "CKPT", "test", "--out", f"new/{'n' * 252}.csv"], "at most 255 bytes"),
        (["score", "CKPT", "test", "--out", f"{'n/' * 2100}s.csv"], "in a path of at most 4000"),
        (
            ["score", "CKPT", "test", "--out", "new/\udcff.csv"],
            r"a name in UTF-8, got 'new/\udcff.csv'",
        ),
        (["score", "CKPT", "missing.csv", "--out", "new/s.csv"], "missing.csv"),
        (["sample", "CKPT", "--out", "new/s.png"], "must be images"),
        (["sample", "missing.ckpt", "--out", "new/s.png"], "missing.ckpt"),
        (["export", "CKPT", "--out", "new/s.onnx"], "one-step student"),
        (["export", "CKPT", "--out", "run"], "--out must be a new folder, got 'run'"),
        (["evaluate", "missing.ckpt", "--out", "new"], "missing.ckpt"),
        (["evaluate", "CKPT", "--out", "data.csv"], "cannot write to the folder 'data.csv'"),
        (
            [
                "detect",
                "data.csv",
                "--score",
                "data.npz",
                "--out",
                "new/s.csv",
                "--save",
                "data.csv",
            ],
            "cannot write",
        ),
        (
            ["detect", "data.csv", "--score", "soft.csv", "--out", "hard.csv"],
            "must not be written to",
        ),
        (
            [
                "detect",
                "data.csv",
                "--score",
                "missing.csv",
                "--out",
                "new/s.csv",
                "--save",
                "new/kept",
            ],
            "missing.csv",
        ),
    ],
    ids=lambda value: (
        "-".join([value[0], value[-1][:20]]).replace("/", "_") if isinstance(value, list) else ""
    ),
)
def test_refusals(
    args: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(folder)
    assert main(["run/last.ckpt" if word == "CKPT" else word for word in args]) in (1, 2)
    assert words in capsys.readouterr().err
    assert content(folder) == before
    assert not Path("new").exists()


def test_results_are_replaced_and_links_stay(folder: Path) -> None:
    Path("there.csv").write_text("old")
    Path("link.csv").symlink_to("there.csv")
    args = ["score", "run/last.ckpt", "test", "--out"]
    assert main([*args, "link.csv"]) == 0
    assert Path("link.csv").is_symlink()
    assert "joint" in Path("there.csv").read_text()
    assert main([*args, "made/for/it.csv"]) == 0
    long = "n" * 250 + ".csv"  # as long as a name may be, but for what a temporary name adds
    assert main([*args, long]) == 0
    assert Path(long).read_text() == Path("there.csv").read_text()
    assert not list(folder.rglob("*.tmp"))


def test_home_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert main(["score", "~/run/last.ckpt", "~/data.npz", "--out=~/home.csv"]) == 0
    assert Path("home.csv").is_file()
    assert not Path("~").exists()
    before = Path("home.csv").read_text()
    for args in (
        ["score", "~/run/last.ckpt", "~/home.csv"],
        ["detect", "~/home.csv", "--score", "~/data.npz"],
    ):
        assert main([*args, "--out=~/home.csv"]) > 0
    assert Path("home.csv").read_text() == before


def test_a_failed_command_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no space left on device")

    before = content(folder)
    monkeypatch.setattr(np, "savez", fail)
    assert main(["sample", "run/last.ckpt", "--out", "new/deep/x.npz"]) == 1
    assert content(folder) == before
    assert not Path("new").exists()


def test_folders_that_were_there_stay(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_path(tmp_path / "x.txt") as path:
            path.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert tmp_path.is_dir()
    assert not list(tmp_path.iterdir())


def test_images_in_a_folder_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="must not be written to"):
        check_apart([tmp_path / "a.png"], [tmp_path])
    check_apart([tmp_path / "new.png", tmp_path / "a.csv"], [tmp_path])


def test_write_protected_files_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.csv"
    path.touch(0o444)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write to everything
    with pytest.raises(PermissionError, match="write-protected"):
        check_output(path, (".csv",))


def test_places_are_not_made(tmp_path: Path) -> None:
    assert check_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert check_new(tmp_path / "a") == tmp_path / "a"
    check_output(tmp_path / "a" / "s.csv", (".csv",))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [atomic_path, atomic_folder])
def test_old_drafts_of_killed_processes_go(
    write: Callable[[Path], AbstractContextManager[Path]], tmp_path: Path
) -> None:
    """Of the same place alone, and not a young one, which another process may be writing."""
    digits = "0123456789abcdef"
    names = [f".out.{digits}.tmp", f".out.{digits[::-1]}.tmp", f".other.{digits}.tmp"]
    for name, age in zip(names, (4000, 0, 4000), strict=True):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("x")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    with write(tmp_path / "out") as draft:
        if write is atomic_path:
            draft.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["out", *names[1:]])
