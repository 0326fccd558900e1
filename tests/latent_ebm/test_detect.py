"""``latent-ebm detect``: what it finds and writes, and that it writes nothing when something is
wrong.
"""

import csv
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latent_ebm.cli import calibrated, detect, main
from latent_ebm.cli.entry import make_parser
from latent_ebm.cli.tables import read_table
from latent_ebm.detection import LatentEBMDetector
from latent_ebm.detection.checks import ENERGIES
from latent_ebm.detection.files import load_detector, save_detector
from latent_ebm.files import Reader, read_images

COLUMNS = ["flow", "pressure <b>bold</b>", "heat"]
ARGS = ["--score", "new.csv", "--out", "scores.csv", "--report", "report.html"]


def make_rows(num: int, seed: int) -> np.ndarray:
    """Correlated normal rows of quite different units."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(num, 2))
    return np.column_stack(
        [100 + 5 * z[:, 0], z[:, 1], 1e-3 * (z[:, 0] - z[:, 1] + 0.1 * rng.normal(size=num))]
    )


def write_csv(path: str, rows: np.ndarray, columns: list[str] | None = COLUMNS) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(([columns] if columns else []) + rows.tolist())


def read_csv(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_images(folder: str, num: int, shape: tuple[int, ...] = (8, 8), seed: int = 0) -> None:
    Path(folder).mkdir()
    for i, pixels in enumerate(
        np.random.default_rng(seed).integers(0, 256, (num, *shape), dtype=np.uint8)
    ):
        Image.fromarray(pixels).save(Path(folder) / f"{i:03}.png")


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """One line on stderr, but for those on progress, that holds every one of ``words``."""
    (line,) = [
        line
        for line in capsys.readouterr().err.splitlines()
        if not line.startswith("latent-ebm: fitting")
    ]
    assert line.startswith("latent-ebm: error: ")
    assert all(word in line for word in words), line


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv("train.csv", make_rows(100, seed=0))
    new = make_rows(20, seed=1)
    new[7, 1] = 40.0  # far out
    new[11, 2] = -new[11, 2] + 0.01  # in range, but against the correlation
    write_csv("new.csv", new)


def test_planted_rows_stand_out_and_are_explained() -> None:
    assert main(["detect", "train.csv", *ARGS, "--alpha", "0.25"]) == 0
    rows = read_csv("scores.csv")
    assert list(rows[0]) == ["row", "score", "p_value", "outlier", "selected"]
    assert [row["row"] for row in rows] == [str(i + 2) for i in range(20)]  # lines of the file
    assert {7, 11} <= {i for i, row in enumerate(rows) if row["selected"] == "1"}
    assert all((row["outlier"] == "1") == (float(row["p_value"]) <= 0.25) for row in rows)
    assert all(row["outlier"] == "1" for row in rows if row["selected"] == "1")
    page = Path("report.html").read_text()
    first = page[page.index("<article") : page.index("</article>")]
    assert ">line 9<" in first
    assert first.index("pressure &lt;b&gt;bold") < min(
        first.find("flow") % 10**6, first.find("heat") % 10**6
    )
    assert "100 rows of 3 columns" in page
    write_csv(
        "train.csv",
        np.column_stack([make_rows(100, seed=0), np.arange(100) % 2]),
        [*COLUMNS, "label"],
    )
    assert read_table(Path("train.csv")).notes == ["its labels are left out"]


def test_one_row_far_out_is_named_and_the_limits_are_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    new = make_rows(100, seed=0)[-20:]  # as normal as can be
    new[7, 1] = 40.0
    write_csv("new.csv", new)
    assert main(["detect", "train.csv", *ARGS]) == 0
    assert not any(row["selected"] == "1" for row in read_csv("scores.csv"))
    out = capsys.readouterr().out
    assert out.startswith(
        "0 of 20 stand out, 1 lies beyond every normal one (with 50 normal ones held out, 4 or "
        "more"
    )
    assert "with 199 a single one may be; --folds 10" in out
    page = Path("report.html").read_text()
    assert "<h1>1 of 20 rows lies beyond every normal row</h1>" in page
    assert "4 or more of the 20 must lie beyond every normal row before any is selected" in page
    write_csv(
        "train.csv", make_rows(400, seed=0)
    )  # 200 held out: p is 1 / 201, and .1 / 20 above it
    assert main(["detect", "train.csv", *ARGS]) == 0
    assert "9" in [row["row"] for row in read_csv("scores.csv") if row["selected"] == "1"]


def test_more_rows_are_held_out_where_that_lets_one_be_selected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibrated, "MAX_HELD_OUT", 10)
    assert main(["detect", "train.csv", *ARGS, "--alpha", "0.9", "--save", "kept"]) == 0
    assert (
        len(load_detector(LatentEBMDetector, "kept")[1]["normal_scores"]) == 22
    )  # 20 / .9, rounded up, less one


def test_folds_hold_out_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", "train.csv", *ARGS, "--folds", "4"]) == 0
    assert min(float(row["p_value"]) for row in read_csv("scores.csv")) == pytest.approx(
        1 / 101, rel=1e-4
    )
    assert "the model was fitted 4 times" in Path("report.html").read_text()
    capsys.readouterr()
    for options, words in (
        (["--folds", "1"], ["--folds must be between 2 and the 100 rows", "got 1"]),
        (["--folds", "4", "--save", "kept"], ["--save must be left out with --folds"]),
        (["--max-steps", "9"], ["--max-steps must be left out for tables, got 9"]),
        (["--encoder", "rule.ckpt"], ["--encoder must be left out for tables, got rule.ckpt"]),
    ):
        assert main(["detect", "train.csv", *ARGS, *options]) == 2
        refused(capsys, *words)


def test_normal_rows_in_a_telling_order_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    drifting = make_rows(100, seed=0)
    drifting[:, 1] += np.linspace(0, 9, 100)
    write_csv("train.csv", drifting)
    assert main(["detect", "train.csv", *ARGS, "--save", "kept"]) == 0
    assert (
        "latent-ebm: warning: The order of the normal rows is not random"
        in capsys.readouterr().err
    )
    assert "The order of the normal rows is not random" in Path("report.html").read_text()
    assert main(["detect", "kept", *ARGS]) == 0
    assert "warning: The order of the normal rows" in capsys.readouterr().err


def test_new_rows_from_elsewhere_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    write_csv("new.csv", make_rows(60, seed=1) + np.array([0, 2.0, 0]))
    assert main(["detect", "train.csv", *ARGS]) == 0
    assert "latent-ebm: warning: Of the 60 new rows" in capsys.readouterr().err
    assert "come from another source than the normal ones" in Path("report.html").read_text()


def test_p_values_compare_with_rows_that_the_model_has_not_seen() -> None:
    assert main(["detect", "train.csv", *ARGS, "--save", "kept"]) == 0
    detector = LatentEBMDetector.load("kept")
    fitted = detector.scaler_.inverse_transform(detector.rows_.numpy())
    train = Reader().read(Path("train.csv")).x
    seen = (np.abs(train[:, None] - fitted).max(2) < 1e-9).any(1)
    assert seen.sum() == 50
    normal = detector.score_samples(train[~seen])
    kept = load_detector(LatentEBMDetector, "kept")[1]["normal_scores"]
    np.testing.assert_allclose(np.sort(kept), np.sort(normal))
    scores = detector.score_samples(Reader().read(Path("new.csv")).x)
    p = (1 + (normal <= scores[:, None]).sum(1)) / 51
    np.testing.assert_allclose(
        [float(row["p_value"]) for row in read_csv("scores.csv")], p, rtol=1e-5
    )


def test_a_kept_detector_says_the_same() -> None:
    assert main(["detect", "train.csv", *ARGS, "--save", "kept"]) == 0
    first = Path("scores.csv").read_bytes(), Path("report.html").read_bytes()
    os.remove("train.csv")
    assert main(["detect", "kept", *ARGS]) == 0
    assert (Path("scores.csv").read_bytes(), Path("report.html").read_bytes()) == first


def test_the_seed_decides() -> None:
    found = []
    for seed in ("1", "1", "2"):
        assert main(["detect", "train.csv", *ARGS, "--seed", seed]) == 0
        found.append(Path("scores.csv").read_bytes())
    assert found[0] == found[1] != found[2]


def test_arrays_score_as_tables() -> None:
    assert main(["detect", "train.csv", *ARGS]) == 0
    table = [row.split(",")[1:] for row in Path("scores.csv").read_text().splitlines()]
    np.save("train.npy", Reader().read(Path("train.csv")).x)
    np.savez("new.npz", X=Reader().read(Path("new.csv")).x)
    assert main(["detect", "train.npy", "--score", "new.npz", "--out", "scores.csv"]) == 0
    assert [row.split(",")[1:] for row in Path("scores.csv").read_text().splitlines()] == table


@pytest.mark.filterwarnings("ignore:.*litlogger")
def test_images(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrated, "LatentEBMDetector", small_detector)
    write_images("train", 60)
    write_images("new", 5, seed=1)
    args = ["--out", "scores.csv", "--report", "report.html", "--max-steps", "2"]
    assert main(["detect", "train", "--score", "new", *args]) == 0
    assert [row["row"] for row in read_csv("scores.csv")] == [f"{i:03}.png" for i in range(5)]
    assert "003.png" in Path("report.html").read_text()
    assert capsys.readouterr().out.count("\n") == 1
    table = read_table(
        Path("new"), colour=True
    )  # grey images to be scored by a detector of coloured ones
    assert (table.shape, table.notes) == ((3, 8, 8), ["5 of 5 images of grey are read as RGB"])
    folder = Path("scores.csv").read_text().splitlines()
    np.save("train.npy", read_images(Path("train")).x[:, 0] * 100 + 7)  # another range of values
    np.save("new.npy", read_images(Path("new")).x.reshape(5, 64) * 100 + 7)
    assert (
        main(["detect", "train.npy", "--score", "new.npy", "--image-shape", "1", "8", "8", *args])
        == 0
    )
    arrays = Path("scores.csv").read_text().splitlines()
    for a, b in zip(folder[1:], arrays[1:], strict=True):
        assert float(a.split(",")[1]) == pytest.approx(float(b.split(",")[1]), rel=1e-4)


def test_an_encoder_of_a_checkpoint_sees_the_images(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    rules = [SimpleNamespace(encoder=torch.nn.Conv2d(1, 2, 8)), SimpleNamespace()]
    monkeypatch.setattr("latent_ebm.cli.checkpoints.load_rule", lambda path: (rules.pop(0), None))
    write_images("train", 40)
    write_images("new", 5, seed=1)
    args = ["detect", "train", "--score", "new", *ARGS[2:], "--encoder", "rule.ckpt"]
    assert main(args) == 0
    assert len(read_csv("scores.csv")) == 5
    capsys.readouterr()
    assert main(args) == 2
    refused(
        capsys, "--encoder must name a checkpoint with an encoder", "SimpleNamespace", "rule.ckpt"
    )
    assert main([*args, "--save", "kept"]) == 2
    refused(capsys, "--save must be left out with --encoder")


def small_detector(energy: str, **settings: object) -> LatentEBMDetector:
    return LatentEBMDetector(energy, latent_dim=2, channels=2, **settings)  # pyright: ignore


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["missing.csv", *ARGS], ["missing.csv"]),
        (["train.csv", "--score", "missing.csv", *ARGS[2:]], ["missing.csv"]),
        (
            ["nan.csv", *ARGS],
            ["nan.csv", "got 1 in 1 of 100 rows, the first in line 5", "--missing drop"],
        ),
        (["word.csv", *ARGS], ["word.csv, line 3", "column 'b'", "'abc'"]),
        (["binary.csv", *ARGS], ["binary.csv must hold numbers"]),
        (["nul.csv", *ARGS], ["nul.csv"]),
        (["wide.csv", *ARGS], ["new.csv must have 4 columns", "got 3"]),
        (["renamed.csv", *ARGS], ["new.csv must have the columns", "no 'flux' among 'flow'"]),
        (["train.xlsx", *ARGS], ["path must end in", "train.xlsx"]),
        (["few.csv", *ARGS], ["--alpha must be at least 0.333", "2 normal rows"]),
        (["one.csv", *ARGS], ["one.csv must hold at least 4 rows", "got 1"]),
        (["same.csv", *ARGS], ["two different rows"]),
        (["train.csv", *ARGS, "--alpha", "0.001"], ["--alpha must be at least 0.0196"]),
        (["train.csv", *ARGS, "--image-shape", "1", "2", "2"], ["images of shape (1, 2, 2)"]),
        (["train.csv", *ARGS[:2], "--out", "scores.txt"], ["--out must end with .csv"]),
        (["train.csv", *ARGS[:4], "--report", "r.pdf"], ["--report must end with .html"]),
        (["train.csv", *ARGS[:2], "--out", "/proc/scores.csv"], ["cannot write", "/proc"]),
        (["train.csv", *ARGS[:2], "--out", "train.csv"], ["train.csv", "must not be written to"]),
        (["train.csv", *ARGS[:2], "--out", "link.csv"], ["link.csv", "must not be written to"]),
        (
            ["train.csv", *ARGS, "--save", "empty/.."],
            ["--save must name another folder", "empty or one of"],
        ),
        (
            ["train.csv", *ARGS[:2], "--out", "kept/scores.csv", "--save", "kept"],
            ["--save must name a folder of its own"],
        ),
        (["train.csv", *ARGS, "--size", "8"], ["--size must be left out for tables"]),
        (
            ["train.csv", *ARGS, "--energy", "reconstruction"],
            ['energy must not be "reconstruction"', "3 columns"],
        ),
        (
            ["train.csv", *ARGS, "--drop=flow", f"--drop={COLUMNS[1]}", "--drop=heat"],
            ["a column of numbers, got none"],
        ),
        (
            ["plain", *ARGS],
            ["plain must hold a detector as detect --save wrote it", "it was saved in Python"],
        ),
        (["empty", *ARGS], ["empty must hold images"]),
        (
            ["train.csv", "--score", "grey", *ARGS[2:]],
            ["grey must hold rows of a table", "images of shape (1, 8, 8)"],
        ),
        (
            ["mixed", "--score", "grey", *ARGS[2:]],
            ["one size", "8 x 8", "9 x 9", "b.png", "--size 8"],
        ),
        (
            ["small", "--score", "small", *ARGS[2:]],
            ["image_shape", "H and W at least 8", "(1, 4, 4)"],
        ),
        (["broken", "--score", "grey", *ARGS[2:]], ["a.png must hold a plain image"]),
        (["other", *ARGS], ["other", "format 1, got format None"]),
    ],
    ids=lambda value: "-".join([value[0], *value[-1:]]).replace("/", "_").replace(" ", "_"),
)
def test_refusals(
    args: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bad_files()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["detect", *args]) == 2
    refused(capsys, *words)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def make_bad_files() -> None:
    rows = make_rows(100, seed=0)
    write_csv("nan.csv", np.where(np.arange(300).reshape(100, 3) == 10, np.nan, rows))
    Path("word.csv").write_text("a,b,c\n1,2,3\n1,abc,3\n")
    Path("binary.csv").write_bytes(b"\xff\xfe\x00\x01" * 9)
    Path("nul.csv").write_bytes(b"a,b,c\n1,2,3\x00\n")
    write_csv("wide.csv", np.hstack([rows, rows[:, :1]]), None)
    write_csv("renamed.csv", rows, ["flux", *COLUMNS[1:]])
    write_csv("few.csv", rows[:5])
    write_csv("one.csv", rows[:1])
    write_csv("same.csv", np.ones((60, 3)))
    Path("link.csv").symlink_to("train.csv")
    for folder in ("empty", "mixed", "broken", "other"):
        Path(folder).mkdir()
    write_images("grey", 3)
    write_images("small", 20, (4, 4))
    Image.new("L", (8, 8)).save("mixed/a.png")
    Image.new("L", (9, 9)).save("mixed/b.png")
    Path("broken/a.png").write_bytes(Path("grey/000.png").read_bytes()[:60])
    Path("other/config.json").write_text("{}")
    LatentEBMDetector().fit(rows).save("plain")


@pytest.mark.parametrize(("option", "value"), [("--energy", "prior"), ("--save", "more")])
def test_a_kept_detector_is_not_changed(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["detect", "train.csv", *ARGS, "--save", "kept"]) == 0
    capsys.readouterr()
    assert main(["detect", "kept", *ARGS, option, value]) == 2
    refused(capsys, f"{option} must be left out with a saved detector")


@pytest.mark.parametrize(
    "notes",
    [
        {},
        {"normal_scores": [1.0]},
        {"normal_scores": ["a"]},
        {"normal_scores": [[1.0]], "columns": []},
    ],
)
def test_a_folder_without_scores_of_normal_rows_is_refused(
    notes: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    save_detector(LatentEBMDetector(random_state=0).fit(make_rows(50, seed=0)), "kept", notes)
    assert main(["detect", "kept", *ARGS]) == 2
    refused(capsys, "kept must hold a detector as detect --save wrote it")


def test_notes_of_another_kind_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    detector = LatentEBMDetector(random_state=0).fit(make_rows(50, seed=0))
    good = {
        "normal_scores": [1.0] * 50,
        "columns": COLUMNS,
        "has_header": True,
        "facts": {},
        "warnings": [],
    }
    bad = {"columns": 3, "has_header": "x", "facts": 3, "warnings": "abc", "folds": 3}
    for name, value in bad.items():
        save_detector(detector, "kept", {**good, name: value})
        assert main(["detect", "kept", *ARGS]) == 2
        refused(capsys, "kept must hold a detector as detect --save wrote it", f"{name} must be")


def test_a_failed_report_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> str:
        raise RuntimeError("no page")

    monkeypatch.setattr(detect, "make_report", fail)
    assert main(["detect", "train.csv", *ARGS, "--save", "kept"]) == 1
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        "train.csv",
        "new.csv",
    }


@pytest.mark.parametrize("alpha", ["0", "1", "nan", "x"])
def test_levels(alpha: str) -> None:
    assert main(["detect", "train.csv", *ARGS, "--alpha", alpha]) == 2


def test_energies_are_the_detectors() -> None:
    for energy in ENERGIES:
        args = make_parser().parse_args(["detect", "train.csv", *ARGS, "--energy", energy])
        assert args.energy == energy
    assert main(["detect", "train.csv", *ARGS, "--energy", "total"]) == 2


def test_colours_of_images() -> None:
    Path("images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    for name in ("b.png", "a.BMP"):
        Image.fromarray(pixels).save(f"images/{name}")
    Path("images/notes.txt").write_text("not an image")
    x, names = (images := read_images(Path("images"))).x, images.ids
    assert names == ["a.BMP", "b.png"]
    assert x.shape == (2, 3, 4, 6)
    np.testing.assert_allclose(x[1], np.moveaxis(pixels, 2, 0) / 127.5 - 1)


def test_parquet() -> None:
    pd = pytest.importorskip("pandas", reason='needs the extra "parquet"')
    pytest.importorskip("pyarrow", reason='needs the extra "parquet"')
    pd.DataFrame({"a": [1, 2], "label": [0, 1], "b": [0.5, 2.0]}).to_parquet("rows.parquet")
    rows = Reader().read("rows.parquet")
    assert rows.x.tolist() == [[1, 0.5], [2, 2]]
    assert rows.label is not None
    assert (rows.label.tolist(), rows.names) == ([0, 1], ["a", "b"])
    pd.DataFrame({"a": [1, 2], "b": ["x", "x"]}).to_parquet("rows.parquet")
    with pytest.raises(ValueError, match="row 0, column 'b' must be a number, got 'x'"):
        Reader().read(Path("rows.parquet"))


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", "--help"]) == 0
    assert "usage: latent-ebm detect" in capsys.readouterr().out
