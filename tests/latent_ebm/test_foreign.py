"""Files from elsewhere: whatever is wrong with one is one sentence."""

import os
import zipfile
from pathlib import Path

import pytest
import yaml

from latent_ebm.foreign import check_file, check_yaml, check_zip, read_json, reading


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
        (RuntimeError("Error(s):\n\tMissing key.\n\tExtra key."), r"Error\(s\): Missing key\."),
        (KeyError("weights"), "no 'weights'"),
        (RecursionError("maximum recursion depth exceeded"), "it is nested too deeply"),
        (MemoryError(), "it asks for more memory than there is"),
        (EOFError(), "EOFError"),
        (ValueError("x" * 1000), "x" * 200 + r"\.\.\."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_is_one_sentence(error: Exception, text: str) -> None:
    with (
        pytest.raises(ValueError, match=f"^a.ckpt must hold a checkpoint: {text}$"),
        reading("a.ckpt", "a checkpoint"),
    ):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "denied", "a.ckpt"),
        ImportError("needs h5py"),
        ValueError("a.ckpt: bad"),
    ],
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
    with pytest.raises(
        ValueError, match=r"a\.npz must hold at most 999,999 bytes when unpacked, got 1,000,000"
    ):
        check_zip(path, 10**6 - 1)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        ValueError, match=r"a\.npz must hold a zip archive: File is not a zip file"
    ):
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


def laughs(levels: int, width: int = 10) -> str:
    """``width ** levels`` values in ``levels`` lines."""
    lines = ["a0: &a0 [0]"] + [
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels + 1)
    ]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs(9), "YAML must hold at most 100,000 values, aliases written out, got"),
        (laughs(99, 2), "YAML must hold at most 100,000 values"),
        (laughs(200, 1), "YAML must nest at most 100 deep, got 101"),
        ("a: &a [1, *a]", r"YAML must not hold a value inside itself, got \*a"),
        (
            "[" * 900,
            "YAML must nest at most 100 deep, got 101",
        ),  # the parser itself may stop at 1,000
        (
            "\n".join(" " * i + "a:" for i in range(500)),
            "YAML must nest at most 100 deep, got 101",
        ),
        ("a: " + "9" * 10**6, "YAML must have values of at most 2,048 characters, got 1,000,000"),
        ("[" + "0," * 200_000 + "]", "YAML must hold at most 100,000 values"),
        ("a" * 10**7, "YAML must have at most 1,048,576 characters, got 10,000,000"),
    ],
    ids=["laughs", "doubling", "chain", "inside", "brackets", "indents", "digits", "list", "text"],
)
def test_yaml_that_is_larger_than_it_looks(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_yaml(text)


def test_yaml_of_honest_size_passes() -> None:
    text = "a: &a {x: [1, 2]}\nb: [*a, *a]\n<<: *a\n"
    assert yaml.safe_load(check_yaml(text))["x"] == [1, 2]
    assert check_yaml(laughs(3)) == laughs(3)
    assert check_yaml("[" * 100 + "]" * 100)
