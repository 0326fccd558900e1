"""Images in files: both layouts say the same, splits are seeded and disjoint, and what is amiss is
named.
"""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latent_ebm.data import Images
from latent_ebm.data.images import PACKED, decode, list_images


def picture(value: int, size: int = 8) -> Image.Image:
    """An image of one colour, which JPEG keeps to a level or two."""
    return Image.fromarray(np.full((size, size, 3), value, np.uint8))


def values(part: str) -> list[tuple[int, int]]:
    """Colour and class of the images of ``part``."""
    return [(10 * i + (3 if part == "test" else 0), i % 3) for i in range(12)]


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    arrays = {}
    for part in ("train", "test"):
        files = []
        for value, _ in values(part):
            buffer = io.BytesIO()
            picture(value).save(buffer, "JPEG")
            files.append(buffer.getvalue())
        arrays[f"jpg_{part}"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"off_{part}"] = np.cumsum([0, *map(len, files)])
        arrays[f"y_{part}"] = np.array([label for _, label in values(part)], np.uint8)
    np.savez(tmp_path / PACKED, **arrays)
    return tmp_path / PACKED


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("train", "test"):
        for i, (value, label) in enumerate(values(part)):
            path = tmp_path / "pictures" / part / "abc"[label] / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(value).save(path)
    return tmp_path / "pictures"


def ready(*args, **kwargs) -> Images:
    data = Images(*args, **kwargs)
    data.setup()
    return data


def test_folder_and_packed_file_hold_the_same_images(packed: Path, folder: Path) -> None:
    for part in ("train", "test"):
        found = {}
        for source in (packed, folder):
            encoded, label = list_images(source, part)
            levels = ((decode(encoded)[:, 0, 4, 4] + 1) * 127.5).round()
            found[source] = sorted(zip(label.tolist(), levels.tolist(), strict=True))
        assert [label for label, _ in found[packed]] == [label for label, _ in found[folder]]
        assert np.allclose(found[packed], found[folder], atol=2)
        assert [level for _, level in found[folder]] == [
            v for v, _ in sorted(values(part), key=lambda v: v[::-1])
        ]


def test_splits_are_disjoint_seeded_and_of_the_chosen_classes(folder: Path) -> None:
    data = ready(str(folder), classes=[0, 2], num_val=2, num_train=5)
    assert [len(part) for part in (data.train, data.val, data.test)] == [5, 2, 8]
    assert data.train.x.shape[1:] == (3, 8, 8)
    assert set(data.test.label.tolist()) == {0, 2}
    levels = torch.cat([data.train.x, data.val.x])[:, 0, 0, 0]
    assert len(levels.unique()) == 7
    again, other = (
        ready(str(folder), classes=[0, 2], num_val=2, num_train=5, seed=seed) for seed in (0, 1)
    )
    assert torch.equal(again.train.x, data.train.x)
    assert not torch.equal(other.train.x, data.train.x)


def test_the_packed_file_is_found_by_the_environment(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENT_EBM_DATA", str(packed.parent))
    assert len(ready(num_val=2).train) == 10
    monkeypatch.delenv("LATENT_EBM_DATA")
    with pytest.raises(
        FileNotFoundError,
        match="or the environment variable LATENT_EBM_DATA a folder with cifar10",
    ):
        ready()
    (packed.parent / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError,
        match=r"path must name an \.npz of packed JPEGs or a folder with images, got",
    ):
        ready(str(packed.parent / "empty"))


def test_refusals(packed: Path, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"classes must be some of \[0, 1, 2\], got \[7\]"):
        ready(str(folder), classes=[7], num_val=1)
    with pytest.raises(
        ValueError, match="at most the 12 training images, and num_train at least 1, got 12 \\+ 1"
    ):
        ready(str(folder), num_train=12, num_val=1)
    picture(5, size=9).save(folder / "train" / "a" / "odd.png")
    with pytest.raises(ValueError, match=r"one size .* got .*8 x 8 of .*odd\.png; --size 8"):
        ready(str(folder), num_val=1)
    assert ready(str(folder), num_val=1, size=8).train.x.shape[1:] == (3, 8, 8)
    with np.load(packed) as data:
        arrays = dict(data)
    np.savez(packed, **{**arrays, "off_train": arrays["off_train"][:-1]})
    with pytest.raises(ValueError, match=r"off_train of .* must be 13 offsets that end at"):
        ready(str(packed), num_val=1)
    np.savez(packed, **{**arrays, "off_train": arrays["off_train"].astype(float)})
    with pytest.raises(
        ValueError, match="must be bytes, integers and integers, got uint8, float64 and uint8"
    ):
        ready(str(packed), num_val=1)
    np.savez(packed, **{name: array for name, array in arrays.items() if name != "y_train"})
    with pytest.raises(ValueError, match="got no y_train"):
        ready(str(packed), num_val=1)


@pytest.mark.parametrize("classes", ["", "ab"])
def test_a_folder_without_parts_is_split_by_chance(tmp_path: Path, classes: str) -> None:
    for i in range(20):
        path = tmp_path / "flat" / classes[i % 2 : i % 2 + 1] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(10 * i).save(path)
    data = ready(str(tmp_path / "flat"))
    assert [len(part) for part in (data.train, data.val, data.test)] == [14, 2, 4]
    level = {
        i: round(float(x[0, 0, 0] + 1) * 12.75)
        for i, x in enumerate(torch.cat([p.x for p in (data.train, data.val, data.test)]))
    }
    assert sorted(level.values()) == list(range(20))
    label = torch.cat([part.label for part in (data.train, data.val, data.test)]).tolist()
    assert label == [i % 2 if classes else -1 for i in level.values()]


def test_classes_have_one_number_in_both_parts(folder: Path) -> None:
    picture(200).save(folder / "train" / "a" / "more.png")
    (
        folder / "test" / "0crack"
    ).mkdir()  # a class of the test images alone, first in the order of names
    picture(100).save(folder / "test" / "0crack" / "x.png")
    (folder / "test" / "notes.txt").write_text("no image")
    data = ready(str(folder), num_val=1)
    assert set(data.train.label.tolist()) == {1, 2, 3}
    assert set(data.test.label.tolist()) == {0, 1, 2, 3}


def test_home_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    data = ready("~/pictures")
    assert len(data.train) == 11
    assert data.files == [folder]


def test_transparent_images_lie_on_white(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(path)
    assert ready(str(folder), num_val=1).train.x.min() == 1
