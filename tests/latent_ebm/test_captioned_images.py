"""A folder of images and their captions is read as it is, or refused in one sentence."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latent_ebm.data import CaptionedImages
from latent_ebm.text import WordTokenizer

NAMES = [f"{i}.png" for i in range(9)] + ["more/9.png"]
CAPTIONS = [f"shade {i}" for i in range(10)]
Rows = list[dict[str, object]]


def write(folder: Path, rows: Rows, kind: str = "csv") -> None:
    if kind == "jsonl":
        text = "\n".join(json.dumps(row) for row in rows)
        (folder / "captions.jsonl").write_text(text + "\n")
        return
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def rows() -> Rows:
    return [{"file": n, "caption": c} for n, c in zip(NAMES, CAPTIONS, strict=True)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten grey images, each of the shade that its caption says."""
    (tmp_path / "more").mkdir()
    for i, name in enumerate(NAMES):
        Image.fromarray(np.full((6, 6), 20 * i, np.uint8)).save(tmp_path / name)
    (tmp_path / "4.gif").write_bytes(b"GIF89a")
    return tmp_path


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_every_image_keeps_its_caption(folder: Path, kind: str) -> None:
    write(folder, rows()[::-1], kind)
    data = CaptionedImages(str(folder), size=4, num_test=2)
    data.setup()
    parts = (data.train, data.val, data.test)
    assert [len(part) for part in parts] == [7, 1, 2]
    seen = []
    for part in parts:
        for x, caption in zip(*part.rows(range(len(part))), strict=True):
            shade = int(caption.split()[1])
            assert x.shape == (3, 4, 4)
            assert torch.allclose(x, torch.tensor(20 * shade / 127.5 - 1))
            seen.append(shade)
    assert sorted(seen) == list(range(10))
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(batch.condition["tokens"], data.tokenizer(data.train.captions(batch.index)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_near_copies_stay_together(folder: Path, kind: str, seed: int) -> None:
    """Of ten images, seven are near copies in three clusters."""
    names = ["a", "a", "b", "", "b", "a", "", "", "c", "c"]
    write(folder, [row | {"cluster": c} for row, c in zip(rows(), names, strict=True)], kind)
    data = CaptionedImages(str(folder), num_val=2, num_test=2, seed=seed)
    data.setup()
    parts = [{int(text.split()[1]) for text in p.texts} for p in (data.train, data.val, data.test)]
    assert sorted(i for part in parts for i in part) == list(range(10))
    assert 1 <= len(parts[1]) <= 2 >= len(parts[2]) >= 1
    for cluster in ({0, 1, 5}, {2, 4}, {8, 9}):
        assert sum(bool(cluster & part) for part in parts) == 1


def test_clusters_that_fit_nowhere_are_refused(folder: Path) -> None:
    write(folder, [row | {"cluster": str(i // 2)} for i, row in enumerate(rows())])
    with pytest.raises(ValueError, match="num_val must be at least the size of a cluster"):
        CaptionedImages(str(folder)).setup()


def test_the_split_depends_on_the_seed_alone(folder: Path) -> None:
    write(folder, rows())
    texts = []
    for seed in (0, 0, 1):
        data = CaptionedImages(str(folder), seed=seed)
        data.setup()
        texts.append(data.train.texts)
    assert texts[0] == texts[1] != texts[2]


def change(i: int, **cells: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = rows()
        content[i] |= cells
        write(folder, content)

    return spoil


def corrupt(folder: Path) -> None:
    write(folder, rows())
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:40])


def no_image(folder: Path) -> None:
    write(folder, rows())
    (folder / "3.png").write_text("not a picture")


def latin(folder: Path) -> None:
    (folder / "captions.csv").write_bytes("file,caption\n0.png,caf\u00e9\n".encode("latin-1"))


def other_size(folder: Path) -> None:
    write(folder, rows())
    Image.new("L", (5, 6)).save(folder / "3.png")


def both(folder: Path) -> None:
    write(folder, rows())
    write(folder, rows(), "jsonl")


def missing(folder: Path) -> None:
    write(folder, rows())
    for name in NAMES[2:4]:
        (folder / name).unlink()


def text(content: str, name: str = "captions.csv") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing, r"captions.csv must name images that exist: 2 of 10 do not, the first '2.png'"),
        (change(4, file="3.png"), r"must name every image once, got '3.png' in rows 4 and 5"),
        (change(4, file="./3.png"), r"must name every image once, got '3.png' in rows 4 and 5"),
        (change(4, file="../a.png"), r"must name images inside its folder, got '../a.png'"),
        (change(4, caption=" "), r"captions.csv must hold a file and a caption .* row 5 has no"),
        (change(4, file=""), r"must hold a file and a caption per row: row 5 has no file"),
        (change(4, caption="a\x00b"), r"the caption of '4.png' in .* no control characters"),
        (change(4, caption="red " * 10_000), r"at most 256 words, unless .* got 10,000: 'red"),
        (change(4, file="4.gif"), r"must name images \(.png, .*\), got '4.gif'"),
        (latin, r"captions.csv must hold a file and a caption per row: 'utf-8' codec"),
        (corrupt, r"3.png must hold a plain image"),
        (no_image, r"3.png must hold a plain image"),
        (other_size, r"images must have one size .* --size 5"),
        (both, r"must hold one table of captions, got captions.csv and captions.jsonl"),
        (text("a.png,red\n"), r"its first line must name file and caption, got 'a.png,red'"),
        (text("file,caption\n"), r"must hold a file and a caption per row: it has no rows"),
        (text("[1]\n", "captions.jsonl"), r"each line must be an object of JSON, got a list"),
        (text("{\n", "captions.jsonl"), r"captions.jsonl must hold a file and a caption per row"),
        (text('{"file": 1}\n', "captions.jsonl"), r"row 1 has no file"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(folder)
    with pytest.raises(ValueError, match=message) as caught:
        CaptionedImages(str(folder)).setup()
    assert "\n" not in str(caught.value)


def test_a_folder_without_captions_is_refused(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"folder with captions.csv or captions.jsonl"):
        CaptionedImages(str(folder)).setup()


def test_images_without_a_caption_are_left_out_aloud(folder: Path) -> None:
    write(folder, rows()[:6])
    data = CaptionedImages(str(folder))
    with pytest.warns(UserWarning, match="4 images of .* have no caption and are left out"):
        data.setup()
    assert len(data.train) == 4


def test_captions_too_long_for_the_tokenizer_are_refused_before_training(folder: Path) -> None:
    write(folder, [*rows()[:9], {"file": NAMES[9], "caption": "shade " * 9}])
    data = CaptionedImages(str(folder), tokenizer=WordTokenizer(["shade"], max_words=8))
    with (
        pytest.raises(ValueError, match=r"prompts\[9\] must have at most 8 words, got 9"),
    ):
        data.setup()


def test_some_images_are_left_for_training(folder: Path) -> None:
    write(folder, rows())
    with pytest.raises(ValueError, match=r"below the number of images 10, got 1 \+ 9"):
        CaptionedImages(str(folder), num_test=9).setup()
