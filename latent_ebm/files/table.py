"""A table as it was read, before its columns are chosen, and the names of its cells in
messages.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

LABEL = "label"  # the column of labels


class Table(NamedTuple):
    """The ``frame`` in the file at ``path``.

    ``has_header`` tells whether the names of the columns come from the file; ``notes`` say what
    was decided; ``lines`` are the line numbers of the rows in a text file, from 1; ``ids`` are
    names of the rows, if the file keeps them apart.
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
