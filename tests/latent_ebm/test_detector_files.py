"""A saved detector is one file: the same detector, or a sentence; the old one or the new one,
never a mixture.
"""

import copy
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors import safe_open
from safetensors.torch import save
from sklearn.exceptions import NotFittedError

from latent_ebm.cli import main
from latent_ebm.detection import LatentEBMDetector, files
from latent_ebm.detection.files import FILE_NAME, load_detector, save_detector
from latent_ebm.detection.parts import HIDDEN
from latent_ebm.networks import EnergyMLP

IMAGES = {"image_shape": (1, 8, 8), "max_steps": 2, "latent_dim": 3, "channels": 4}


def rows(num: int, dim: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num, dim))


def quick(**options: Any) -> LatentEBMDetector:
    return LatentEBMDetector(**{"random_state": 0, **options})


@pytest.fixture(scope="module")
def old() -> LatentEBMDetector:
    return quick().fit(rows(20))


@pytest.fixture(scope="module")
def new() -> LatentEBMDetector:
    return quick().fit(5 + rows(25))


OPTIONS = {
    "stages": {},
    "elbo": {"energy": "elbo"},
    "contamination": {"contamination": 0.1},
    "images": IMAGES,
}


@pytest.mark.filterwarnings("ignore:.*litlogger")
@pytest.mark.parametrize("kind", OPTIONS)
def test_a_loaded_detector_is_the_saved_one(kind: str, tmp_path: Path) -> None:
    X = np.tanh(rows(60, 64)) if kind == "images" else rows(60, 7)
    detector = quick(**OPTIONS[kind]).fit(X)
    if kind == "stages":
        prior: Any = detector.views_[0].prior
        prior.append(EnergyMLP(7, HIDDEN, "silu").double().requires_grad_(False), 0.5, 0.1)
    detector.save(tmp_path / "new" / "detector")
    assert os.listdir(tmp_path / "new" / "detector") == [FILE_NAME]
    twin = LatentEBMDetector.load(tmp_path / "new" / "detector")
    assert twin.get_params() == detector.get_params()
    assert vars(twin).keys() == vars(detector).keys()
    assert_array_equal(twin.score_samples(X), detector.score_samples(X))
    assert_array_equal(twin.predict(X), detector.predict(X))
    assert_array_equal(twin.explain(X[:5]).contribution, detector.explain(X[:5]).contribution)
    assert_array_equal(
        twin.partial_fit(X[:9]).score_samples(X), detector.partial_fit(X[:9]).score_samples(X)
    )


def test_what_a_folder_keeps_of_parameters(tmp_path: Path, new: LatentEBMDetector) -> None:
    detector = quick(
        random_state=np.random.RandomState(0),
        latent_dim=np.int64(3),
        contamination=np.float64(0.1),
    )
    detector.fit(rows(40)).save(tmp_path)
    loaded = LatentEBMDetector.load(str(tmp_path))
    assert (loaded.random_state, loaded.latent_dim, loaded.contamination) == (None, 3, 0.1)
    save_detector(
        new, tmp_path, {"columns": ["a", "é"], "scores": [0.1, -2.0]}
    )  # over the old one
    loaded, notes = load_detector(LatentEBMDetector, tmp_path)
    assert (loaded.latent_dim, notes) == (64, {"columns": ["a", "é"], "scores": [0.1, -2.0]})
    with pytest.raises(NotFittedError):
        quick().save(tmp_path)


class Killed(BaseException):
    pass


def kill(*_: object) -> None:
    raise Killed


def write_half(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    raise Killed


def replace_then_kill(source: Path, target: Path) -> None:
    os.rename(source, target)
    raise Killed


KILL_POINTS: dict[str, tuple[Any, str, Callable[..., None]]] = {
    "before writing": (Path, "write_bytes", kill),
    "while writing": (Path, "write_bytes", write_half),
    "before renaming": (os, "replace", kill),
    "after renaming": (os, "replace", replace_then_kill),
}


@pytest.mark.parametrize("first", [False, True], ids=["over another", "into a new folder"])
@pytest.mark.parametrize("point", KILL_POINTS)
def test_a_kill_leaves_the_old_detector_or_the_new_one(
    point: str, first: bool, tmp_path: Path, old: LatentEBMDetector, new: LatentEBMDetector
) -> None:
    if not first:
        save_detector(old, tmp_path, {"scores": "old"})
    with pytest.MonkeyPatch.context() as patch:
        place, name, action = KILL_POINTS[point]
        patch.setattr(place, name, action)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process does not clean up
        with pytest.raises(Killed):
            save_detector(new, tmp_path, {"scores": "new"})
    if point == "after renaming":
        assert_is(tmp_path, new, "new")
    elif first:
        with pytest.raises(FileNotFoundError):
            LatentEBMDetector.load(tmp_path)
    else:
        assert_is(tmp_path, old, "old")
    save_detector(new, tmp_path, {"scores": "newer"})  # what is left over is in nobody's way
    assert_is(tmp_path, new, "newer")


def test_a_leftover_does_not_stop_the_command_and_goes_in_time(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    for name, age in (
        ("old", 4000),
        ("new", 0),
    ):  # the new one may be another's, still being written
        draft = kept / f".{FILE_NAME}.{name}.tmp"
        draft.write_bytes(b"half")
        os.utime(draft, (time.time() - age,) * 2)
    np.save(tmp_path / "x.npy", rows(40))
    train, out = str(tmp_path / "x.npy"), str(tmp_path / "out.csv")
    assert main(["detect", train, "--score", train, "--out", out, "--save", str(kept)]) == 0
    assert load_detector(LatentEBMDetector, kept)[1]["columns"]
    assert sorted(os.listdir(kept)) == [f".{FILE_NAME}.new.tmp", FILE_NAME]


def assert_is(folder: Path, detector: LatentEBMDetector, scores: str) -> None:
    loaded, notes = load_detector(LatentEBMDetector, folder)
    assert_array_equal(loaded.rows_, detector.rows_)
    assert notes == {"scores": scores}


def test_two_saves_at_once_do_not_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: LatentEBMDetector, new: LatentEBMDetector
) -> None:
    replace = os.replace

    def after_another(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "replace", replace)
        save_detector(new, tmp_path, {"scores": "new"})
        assert_is(tmp_path, new, "new")
        replace(source, target)

    monkeypatch.setattr(os, "replace", after_another)
    save_detector(old, tmp_path, {"scores": "old"})
    assert_is(tmp_path, old, "old")
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_a_failed_write_leaves_the_old_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: LatentEBMDetector, new: LatentEBMDetector
) -> None:
    save_detector(old, tmp_path, {"scores": "old"})
    broken = copy.deepcopy(new)
    broken.offset_ = float("nan")
    with pytest.raises(ValueError, match="not JSON compliant"):
        broken.save(tmp_path)

    def fail(self: Path, content: bytes) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        new.save(tmp_path)
    assert_is(tmp_path, old, "old")
    assert os.listdir(tmp_path) == [FILE_NAME]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def cut_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def edit_text(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"latent_dim", b"latent_din"))


