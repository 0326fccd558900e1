"""A table as it was read, before its columns are chosen, and how one speaks of its cells."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

LABEL = "label"  # the column of labels


class Table(NamedTuple):
    """``frame``, as the file at ``path`` holds it; whether the names of its columns are the
    file's.

    ``notes`` say what was decided; ``lines`` are those of the rows in a file of text, from 1;
    ``ids`` the rows' own names, where a file keeps these apart.
    """

    path: Path
    frame: "pd.DataFrame"
    has_header: bool
    notes: list[str]
    lines: list[int] | None = None
    ids: list[str] | None = None

    def place(self, row: int) -> str:
        """What row number ``row``, from 0, is called in messages."""
        return f"row {row}" if self.lines is None else f"line {self.lines[row]}"


def is_number(cell: str) -> bool:
    """Whether ``cell`` is a number, with a decimal point or comma."""
    try:
        float(cell.replace(",", ".", 1))
    except ValueError:
        return False
    return True


def shorten(cell: str) -> str:
    """``cell`` in quotes, cut if it is long."""
    return repr(cell) if len(cell) <= 40 else f"{cell[:40]!r}... ({len(cell):,} characters)"
