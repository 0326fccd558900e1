"""Files from elsewhere: whatever is wrong with one is one sentence."""

import os
import zipfile
from pathlib import Path

import pytest

from latent_ebm.foreign import check_file, check_zip, read_json, reading


def test_a_path_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert check_file("~/a.json") == tmp_path / "a.json"
    assert read_json("~/a.json") == {"a": 1}


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for name in (str(tmp_path / "none.csv"), "x" * 5000, "a\0b"):
        with pytest.raises(FileNotFoundError, match="path must name a table, but there is no "):
            check_file(name, "a table")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match="path must name a file, a regular file, got"):
            check_file(path)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("\n  PytorchStreamReader failed\n at line 1"), "PytorchStreamReader failed"),
        (KeyError("weights"), "no 'weights'"),
        (RecursionError("maximum recursion depth exceeded"), "it is nested too deeply"),
        (MemoryError(), "it asks for more memory than there is"),
        (EOFError(), "EOFError"),
        (ValueError("x" * 1000), "x" * 200 + r"\.\.\."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_is_one_sentence(error: Exception, text: str) -> None:
    with pytest.raises(ValueError, match=f"^a.ckpt must hold a checkpoint: {text}$"), reading("a.ckpt", "a checkpoint"):
        raise error


@pytest.mark.parametrize(
    "error", [PermissionError(13, "denied", "a.ckpt"), ImportError("needs h5py"), ValueError("a.ckpt: bad")]
)
def test_what_is_clear_already_passes(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, reading("a.ckpt", "a checkpoint"):
        raise error
    assert caught.value is error


def test_declared_sizes_of_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(10**6))
    assert path.stat().st_size < 10_000
    check_zip(path, 10**6)
    with pytest.raises(ValueError, match=r"a\.npz must hold at most 999,999 bytes when unpacked, got 1,000,000"):
        check_zip(path, 10**6 - 1)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"a\.npz must hold a zip archive: File is not a zip file"):
        check_zip(path, 10**6)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"{", "an object of JSON: Expecting"),
        (b"[1]", "an object of JSON, got a list"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "an object of JSON: Exceeds the limit"),
        (b"\xff\xfe", "an object of JSON: 'utf-8' codec"),
        (b" " * 101, "at most 100 bytes, got 101"),
    ],
    ids=["cut", "list", "deep", "digits", "encoding", "large"],
)
def test_broken_json(content: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json must h.*{text}"):
        read_json(path, max_bytes=100 if text.startswith("at most") else 10**6)
