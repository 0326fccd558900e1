"""Which columns of a table are features, which column names the rows, and which are left out.

Fixed rules decide about columns that the user does not mention:

- The first columns, if they have no names, are the index that pandas writes. They are left out,
  and so is a column without a name and without values.
- These columns name the rows: one called ``id``, ``index`` or ``..._id`` of whole numbers that
  differ in every row; the first column, if its numbers count eight or more rows up by one; and
  one of words (dates, codes, file names) that differ in every row, unless the words are numbers
  with a unit.
- A column ``label`` is the label. If it holds words, they are classes, numbered in alphabetical
  order.
- All other columns are features and must hold numbers.
"""

import re
from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latent_ebm.files.table import LABEL, Table, is_number, shorten

if TYPE_CHECKING:
    import pandas as pd

NAME_OF_IDS = re.compile(r"(.*[_ ])?id|index", re.IGNORECASE)
MEASURED = re.compile(
    r"(?P<before>[$€£¥<>≤≥]?)\s?[+−-]?(\d{1,3}([., \u00a0\u202f'’]\d{3})+|\d+)([.,]\d+)?\s?"
    r"(?P<after>\D*|\w*[^\W\d][23])"
)
FEW = 8  # rows that may count up by chance
UNNAMED = re.compile(r"Unnamed: (\d+)(\.\d+)?")  # what pandas calls a column without a name


class Columns(NamedTuple):
    """``x`` (n, d), the ``names`` of its columns, and ``label`` (n,) and ``ids`` (n,), if any."""

    x: NDArray[np.float64]
    names: list[str]
    label: NDArray | None
    ids: list[str] | None
    notes: list[str]


def choose(
    table: Table, id: str | None, drop: Collection[str], features: Sequence[str] | None
) -> Columns:
    """The parts of ``table`` by the rules of this module.

    ``id`` and ``drop`` are names that the user gave. With ``features``, the table must have these
    columns in any order, and no others but those that are left out. Raises ``ValueError`` for a
    missing column, a surplus column, and a column that does not hold numbers.
    """
    check_different(table)
    frame, asked = table.frame, [*drop, *([] if id is None else [id])]
    if features is None:  # otherwise the training table had these columns
        check_present(table, asked)
    frame = frame.drop(columns=[name for name in drop if name in frame])
    kept = (LABEL, id, *(features or ()))
    reasons = {name: reason_to_leave_out(frame[name], name) for name in frame if name not in kept}
    reasons |= reasons_of_the_first(frame, kept, 2 if features else FEW)
    out = {name: reason for name, reason in reasons.items() if reason}
    naming = id if id in frame else next((name for name in out if differs(frame[name])), None)
    rest = frame.drop(columns=[name for name in {*out, LABEL, naming} if name in frame])
    rest = rest if features is None else match(table, rest, features)
    notes = [f"column {shorten(name)} is left out: {reason}" for name, reason in out.items()]
    label = number_classes(frame[LABEL], notes) if LABEL in frame else None
    ids = table.ids if naming is None else names_of_rows(table, frame[naming], naming)
    return Columns(as_numbers(table, rest), list(rest.columns), label, ids, notes)


def number_classes(label: "pd.Series", notes: list[str]) -> NDArray:
    """``label`` (n,) as numbers. Words are numbered in alphabetical order."""
    from pandas.api.types import is_numeric_dtype

    if is_numeric_dtype(label) or label.isna().any():
        return label.to_numpy()
    classes, numbers = np.unique(label.astype(str).to_numpy(str), return_inverse=True)
    notes.append(
        f"the classes of column {LABEL!r} are numbered by their names: {listing(classes.tolist())}"
    )
    return numbers


def reason_to_leave_out(column: "pd.Series", name: str) -> str | None:
    """Why the rules leave ``column`` out; ``None`` for a feature."""
    from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype

    if column.isna().all():
        return "it has neither a name nor values" if UNNAMED.fullmatch(name) else None
    if is_integer_dtype(column) and NAME_OF_IDS.fullmatch(name) and column.is_unique:
        return "its whole numbers differ in every row, and it is called an id"
    if is_numeric_dtype(column) or is_bool_dtype(column) or not differs(column):
        return None
    cells = [str(cell) for cell in column]
    if column.isna().any() or any(map(is_number, cells)) or are_measured(cells):
        return None
    return "its words differ in every row, as names of rows do"


