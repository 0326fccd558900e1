"""Rows of numbers from a file: what ``Reader`` returns and how it treats missing values."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latent_ebm.files.arrays import read_arrays
from latent_ebm.files.columns import choose
from latent_ebm.files.limits import MAX_ENTRIES, check_entries
from latent_ebm.files.table import LABEL, Table, shorten
from latent_ebm.files.text import NAMES, SEPARATORS, read_text
from latent_ebm.foreign import check_file, reading
from samplers.checks import check_counts, check_kind

ARRAYS, TEXTS, PARQUET = (".npz", ".npy"), (".csv", ".tsv"), ".parquet"
MISSING = ("refuse", "drop")


class Rows(NamedTuple):
    """Rows of a file, and their names.

    Args:
        x: the rows (n, \\*event), finite.
        label: integer labels (n,), or None.
        names: names of a table's columns, or None.
        has_header: whether a header gives these names.
        ids: the name of each row: its id, else its line in the file, else its number from 0.
        word: precedes an id in a sentence: "line", "row" or nothing.
        notes: what was decided or left out, and why.
    """

    x: NDArray[np.float64]
    label: NDArray[np.int64] | None
    names: list[str] | None
    has_header: bool
    ids: list[str]
    word: str
    notes: list[str]

    def call(self, row: int) -> str:
        """The name of row number ``row``, from 0, in a sentence."""
        return f"{self.word} {self.ids[row]}".strip()


@dataclass(frozen=True)
class Reader:
    """Reads rows from .csv, .tsv, .parquet, .npz and .npy files, by the rules of ``text`` and
    ``columns``.

    A column without a name is called "column 1" and so on.

    Args:
        id: the column that names the rows; None: found by rule.
        drop: columns to leave out.
        sep: what separates cells: "," or ";" or "tab" or "space"; None: found by rule.
        header: whether the first line names the columns; None: found by rule.
        missing: what to do about rows with missing values: "refuse" the file or "drop" them.
        key: the array of rows in an .npz; None: ``x`` if there is one, else ``X``.
        max_entries: largest number of entries (rows x columns) of a file, checked before memory
            is allocated.
    """

    id: str | None = None
    drop: Sequence[str] = ()
    sep: str | None = None
    header: bool | None = None
    missing: str = "refuse"
    key: str | None = None
    max_entries: int = MAX_ENTRIES

    def __post_init__(self) -> None:
        check_counts(self, max_entries=self.max_entries)
        words = {"id": self.id, "key": self.key}
        check_kind(self, str, **{name: word for name, word in words.items() if word is not None})
        if self.header is not None:
            check_kind(self, bool, header=self.header)
        if isinstance(self.drop, str):
            raise ValueError(f"drop must be a list of names of columns, got {self.drop!r}")
        if self.missing not in MISSING:
            raise ValueError(f"missing must be {' or '.join(MISSING)}, got {self.missing!r}")
        if self.sep is not None and self.sep not in (*NAMES, *SEPARATORS):
            raise ValueError(f"sep must be a comma, a semicolon, tab or space, got {self.sep!r}")

    def read(self, path: str | Path, features: Sequence[str] | None = None) -> Rows:
        """The rows of ``path``; with ``features``, columns of these names and in this order.

        ``features`` is ignored if the columns of the file have no names.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not a table of finite numbers; the message says where.
        """
        suffix = Path(path).suffix.lower()
        if suffix not in (*ARRAYS, *TEXTS, PARQUET):
            known = ", ".join((*ARRAYS, *TEXTS, PARQUET))
            raise ValueError(f"path must end in {known}, got {str(path)!r}")
        path = check_file(path)
        if suffix in ARRAYS:
            x, label = read_arrays(path, self.key, self.max_entries)
            ids = [str(i) for i in range(len(x) if x.ndim else 0)]
            return self.check(path, Rows(x, label, None, False, ids, "row", []))
        table = (
            self.read_parquet(path) if suffix == PARQUET else self.read_text(path, features or ())
        )
        return self.check(path, self.choose(table, features))

    def read_text(self, path: Path, features: Sequence[str]) -> Table:
        mentioned = [*features, *self.drop, *([] if self.id is None else [self.id])]
        return read_text(path, self.sep, self.header, mentioned, self.max_entries)

    def read_parquet(self, path: Path) -> Table:
        try:
            import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ImportError(f"{path} needs pyarrow: pip install latent-ebm[parquet]") from error
        import pandas as pd

        with reading(path, "a table of Parquet"):
            size = pq.read_metadata(path)
            check_entries(path, size.num_rows * size.num_columns, self.max_entries)
            frame = pd.read_parquet(path)
        ids = None if isinstance(frame.index, pd.RangeIndex) else [str(i) for i in frame.index]
        return Table(
            path, frame.set_axis([str(n) for n in frame.columns], axis=1), True, [], None, ids
        )

    def choose(self, table: Table, features: Sequence[str] | None) -> Rows:
        """The columns of ``table`` that count, and names of its rows."""
        named = features if table.has_header else None
        columns = choose(table, self.id, self.drop, named)
        lines = range(len(table.frame)) if table.lines is None else table.lines
        word = "" if columns.ids else "row" if table.lines is None else "line"
        ids = columns.ids or [str(i) for i in lines]
        notes = [*table.notes, *columns.notes]
        return Rows(columns.x, columns.label, columns.names, table.has_header, ids, word, notes)

    def check(self, path: Path, rows: Rows) -> Rows:
        """``rows`` as finite numbers; rows with missing values are dropped if asked for."""
        x = rows.x
        if rows.names == []:
            raise ValueError(
                "; ".join((f"{path} must have a column of numbers, got none", *rows.notes))
            )
        if x.ndim < 2 or x.size == 0:
            raise ValueError(
                f"{path} must hold numbers of shape (rows, columns), got {x.dtype} of shape "
                f"{x.shape}"
            )
        x = x.astype(np.float64)
        missing = np.isnan(x).reshape(len(x), -1)
        refuse_infinite(path, rows, x)
        label = None if rows.label is None else as_label(path, rows.label, len(x))
        rows = rows._replace(x=x, label=label)
        return without_missing(path, rows, missing, self.missing) if missing.any() else rows


def column_name(rows: Rows, column: int) -> str:
    return shorten(rows.names[column]) if rows.names else f"{column + 1}"


def refuse_infinite(path: Path, rows: Rows, x: NDArray[np.float64]) -> None:
    bad = np.argwhere(np.isinf(x.reshape(len(x), -1)))
    if len(bad):
        row, column = map(int, bad[0])
        raise ValueError(
            f"{path} must be finite, got {len(np.unique(bad[:, 0]))} rows that are not, the first "
            f"is {rows.call(row)}, column {column_name(rows, column)}"
        )


def without_missing(path: Path, rows: Rows, missing: NDArray[np.bool_], treatment: str) -> Rows:
    """``rows`` without those with missing values. Raises ``ValueError`` unless ``treatment`` is
    "drop" and some rows are left.
    """
    bad = np.asarray(missing.any(1))
    row, column = map(int, np.argwhere(missing)[0])
    void = np.flatnonzero(missing.all(0))
    if rows.names and len(void):
        raise ValueError(
            f"{path} must have a value in every column, got none in column "
            f"{column_name(rows, int(void[0]))}; "
            f"--drop leaves the column out"
        )
    if treatment == "refuse" or bad.all():
        raise ValueError(
            f"{path} must be finite, without missing values: got {missing.sum()} in {bad.sum()} "
            f"of {len(bad)} rows, the first in {rows.call(row)}, column "
            f"{column_name(rows, column)}; --missing drop leaves such rows out"
        )
    called = [rows.call(int(i)) for i in np.flatnonzero(bad)]
    shown = ", ".join(called[:10]) + ", ..." * (len(called) > 10)
    note = f"{len(called)} of {len(bad)} rows are left out for missing values: {shown}"
    return rows._replace(
        x=rows.x[~bad],
        label=None if rows.label is None else rows.label[~bad],
        ids=[id for id, out in zip(rows.ids, bad, strict=True) if not out],
        notes=[*rows.notes, note],
    )


def as_label(path: Path, label: NDArray, num: int) -> NDArray[np.int64]:
    if (
        label.shape != (num,)
        or label.dtype.kind not in "fiub"
        or not np.array_equal(label, np.rint(label))
    ):
        raise ValueError(
            f"labels of {path} must be {num} integers, or words in a table, none missing, got "
            f"{label.dtype} of shape "
            f"{label.shape}; a table's column can be left out by --drop {LABEL}"
        )
    return label.astype(np.int64)