def remake(
    change: Callable[[dict[str, Any], dict[str, torch.Tensor]], Any], honest: bool = True
) -> Callable[[Path], None]:
    """Write the file again with a changed record, or tensors, and (if ``honest``) the hash that
    belongs to it.
    """

    def spoil(path: Path) -> None:
        with safe_open(path, "pt") as file:
            record = json.loads(file.metadata()[files.KEY])
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        kept = record.pop("sha256")
        change(record, tensors)
        record["sha256"] = files.fingerprint(record, tensors) if honest else kept
        path.write_bytes(save(tensors, {files.KEY: json.dumps(record)}))

    return spoil


HUGE = {"image_shape": [1, 10**6, 10**6], "latent_dim": 10**9}
SPOILS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: path.unlink(), "saved detector"),
    "empty": (lambda path: path.write_bytes(b""), "detector as this version saves it"),
    "text": (
        lambda path: path.write_text("not a detector, not at all"),
        "detector as this version saves it",
    ),
    "cut": (cut, "detector as this version saves it"),
    "cut header": (cut_header, "detector as this version saves it"),
    "flipped": (flip, "it is damaged"),
    "edited text": (edit_text, "it is damaged"),
    "other tensors": (
        lambda path: path.write_bytes(save({"a": torch.zeros(2)})),
        "must be of format",
    ),
    "not JSON": (
        lambda path: path.write_bytes(save({"a": torch.zeros(2)}, {files.KEY: "{"})),
        "detector as this version",
    ),
    "list": (
        lambda path: path.write_bytes(save({"a": torch.zeros(2)}, {files.KEY: "[]"})),
        "must be of format",
    ),
    "edited offset": (
        remake(lambda r, t: r["numbers"].update(offset_=3.0), honest=False),
        "it is damaged",
    ),
    "offset NaN": (
        remake(lambda r, t: r["numbers"].update(offset_=float("nan"))),
        "must be finite, got NaN",
    ),
    "offset 1e999": (
        remake(lambda r, t: r["numbers"].update(offset_=float("inf"))),
        "must be finite, got Infinity",
    ),
    "offset text": (
        remake(lambda r, t: r["numbers"].update(offset_="x")),
        "offset_ must be a finite number",
    ),
    "no offset": (remake(lambda r, t: r["numbers"].clear()), "no 'offset_'"),
    "other format": (remake(lambda r, t: r.update(format="other 7")), "must be of format"),
    "other class": (
        remake(lambda r, t: r.update({"class": "Forest"})),
        "must hold a LatentEBMDetector, got a Forest",
    ),
    "other parameters": (remake(lambda r, t: r.update(parameters={"depth": 3})), "depth"),
    "parameters that are none": (
        remake(lambda r, t: r.update(parameters=3)),
        "detector as this version",
    ),
    "huge sizes": (remake(lambda r, t: r["parameters"].update(HUGE)), "detector as this version"),
    "NaN weights": (
        remake(lambda r, t: t["views_.0.prior.base.exemplars"].fill_(torch.nan)),
        "scores must be finite",
    ),
    "a method": (
        remake(lambda r, t: r["numbers"].update(get_params=1)),
        "names that end with _, got 'get_params'",
    ),
    "fewer tensors": (remake(lambda r, t: t.pop("scaler_.mean_")), "detector as this version"),
}


@pytest.mark.parametrize("name", SPOILS)
def test_files_that_hold_no_detector(name: str, tmp_path: Path, old: LatentEBMDetector) -> None:
    old.save(tmp_path)
    spoil, message = SPOILS[name]
    spoil(tmp_path / FILE_NAME)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        LatentEBMDetector.load(tmp_path)
    assert str(tmp_path / FILE_NAME) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        LatentEBMDetector.load(tmp_path / "nowhere")