def reasons_of_the_first(
    frame: "pd.DataFrame", kept: Collection[str | None], least: int
) -> dict[str, str]:
    """Why the rules leave out the first columns, by name: they are an index, or count at least
    ``least`` rows.
    """
    from pandas.api.types import is_integer_dtype

    unnamed = list(takewhile(UNNAMED.fullmatch, frame.columns))
    if unnamed:
        return dict.fromkeys(unnamed, "it has no name, as the index that pandas writes")
    first = frame.iloc[:, 0] if frame.shape[1] > 1 else None
    if first is None or first.name in kept or len(first) < least or not is_integer_dtype(first):
        return {}
    if not (first.diff().iloc[1:] == 1).all():
        return {}
    return {str(first.name): "it is the first, and its whole numbers count the rows"}


def differs(column: "pd.Series") -> bool:
    """Whether the cells of ``column`` differ in every row and are not all missing. Lists and other
    objects are compared as text.
    """
    cells = column.astype(str) if column.dtype == object else column
    return bool(cells.is_unique and column.notna().any())


def names_of_rows(table: Table, column: "pd.Series", name: str) -> list[str]:
    """The cells of ``column``, which names the rows. Raises ``ValueError`` for a missing cell,
    such as in a line of totals.
    """
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"{table.path}, {table.place(int(missing.argmax()))}, column {shorten(name)} must "
            "name the row, got nothing: "
            f"a second header or a line of totals must be deleted; --drop leaves the column out"
        )
    return [str(value) for value in column]


def are_measured(cells: list[str]) -> bool:
    """Whether all ``cells`` are numbers with one unit, such as 5 %, 1,234,567 or $ 3. Such cells
    do not name rows.
    """
    units = {
        found.group("before", "after") if (found := MEASURED.fullmatch(cell.strip())) else None
        for cell in cells
    }
    return len(units) == 1 and None not in units


def check_different(table: Table) -> None:
    """Raise ``ValueError`` if two columns have the same name."""
    twice = table.frame.columns[table.frame.columns.duplicated()]
    if len(twice):
        raise ValueError(
            f"{table.path} must have a name of its own for every column, got {listing(twice)} "
            "twice"
        )


def check_present(table: Table, names: Collection[str]) -> None:
    """Raise ``ValueError`` if one of ``names`` is not a column."""
    for name in names:
        if name not in table.frame:
            raise ValueError(
                f"{table.path} must have a column {shorten(name)} to leave out or to name its "
                "rows, "
                f"got {listing(table.frame.columns)}"
            )


def match(table: Table, rest: "pd.DataFrame", features: Sequence[str]) -> "pd.DataFrame":
    """``rest`` with its columns in the order of ``features``. Raises ``ValueError`` for others."""
    absent = [name for name in features if name not in rest]
    surplus = [name for name in rest if name not in features]
    if absent:
        raise ValueError(
            f"{table.path} must have the columns of the training data, got no {listing(absent)} "
            f"among {listing(rest.columns)}"
        )
    if surplus:
        raise ValueError(
            f"{table.path} must have no other columns than the training data, got "
            f"{listing(surplus)}; "
            f"--drop leaves them out"
        )
    return rest.loc[:, list(features)]


def as_numbers(table: Table, frame: "pd.DataFrame") -> NDArray[np.float64]:
    """The cells of ``frame``, NaN where they are missing. Raises ``ValueError`` for a word."""
    import pandas as pd

    for name, column in frame.items():
        if not pd.api.types.is_numeric_dtype(column) and not column.isna().all():
            values = [None if isinstance(cell, str) else cell for cell in column.astype(object)]
            numbers = np.asarray(pd.to_numeric(pd.Series(values, dtype=object), errors="coerce"))
            bad = np.flatnonzero(pd.isna(numbers) & column.notna())
            if len(bad):
                worst = next((i for i in bad if not is_number(str(column.iloc[i]))), bad[0])
                raise not_a_number(table, frame, str(name), int(worst))
            frame = frame.assign(**{str(name): numbers})
    return frame.to_numpy(np.float64, na_value=np.nan)


def not_a_number(table: Table, frame: "pd.DataFrame", name: str, row: int) -> ValueError:
    """The error for a word in ``row``, from 0, of the column ``name``."""
    cell, others = str(frame[name].iloc[row]), [str(cell) for cell in frame.iloc[row].dropna()]
    stray = not any(map(is_number, others)) and any(
        is_number(str(cell)) for cell in frame[name].dropna()
    )
    way = (
        "delete the line if it is not a row, such as a line of units"
        if stray
        else "--drop leaves the column out"
    )
    return ValueError(
        f"{table.path}, {table.place(row)}, column {shorten(name)} must be a number, got "
        f"{shorten(cell)}; {way}"
    )


def listing(names: Collection[str]) -> str:
    """``names`` in quotes, the first six of them."""
    shown = ", ".join(map(shorten, list(names)[:6]))
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"
