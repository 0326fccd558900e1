"""A saved detector is a saved object: the same detector, or a sentence; the old one or the new
one, never a mixture.
"""

import copy
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors.torch import load_file, save
from sklearn.exceptions import NotFittedError

from latent_ebm import load
from latent_ebm.artefacts.folders import CONFIG, fingerprint
from latent_ebm.cli import main
from latent_ebm.detection import LatentEBMDetector
from latent_ebm.detection.files import load_detector, save_detector
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
    twin = load(tmp_path / "new" / "detector")
    assert type(twin) is LatentEBMDetector
    assert_same(LatentEBMDetector.load(tmp_path / "new" / "detector"), detector, X[:2])
    assert twin.get_params() == detector.get_params()
    assert vars(twin).keys() == vars(detector).keys()
    assert_array_equal(twin.score_samples(X), detector.score_samples(X))
    assert_array_equal(twin.predict(X), detector.predict(X))
    assert_array_equal(twin.explain(X[:5]).contribution, detector.explain(X[:5]).contribution)
    assert_array_equal(
        twin.partial_fit(X[:9]).score_samples(X), detector.partial_fit(X[:9]).score_samples(X)
    )


def test_a_detector_of_named_columns_loads_without_a_warning(tmp_path: Path) -> None:
    frame = pd.DataFrame(rows(20), columns=["a", "b", "c"])
    detector = quick().fit(frame)
    detector.save(tmp_path)
    twin = LatentEBMDetector.load(tmp_path)
    assert_array_equal(twin.score_samples(frame), detector.score_samples(frame))
    assert twin.feature_names_in_.tolist() == ["a", "b", "c"]


def test_updates_go_on_after_loading(tmp_path: Path) -> None:
    detector = quick(max_exemplars=20).fit(rows(20)).partial_fit(rows(9, seed=1))
    detector.save(tmp_path)
    twin, new = LatentEBMDetector.load(tmp_path), rows(9, seed=2)
    assert_array_equal(twin.partial_fit(new).rows_, detector.partial_fit(new).rows_)
    quick().fit(rows(20)).save(tmp_path)
    remake(lambda record, _: record["numbers"].pop("num_updates_"))(tmp_path)  # an older folder
    assert LatentEBMDetector.load(tmp_path).partial_fit(new).num_updates_ == 1


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


def kill(*_: object, **__: object) -> None:
    raise Killed


def write_half(path: Path, content: bytes | str, **_: object) -> None:
    with path.open("wb") as file:
        file.write((content if isinstance(content, bytes) else content.encode())[:50])
    raise Killed


KILL_POINTS: dict[str, tuple[Any, str, Callable[..., None]]] = {
    "before writing": (Path, "write_bytes", kill),
    "while writing the weights": (Path, "write_bytes", write_half),
    "before renaming": (os, "replace", kill),
    "between the files": (Path, "write_text", kill),
    "while writing the configuration": (Path, "write_text", write_half),
}


@pytest.mark.parametrize("first", [False, True], ids=["over another", "into a new folder"])
@pytest.mark.parametrize("point", KILL_POINTS)
def test_a_kill_leaves_the_old_detector_or_none(
    point: str, first: bool, tmp_path: Path, old: LatentEBMDetector, new: LatentEBMDetector
) -> None:
    """The scores it was calibrated with are never those of another fit."""
    if not first:
        save_detector(old, tmp_path, {"scores": "old"})
    with pytest.MonkeyPatch.context() as patch:
        place, name, action = KILL_POINTS[point]
        patch.setattr(place, name, action)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process does not clean up
        with pytest.raises(Killed):
            save_detector(new, tmp_path, {"scores": "new"})
    if first:
        with pytest.raises(FileNotFoundError):
            LatentEBMDetector.load(tmp_path)
    else:
        assert_is(tmp_path, old, "old")
    save_detector(new, tmp_path, {"scores": "newer"})  # what is left over is in nobody's way
    assert_is(tmp_path, new, "newer")


