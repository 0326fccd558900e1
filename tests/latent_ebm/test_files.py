"""Files of rows: what is decided by rule, what is said of it, and what is refused before it costs
memory.
"""

import csv
import io
import os
import re
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from latent_ebm.files import Reader, Rows, read_images


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(content: str | bytes, features: list[str] | None = None, **settings: Any) -> Rows:
    Path("t.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return Reader(**settings).read("t.csv", features)


def noted(rows: Rows, *words: str) -> bool:
    return any(all(word in note for word in words) for note in rows.notes)


# ---------------------------------------------------------------------- as pandas writes them


FRAME = pd.DataFrame({"a": [1.5, 2.5, 0.1], "b": [4.0, 5.0, 6.0]})


def test_the_index_of_pandas_is_no_feature() -> None:
    rows = read(FRAME.to_csv())
    assert (rows.x.tolist(), rows.names) == (FRAME.to_numpy().tolist(), ["a", "b"])
    assert (rows.ids, rows.word) == (["0", "1", "2"], "")
    assert noted(rows, "'Unnamed: 0' is left out", "index that pandas writes")
    some = read(FRAME.iloc[[2, 0]].to_csv())  # of a part of a frame
    assert (some.ids, some.names) == (["2", "0"], ["a", "b"])
    twice = pd.concat([FRAME, FRAME])  # an index that names no row
    assert (read(twice.to_csv()).ids, read(twice.to_csv()).word) == (
        [str(i) for i in range(2, 8)],
        "line",
    )
    again = pd.read_csv(io.StringIO(FRAME.to_csv())).to_csv()  # written and read twice
    assert read(again).names == ["a", "b"]


@pytest.mark.parametrize("index", [True, False])
def test_numbers_as_names_are_a_header(index: bool) -> None:
    rows = read(pd.DataFrame(np.ones((4, 3)) / 3).to_csv(index=index))
    assert (rows.x.shape, rows.names, rows.has_header) == ((4, 3), ["0", "1", "2"], True)
    assert noted(rows, "0, 1, 2", "taken for a header", "--header no")
    assert read("0,1,2\n5,6,7\n", header=False).x.shape == (2, 3)


def test_a_row_of_numbers_is_no_header() -> None:
    for text in ("1,2,3\n4,5,6\n", "0,2,1\n4,5,6\n", "0\n1\n"):
        assert len(read(text).x) == 2
        assert not read(text).has_header
    assert len(read("1,2,3\n4,5,6\n", header=True).x) == 1


def test_a_first_row_of_missing_values_is_not_lost() -> None:
    with pytest.raises(
        ValueError, match=r"got 2 in 1 of 2 rows, the first in line 1, column 'column 1'"
    ):
        read("NA,NA\n1,2\n")


def test_a_line_that_could_be_either_is_refused() -> None:
    text = "s1,1.5,2019\ns2,2.5,2020\n"
    with pytest.raises(ValueError, match=r"'s1' and '1\.5': --header must be yes .* or no"):
        read(text)
    assert read(text, header=False).ids == ["s1", "s2"]
    assert read(text, header=False).names == ["column 2", "column 3"]
    assert read("site,2019,2020\ns1,1,2\n", id="site").names == ["2019", "2020"]
    assert read("y,2019,2020\n7,1,2\n", features=["2020", "y", "2019"]).x.tolist() == [[2, 7, 1]]


# --------------------------------------------------------- as spreadsheets and instruments do


@pytest.mark.parametrize(
    "text",
    [
        "a;b\n1,5;2\n-3;4,25\n",
        "a\tb\n1,5\t2\n-3\t4,25\n",
        '"a";"b"\r\n1.5;2\r\n-3;4.25\r\n',
        "a;b;\n1,5;2;\n-3;4,25;\n",
    ],
    ids=["semicolons", "tabs", "points", "semicolon at the end"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_and_decimal_commas(text: str, encoding: str) -> None:
    rows = read(text.encode(encoding))
    assert (rows.x.tolist(), rows.names) == ([[1.5, 2], [-3, 4.25]], ["a", "b"])
    assert noted(rows, "cells are separated by")
    assert noted(rows, "decimal commas") == ("1,5" in text)


def test_separators_can_be_said() -> None:
    assert read("a;x,b;y\n1,2\n", sep=",").names == ["a;x", "b;y"]
    assert read("1\t2\n3\t4\n", sep="tab").x.tolist() == [[1, 2], [3, 4]]
    with pytest.raises(
        ValueError, match=r"sep must be a comma, a semicolon, tab or space, got '\|'"
    ):
        Reader(sep="|")


@pytest.mark.parametrize("header", ["", "a b"])
def test_spaces_between_numbers(header: str) -> None:
    np.savetxt("t.csv", [[1.5, -2], [3e-5, 4]], header=header, comments="")
    rows = Reader().read("t.csv")
    assert rows.x.tolist() == [[1.5, -2], [3e-5, 4]]
    assert noted(rows, "separated by spaces")
    assert read("body mass\n1\n2\n").names == ["body mass"]
    assert read("a   b\n1 2\n", sep="space").names == ["a", "b"]
    np.savetxt("t.csv", np.ones((2, 2)), header="a,b", delimiter=",")  # "# a,b"
    assert Reader().read("t.csv").names == ["a", "b"]


def test_a_table_without_numbers() -> None:
    with pytest.raises(
        ValueError, match=r"must have a column of numbers, got none; column 'a' is left out"
    ):
        read("a\nx\ny\n")


def test_points_among_decimal_commas_are_refused() -> None:
    with pytest.raises(ValueError, match=r"line 2, column 'b' must be a number, got '1\.234'"):
        read("a;b\n1,5;1.234\n2,5;2.345\n")


def test_columns_of_ids_name_the_rows() -> None:
    for name, values in (
        ("id", [104, 7, 33]),
        ("Index", [1, 2, 3]),
        ("patient_id", [9, 8, 7]),
        ("day", ["2024-01-05", "2024-01-06", "x"]),
    ):
        rows = read(FRAME.assign(**{name: values}).to_csv(index=False))
        assert rows.names == ["a", "b"]
        assert (rows.ids, rows.word) == ([str(value) for value in values], "")
        assert noted(rows, f"column {name!r} is left out", "differ in every row")


def test_numbers_that_could_be_measured_stay() -> None:
    text = (
        "width,id,x_index\n10,1,1\n11,1,2\n12,2,3\n"  # an id that repeats, and a name that is none
    )
    assert read(text).names == ["width", "id", "x_index"]
    assert read("id,b\n1.5,2\n2.5,3\n").names == ["id", "b"]
    assert read(text, id="width", drop=["id"]).names == ["x_index"]
    assert read(text, id="width").ids == ["10", "11", "12"]


def test_wavelengths_could_be_a_header() -> None:
    names = [400 + 0.5 * i for i in range(9)]
    spectra = pd.DataFrame(np.random.default_rng(0).random((5, 9)), columns=names)
    with pytest.raises(
        ValueError,
        match=r"numbers that rise, 400\.0 to 404\.0, as the second does not: --header must",
    ):
        read(spectra.to_csv(index=False))
    assert read(spectra.to_csv(index=False), header=True).x.shape == (5, 9)
    sums = pd.DataFrame(np.cumsum(spectra.to_numpy(), 1))  # rows that all rise
    assert read(sums.to_csv(index=False, header=False)).x.shape == (5, 9)


def test_labels_of_words_are_classes() -> None:
    rows = read("a,label\n1,good\n2,bad\n3,good\n")
    assert rows.label is not None
    assert (rows.label.tolist(), rows.names) == ([1, 0, 1], ["a"])
    assert noted(rows, "numbered by their names: 'bad', 'good'")
    text = "a,label\n1,good\n2,\n"
    with pytest.raises(ValueError, match=r"labels of .* none missing, .* --drop label"):
        read(text)
    assert read(text, drop=["label"]).label is None


def test_names_must_differ() -> None:
    with pytest.raises(ValueError, match="a name of its own for every column, got 'a' twice"):
        read("a,a ,b\n1,2,3\n")
    assert read("a,a,b\n1,2,3\n").names == ["a", "a.1", "b"]


def test_words_that_repeat_are_refused_by_name() -> None:
    text = "a,site\n1,north\n\n2,north\n"
    with pytest.raises(
        ValueError, match=r"line 2, column 'site' must be a number, got 'north'; --drop"
    ):
        read(text)
    rows = read(text, drop=["site"])
    assert (rows.ids, rows.word, rows.call(1)) == (["2", "4"], "line", "line 4")
    assert rows.notes == []  # what was asked for is not told
    with pytest.raises(ValueError, match=r"must have a column 'sight' .* got 'a', 'site'"):
        read(text, drop=["sight"])
    with pytest.raises(ValueError, match="column 'b' must be a number, got 'x'"):
        read("a,b\n1,1.5\n2,x\n3,2.5\n")  # a typing error is no name of a row


def test_missing_values_are_refused_or_counted() -> None:
    text = "a,b\n1,2\n,4\n5,6\n7,NA\n"
    with pytest.raises(
        ValueError, match=r"got 2 in 2 of 4 rows, the first in line 3, column 'a'; --missing drop"
    ):
        read(text)
    rows = read(text, missing="drop")
    assert (rows.x.tolist(), rows.ids) == ([[1, 2], [5, 6]], ["2", "4"])
    assert noted(rows, "2 of 4 rows are left out", "line 3, line 5")
    with pytest.raises(ValueError, match="missing must be refuse or drop, got 'mean'"):
        Reader(missing="mean")
    with pytest.raises(ValueError, match=r"got 2 in 2 of 2 rows"):
        read("a,b\n1,\n,2\n", missing="drop")
    np.save("t.npy", np.array([[1.0, np.nan], [3, 4]]))
    assert Reader(missing="drop").read("t.npy").ids == ["1"]


def test_columns_are_matched_by_name() -> None:
    rows = read("id,d,c\nx,1,2\ny,3,4\n", features=["c", "d"])
    assert (rows.x.tolist(), rows.names) == ([[2, 1], [4, 3]], ["c", "d"])
    with pytest.raises(
        ValueError, match="columns of the training data, got no 'e' among 'd', 'c'"
    ):
        read("d,c\n1,2\n", features=["c", "e"])
    with pytest.raises(
        ValueError, match="no other columns than the training data, got 'e'; --drop"
    ):
        read("d,c,e\n1,2,5\n", features=["c", "d"])
    assert read("d,c,e\n1,2,5\n", features=["c", "d"], drop=["e", "absent"]).x.tolist() == [[2, 1]]
    assert read("index,a\n1,2\n", features=["index", "a"]).names == [
        "index",
        "a",
    ]  # one was trained on


@pytest.mark.parametrize(
    "cells", ["5 %,6 %,7.5 %", "$3,$4,$5", '"1,234,567","2,000,000","3,1"', "2 mm,3 mm,4 mm"]
)
def test_numbers_with_a_unit_are_no_names(cells: str) -> None:
    first, *_ = next(csv.reader([cells]))
    table = pd.DataFrame({"a": next(csv.reader([cells])), "b": [1, 2, 3]})
    with pytest.raises(
        ValueError, match=f"line 2, column 'a' must be a number, got '{re.escape(first)}'"
    ):
        read(table.to_csv(index=False))
    for names in (
        ["12A", "13B", "5C"],
        ["s1", "s2", "s3"],
        ["05.01.2024", "06.01.2024", "07.01.2024"],
        ["1:30", "2:30", "3:30"],
    ):
        assert read(table.assign(a=names).to_csv(index=False)).ids == names


def test_a_column_without_values() -> None:
    with pytest.raises(ValueError, match="got none in column 'b'; --drop leaves the column out"):
        read("a,b\n1,\n2,\n", missing="drop")


@pytest.mark.parametrize("text", ["a,b,\n1,2,\n", "a,b,\n1,2,\n3,4,\n", ",a,b\n,1,2\n"])
def test_an_empty_column_without_a_name_names_no_row(text: str) -> None:
    rows = read(text)
    assert (rows.x[0].tolist(), rows.names, rows.call(0)) == ([1, 2], ["a", "b"], "line 2")


def test_lines_are_those_of_the_file() -> None:
    rows = read('\na,"b\nc"\n\n1,2\n"3","4"\n   \n5,6\n')
    assert (rows.x.tolist(), rows.ids) == ([[1, 2], [3, 4], [5, 6]], ["5", "6", "8"])


def test_parquet_keeps_an_index_apart() -> None:
    pytest.importorskip("pyarrow", reason='needs the extra "parquet"')
    FRAME.set_index(pd.Index(["p", "q", "r"])).to_parquet("t.parquet")
    rows = Reader().read("t.parquet")
    assert (rows.x.tolist(), rows.ids, rows.word) == (
        FRAME.to_numpy().tolist(),
        ["p", "q", "r"],
        "",
    )
    FRAME.assign(when=pd.to_datetime(["2024-01-05", "2024-01-06", "2024-01-07"])).to_parquet(
        "t.parquet"
    )
    assert Reader().read("t.parquet").names == ["a", "b"]
    with pytest.raises(ValueError, match="at most 5 entries"):
        Reader(max_entries=5).read("t.parquet")


# ------------------------------------------------------------------------------ bombs and ruins


def quick(act: Callable[[], object], message: str, kind: type[Exception] = ValueError) -> None:
    """``act`` raises within a second and without memory to speak of."""
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(kind, match=message):
        act()
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 1
    assert peak < 2**26


def npy_header(shape: str, descr: str = "'<f8'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (npy_header("(4000000000, 1000)"), "at most 200,000,000 entries .* got 4,000,000,000,000"),
        (
            npy_header("(1000, 1000)"),
            r"array of float64 and shape \(1000, 1000\) does not fit into",
        ),
        (npy_header("(-1, 2)"), r"must hold plain arrays, .* shape \(-1, 2\)"),
        (npy_header("(" * 3000 + ")" * 3000), "must hold plain arrays"),
        (npy_header("(3, 2)", "'|O'"), "must hold plain arrays"),
        (npy_header("(3, 2)", "['a'" + ", ['a'" * 900), "must hold plain arrays"),
        (b"\x93NUMPY\x09\x00", "must hold plain arrays"),
    ],
    ids=["huge", "cut", "negative", "nested", "objects", "nested types", "version"],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_headers_of_arrays(header: bytes, message: str, suffix: str) -> None:
    path = Path(f"t{suffix}")
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("X.npy", header)
    else:
        path.write_bytes(header)
    quick(lambda: Reader().read(path), message)


def test_a_small_archive_of_a_huge_array() -> None:
    with (
        zipfile.ZipFile("t.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("X.npy", "w") as file,
    ):
        file.write(npy_header("(2048, 8192)"))
        for _ in range(128):
            file.write(bytes(2**20))
    assert Path("t.npz").stat().st_size < 2**18
    quick(
        lambda: Reader(max_entries=10**6).read("t.npz"),
        "at most 1,000,000 entries .* got 16,777,216; --max-entries",
    )


@pytest.mark.parametrize(("name", "descr"), [("X", "'|V1048576'"), ("y", "'<U262144'")])
def test_a_few_entries_of_huge_size(name: str, descr: str) -> None:
    with zipfile.ZipFile("t.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        if name == "y":
            archive.writestr("X.npy", npy_header("(1, 1)") + bytes(8))
        with archive.open(f"{name}.npy", "w") as file:
            file.write(npy_header("(80,)", descr))
            for _ in range(80):
                file.write(bytes(2**20))
    quick(lambda: Reader().read("t.npz"), f"t.npz must hold numbers in {name}, got ")


@pytest.mark.parametrize("cut", [50, 150, -1])
def test_cut_archives(cut: int) -> None:
    np.savez("whole.npz", X=np.ones((50, 3)))
    Path("t.npz").write_bytes(Path("whole.npz").read_bytes()[:cut])
    with pytest.raises(
        ValueError, match=r"t\.npz must hold plain arrays, not pickled or damaged ones: "
    ):
        Reader().read("t.npz")
    content = bytearray(Path("whole.npz").read_bytes())
    content[300] ^= 255
    Path("t.npz").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"t\.npz must hold plain arrays, not pickled or damaged ones: "
    ):
        Reader().read("t.npz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1," + b"9" * 10**6 + b"\n", r"column 'b' must be a number|must be finite"),
        (b"a,b\n" + b"9" * 3 * 10**6, "a cell must have at most 1,048,576 bytes"),
        (b"1,2\n" * 600_000, "at most 1,000,000 entries .* got 1,"),
        (b"," * 3 * 10**6, "at most 1,000,000 entries"),
        (b"a,b\n1,2\x00\n", "NUL bytes"),
        (b"a,b\n1,2,3\n", "expected 2 fields in line 2, saw 3"),
        (b"a,b,c\n1,2,3\n1,2,3,4\n", "expected 3 fields in line 3, saw 4"),
        (b'a,b\n1,"2\n', "must hold a table of text"),
    ],
    ids=["digits", "cell", "rows", "columns", "nul", "long first row", "long row", "open quote"],
)
def test_texts(content: bytes, message: str) -> None:
    quick(lambda: read(content, max_entries=10**6), message)


def test_what_is_no_file() -> None:
    os.mkfifo("t.csv")
    quick(lambda: Reader().read("t.csv"), "a regular file, got 't.csv'")
    Path("t.npy").symlink_to("/dev/zero")
    quick(lambda: Reader().read("t.npy"), "a regular file, got 't.npy'")
    Path("t.npz").mkdir()
    quick(lambda: Reader().read("t.npz"), "a regular file, got 't.npz'")


# --------------------------------------------------------------------------------------- images


def save(name: str, image: Image.Image) -> None:
    Path("images", name).parent.mkdir(parents=True, exist_ok=True)
    image.save(Path("images", name))


def test_nested_folders_and_hidden_files() -> None:
    for name in ("train/good/b.png", "a.JPG", ".hidden.png", ".cache/c.png"):
        save(name, Image.new("L", (8, 8), 255))
    Path("images/.hidden.png").write_text("no image")
    rows = read_images(Path("images"))
    assert (rows.ids, rows.x.shape, rows.x.min()) == (
        ["a.JPG", "train/good/b.png"],
        (2, 1, 8, 8),
        1,
    )
    assert rows.notes == []


def test_transparent_images_lie_on_white() -> None:
    save("a.png", Image.new("RGBA", (8, 8), (255, 0, 0, 0)))
    save("b.png", Image.new("LA", (8, 8), (0, 255)))
    save("c.png", Image.new("L", (8, 8), 51))
    rows = read_images(Path("images"))
    assert rows.x[:, :, 0, 0].round(6).tolist() == [[1, 1, 1], [-1, -1, -1], [-0.6, -0.6, -0.6]]
    assert noted(rows, "2 of 3 images with transparency are put on white")
    assert noted(rows, "2 of 3 images of grey are read as RGB")
    grey = read_images(Path("images"), colour=False)
    assert grey.x.shape == (3, 1, 8, 8)
    assert noted(grey, "1 of 3 images with colours are made grey")


def test_sizes_are_made_one() -> None:
    save("a.png", Image.new("L", (12, 8), 255))
    save("b.png", Image.new("L", (9, 9), 0))
    with pytest.raises(
        ValueError, match=r"got 8 x 12 of .*a\.png and 9 x 9 of .*b\.png; --size 8 resizes"
    ):
        read_images(Path("images"))
    rows = read_images(Path("images"), size=9)
    assert rows.x.reshape(2, -1).mean(1).tolist() == [1, -1]
    assert noted(rows, "1 of 2 images are resized to 9 x 9 pixels")
    assert noted(rows, "1 of 2 images are stretched, because they are not square")


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, b"IDAT")
    )


def test_images_that_cannot_be_read() -> None:
    Path("images").mkdir()
    os.mkfifo("images/a.png")
    quick(
        lambda: read_images(Path("images")), r"a plain image, a regular file, got 'images/a\.png'"
    )
    os.remove("images/a.png")
    Path("images/a.png").write_bytes(png_header(20_000, 20_000))
    quick(
        lambda: read_images(Path("images")),
        r"images/a\.png must hold a plain image: .*(bomb|pixels)",
    )
    Path("images/a.png").write_bytes(png_header(9000, 9000))
    quick(lambda: read_images(Path("images")), r"at most 67,108,864 pixels, got 9000 x 9000")
    Image.new("L", (100, 100)).save("images/a.png")
    quick(
        lambda: read_images(Path("images"), max_entries=9999),
        "at most 9,999 entries .* got 10,000",
    )
    Image.new("I;16", (8, 8)).save("images/a.png")
    quick(lambda: read_images(Path("images")), "8 bits of grey or RGB, got mode I")
