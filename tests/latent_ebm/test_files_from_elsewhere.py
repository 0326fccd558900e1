"""Files as spreadsheets, instruments, databases and cameras write them."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from latent_ebm.files import Reader, Rows, read_images
from latent_ebm.files.masks import read_opacity


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(content: str | bytes, sep: str | None = None, features: list[str] | None = None) -> Rows:
    Path("t.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return Reader(sep=sep).read("t.csv", features)


@pytest.mark.parametrize(
    "above",
    [
        "SEP=;\n",
        '"sep=;"\r\n',
        "# instrument, 7; 8\n# 2024-05-01\n",
        "% a; b\n% written by hand\n\n",
    ],
)
def test_what_stands_above_a_table(above: str) -> None:
    rows = read(f"{above}a;b\n1,5;2\n-3;4,25\n")
    assert (rows.x.tolist(), rows.names) == ([[1.5, 2], [-3, 4.25]], ["a", "b"])
    assert rows.call(0) == f"line {above.count(chr(10)) + 2}"
    assert any("above the table is left out" in note for note in rows.notes)


def test_the_separator_that_a_line_says() -> None:
    assert read("sep=|\na|b\n1|2\n").names == ["a", "b"]
    assert read("sep=\t\na b\tc,d\n1\t2\n").names == ["a b", "c,d"]


def test_separators_inside_names() -> None:
    assert read("a;x,b\n1,2\n").names == ["a;x", "b"]
    assert read("a, m;b\n1,5;2\n").x.tolist() == [[1.5, 2]]


@pytest.mark.parametrize("mark", ["#", "# ", "%"])
def test_the_last_comment_may_be_the_header(mark: str) -> None:
    rows = read(f"# run 7\n{mark}a,b\n1,2\n3,4\n")
    assert rows.x.tolist() == [[1, 2], [3, 4]]
    assert (rows.names, rows.has_header, rows.call(0)) == (["a", "b"], True, "line 3")
    assert read("\n# a,b\n\n1,2\n").names == ["a", "b"]
    assert read("#5,6\n1,2\n").names == ["column 1", "column 2"]
    read("# a,b\n1,2\n")
    assert [len(Reader(header=header).read("t.csv").x) for header in (True, False)] == [1, 1]
    assert Reader(header=True).read("t.csv").names == ["a", "b"]
    np.savetxt("t.csv", [[1, 2], [3, 4]], header="x y")
    assert Reader().read("t.csv").names == ["x", "y"]
    assert read("# x y z\n1 2\n3 4\n").x.tolist() == [[1, 2], [3, 4]]


def test_text_of_spreadsheets_that_is_not_utf_8() -> None:
    rows = read("größe [µm];straße\n1,5;2\n".encode("cp1252"))
    assert (rows.names, rows.x.tolist()) == (["größe [µm]", "straße"], [[1.5, 2]])
    assert any("Windows-1252" in note for note in rows.notes)
    with pytest.raises(ValueError, match="must hold a table of text"):
        read(b"a,b\n1,2\x81\n")


def test_lines_that_are_no_rows() -> None:
    with pytest.raises(
        ValueError,
        match="line 2, column 'a' must be a number, got 'mm'; delete the line if it is not a row",
    ):
        read("a,b\nmm,kg\n1,2\n")
    with pytest.raises(
        ValueError, match="line 4, column 'a' must be a number, got '# end'; delete the line"
    ):
        read("a,b\n1,2\n\n# end\n")
    with pytest.raises(ValueError, match="line 2, column 'a' must be a number, got '5%'; --drop"):
        read("a,b\n5%,6%\n7%,8%\n")
    with pytest.raises(
        ValueError, match="expected 1 fields in line 3, saw 2; titles above the table"
    ):
        read("Results\n\na,b\n1,2\n")
    two = pd.DataFrame([[1.0, 2], [3, 4]], columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)]))
    with pytest.raises(
        ValueError,
        match="line 2, column 'Unnamed: 0' must name the row, got nothing: a second header",
    ):
        read(two.to_csv())


def test_indices_of_several_levels_and_columns_that_count() -> None:
    table = pd.DataFrame(
        {"a": np.arange(8.0) ** 2, "b": 1.5}, pd.MultiIndex.from_product([[1, 2], [1, 2, 3, 4]])
    )
    assert read(table.to_csv()).names == ["a", "b"]
    counted = table.reset_index(drop=True).rename_axis("Nr")
    assert read(counted.to_csv()).ids == [str(i) for i in range(8)]
    assert read(counted[:7].to_csv()).names == ["Nr", "a", "b"]  # may be chance
    assert read(counted[:7].to_csv(), features=["b", "a"]).names == ["b", "a"]
    assert read(counted.to_csv(), features=["Nr", "b", "a"]).names == ["Nr", "b", "a"]


@pytest.mark.parametrize(
    "cells",
    [
        ["1\u00a0234,5", "3\u202f000,1"],
        ["<0.5", "<0.7"],
        ["5 m2", "6 m2"],
        ["1'000", "2'500"],
        ["−1", "−2"],
    ],
)
def test_numbers_in_other_dress_are_no_names(cells: list[str]) -> None:
    with pytest.raises(ValueError, match="line 2, column 'a' must be a number, got"):
        read(pd.DataFrame({"a": cells, "b": [1, 2]}).to_csv(index=False))


def test_cells_of_databases() -> None:
    pytest.importorskip("pyarrow")
    table = pd.DataFrame({"a": [Decimal("1.5"), Decimal(2)], "b": [True, None]})
    table.to_parquet("t.parquet")
    assert Reader(missing="drop").read("t.parquet").x.tolist() == [[1.5, 1]]
    table.assign(b=[[1, 2], [1, 2]]).to_parquet("t.parquet")
    with pytest.raises(ValueError, match="row 0, column 'b' must be a number"):
        Reader().read("t.parquet")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_images_are_turned_as_cameras_say(suffix: str) -> None:
    image = Image.new("L", (24, 16))
    image.paste(255, (0, 0, 24, 8))  # bright above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right: bright on the right
    Path("folder").mkdir()
    image.save(f"folder/a.{suffix}", exif=exif)
    rows = read_images(Path("folder"))
    assert rows.x.shape == (1, 1, 24, 16)
    assert rows.x[..., 9:].mean() > 0.95
    assert rows.x[..., :7].mean() < -0.95
    assert rows.notes == ["1 of 1 images are turned as their EXIF data say"]


@pytest.mark.parametrize("late", [False, True])
def test_a_picture_and_its_opacity_are_turned_alike(late: bool, tmp_path: Path) -> None:
    """EXIF data may lie behind the pixels of a PNG file, where a header does not show them."""
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:8] = 255, 0, 0, 255  # opaque and red above
    exif, path = Image.Exif(), tmp_path / "a.png"
    exif[0x0112] = 3  # to be turned upside down
    Image.fromarray(pixels).save(path, exif=exif)
    if late:
        content = path.read_bytes()
        begin = content.index(b"eXIf") - 4
        end = begin + 12 + int.from_bytes(content[begin : begin + 4], "big")
        chunk, rest = content[begin:end], content[:begin] + content[end:]
        path.write_bytes(rest[:-12] + chunk + rest[-12:])
    red = read_images(tmp_path).x[0, 1] < 0  # white has green, red has none
    opaque = read_opacity([path], 16)
    assert opaque is not None
    assert (red == (opaque[0, 0] > 0)).all()
    assert red.sum() == 128


def test_the_first_of_several_pictures() -> None:
    Path("folder").mkdir()
    first, other = Image.new("L", (8, 8), 255), Image.new("L", (8, 8))
    first.save("folder/a.tif", save_all=True, append_images=[other])
    rows = read_images(Path("folder"))
    assert (rows.x == 1).all()
    assert rows.notes == ["1 of 1 images have several pictures, of which the first is read"]