def test_a_leftover_does_not_stop_the_command_and_goes_in_time(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    drafts = [kept / f".config.json.{digit * 16}.tmp" for digit in "01"]
    for draft, age in zip(drafts, (4000, 0), strict=True):  # the new one may be another's
        draft.write_bytes(b"half")
        os.utime(draft, (time.time() - age,) * 2)
    np.save(tmp_path / "x.npy", rows(40))
    train, out = str(tmp_path / "x.npy"), str(tmp_path / "out.csv")
    assert main(["detect", train, "--score", train, "--out", out, "--save", str(kept)]) == 0
    assert load_detector(LatentEBMDetector, kept)[1]["columns"]
    assert [draft.exists() for draft in drafts] == [False, True]


def assert_is(folder: Path, detector: LatentEBMDetector, scores: str) -> None:
    loaded, notes = load_detector(LatentEBMDetector, folder)
    assert_array_equal(loaded.rows_, detector.rows_)
    assert notes == {"scores": scores}


def assert_same(twin: LatentEBMDetector, detector: LatentEBMDetector, x: np.ndarray) -> None:
    assert_array_equal(twin.score_samples(x), detector.score_samples(x))


def test_a_failed_write_leaves_the_old_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: LatentEBMDetector, new: LatentEBMDetector
) -> None:
    save_detector(old, tmp_path, {"scores": "old"})
    broken = copy.deepcopy(new)
    broken.offset_ = float("nan")
    with pytest.raises(ValueError, match="offset_ must be finite to be saved, got nan"):
        broken.save(tmp_path)

    def fail(self: Path, content: bytes) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        new.save(tmp_path)
    assert_is(tmp_path, old, "old")


def test_a_model_is_no_detector(tmp_path: Path) -> None:
    EnergyMLP(2, [3]).save(tmp_path)
    with pytest.raises(ValueError, match="must be a LatentEBMDetector, got a EnergyMLP"):
        LatentEBMDetector.load(tmp_path)


def remake(
    change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object],
) -> Callable[[Path], None]:
    """Write the files again with changed arguments and tensors, and the hashes that belong to
    them.
    """

    def spoil(folder: Path) -> None:
        record = json.loads((folder / CONFIG).read_text())
        tensors = load_file(folder / record["weights"]["file"])
        change(record["object"]["init_args"], tensors)
        content = save(tensors)
        digest = hashlib.sha256(content).hexdigest()
        record["weights"] = {"file": f"weights-{digest[:16]}.safetensors", "sha256": digest}
        (folder / record["weights"]["file"]).write_bytes(content)
        del record["sha256"]
        text = json.dumps({**record, "sha256": fingerprint(record)})
        (folder / CONFIG).write_text(text)

    return spoil


HUGE = {"image_shape": [1, 10**6, 10**6], "latent_dim": 10**9}
SPOILS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "edited offset": (
        lambda folder: (folder / CONFIG).write_text(
            (folder / CONFIG).read_text().replace('"offset_": -', '"offset_": ')
        ),
        "damaged or edited",
    ),
    "offset text": (remake(lambda r, t: r["numbers"].update(offset_="x")), "finite number"),
    "no offset": (remake(lambda r, t: r["numbers"].clear()), "no attribute 'offset_'"),
    "other parameters": (remake(lambda r, t: r["detector"]["init_args"].update(depth=3)), "depth"),
    "parameters that are none": (
        remake(lambda r, t: r.update(detector=3)),
        "detector must be Described",
    ),
    "huge sizes": (
        remake(lambda r, t: r["detector"]["init_args"].update(HUGE)),
        "that this version can load",
    ),
    "NaN weights": (
        remake(lambda r, t: t["views.0.prior.base.exemplars"].fill_(torch.nan)),
        "got NaN",
    ),
    "a method": (
        remake(lambda r, t: r["numbers"].update(get_params=1)),
        "names that end with _, got 'get_params'",
    ),
    "a part of a part": (
        remake(lambda r, t: r["numbers"].update({"scaler_.mean_.x_": 1})),
        "names that end with _",
    ),
    "fewer tensors": (remake(lambda r, t: t.pop("arrays.scaler_.mean_")), "stored tensors"),
    "views that are none": (remake(lambda r, t: r.update(views=[])), "is none of its conf"),
}


@pytest.mark.parametrize("name", SPOILS)
def test_folders_that_hold_no_detector(name: str, tmp_path: Path, old: LatentEBMDetector) -> None:
    old.save(tmp_path)
    spoil, message = SPOILS[name]
    spoil(tmp_path)
    for read in (load, LatentEBMDetector.load):
        with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
            read(tmp_path)
        assert str(tmp_path / CONFIG) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        LatentEBMDetector.load(tmp_path / "nowhere")
