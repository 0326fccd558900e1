r"""Tables in text files, as pandas, spreadsheets and instruments write them.

Fixed rules decide:

- The text is UTF-8, or UTF-16 if it begins with the mark of UTF-16, or else Windows-1252, which
  spreadsheets write.
- Above the table there may be ``sep=;``, which spreadsheets understand, and comments that begin
  with ``#`` or ``%``. The last comment is the header if it has a name for each number of the next
  line.
- Cells are separated by tabs, semicolons or commas: the first of these that occurs equally often
  in the first two lines, or else the first that occurs in the first line. If none occurs in two
  lines and the second line has several numbers, cells are separated by spaces.
- Between semicolons or tabs, ``1,5`` is a number with a decimal comma; if one column has such
  numbers, all have.
- The first line is a header if it holds no number, or a column ``label``, or a name that the
  caller mentions, or the numbers 0, 1, 2, ... in order. Two kinds of first lines could be a header
  or a row, and the caller must decide: a line of words and other numbers, and a line of eight or
  more rising numbers, such as wavelengths, if the numbers of the second line do not rise.
- Blank lines are skipped. Blank cells, ``NA``, ``NaN``, ``null`` and similar words are missing
  values.
"""

import codecs
import re
import warnings
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent_ebm.files.limits import MAX_CELL, check_entries
from latent_ebm.files.table import LABEL, Table, is_number, shorten
from latent_ebm.foreign import reading

if TYPE_CHECKING:
    import pandas as pd

TEXT = "a table of text"
SPACES = r"\s+"
SEPARATORS = {"tab": "\t", "space": SPACES}  # hard to type in a shell
NAMES = {"\t": "tabs", ";": "semicolons", ",": "commas"}
MANY = 8  # numbers in a line that rise by chance once in 40,000 lines
DECIMAL_COMMA = r"\s*[+-]?\d+(,\d+)?([eE][+-]?\d+)?\s*"
SAYS_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
COMMENT = ("#", "%")


def read_text(
    path: Path, sep: str | None, header: bool | None, mentioned: Collection[str], max_entries: int
) -> Table:
    """The table in ``path``, by the rules of this module where ``sep`` or ``header`` is ``None``.

    Raises ``ValueError`` for text that is not a table, is too large or could be read in two ways.
    """
    notes: list[str] = []
    with reading(path, TEXT):
        encoding = find_encoding(path, notes)
        above, said, names = find_table(path, encoding, notes, header)
        sep = sep or said or find_separator(first_lines(path, encoding, above), notes)
        sep = SEPARATORS.get(sep, sep)
        check_size(path, encoding, sep, max_entries)
        options: dict[str, Any] = {
            "sep": sep,
            "encoding": encoding,
            "header": None,
            "skiprows": above,
        }
        if names:
            header = False  # the names stand above the part that is parsed
        elif header is None:
            header = find_header(path, options, mentioned, notes)
        options["header"] = 0 if header else None
        frame = parse(path, options)
        if sep != "," and any(has_decimal_commas(frame[name]) for name in frame):
            frame = parse(path, {**options, "decimal": ","})
            notes.append("numbers have decimal commas")
        lines = line_numbers(path, encoding, sep, above)[int(header) :]
    known = lines if len(lines) == len(frame) else None
    if not names:
        names = [str(name).strip() if header else f"column {name + 1}" for name in frame.columns]
        return Table(path, frame.set_axis(names, axis=1), header, notes, known)
    return Table(path, frame.set_axis(names, axis=1), True, notes, known)


def parse(path: Path, options: dict[str, Any]) -> "pd.DataFrame":
    """The table that pandas reads from ``path``. Raises ``ValueError`` for a row with more cells
    than the first line.
    """
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(
                path, index_col=False, skipinitialspace=True, low_memory=False, **options
            )
        except pd.errors.ParserError as error:
            text = str(error).removeprefix("Error tokenizing data. C error: ").strip()
            advice = (
                "; titles above the table and notes below it must be deleted"
                if "Expected" in text
                else ""
            )
            raise ValueError(f"{text.replace('Expected', 'expected')}{advice}") from error
        except pd.errors.ParserWarning as error:
            raise ValueError("rows must not have more cells than the header has names") from error


def find_encoding(path: Path, notes: list[str]) -> str:
    """UTF-16 if the file begins with its mark, else UTF-8 if it is valid, else Windows-1252."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        block = file.read(MAX_CELL)
        if block[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
        try:
            while block:
                decoder.decode(block)
                block = file.read(MAX_CELL)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            notes.append("the text is not UTF-8 and is read as Windows-1252")
            return "cp1252"
    return "utf-8-sig"


def find_table(
    path: Path, encoding: str, notes: list[str], header: bool | None
) -> tuple[int, str | None, list[str]]:
    """The number of lines above the table, the separator if a line names it, and the names in the
    last line if it has any and ``header`` is not false.
    """
    number, above, said = 0, [], None
    with path.open(encoding=encoding, newline=None) as file:
        while line := file.readline(MAX_CELL):
            found = None if above else SAYS_SEPARATOR.fullmatch(line.strip("\r\n"))
            if line.strip() and not found and not line.startswith(COMMENT):
                break
            number, said = number + 1, found[1] if found else said
            above += [line.strip()] if line.strip() else []
    names = names_in(above[-1], line, said) if above and header is not False else []
    left_out = above[: len(above) - bool(names)]
    if left_out:
        shown = ", ".join(map(shorten, left_out[:3])) + ", ..." * (len(left_out) > 3)
        notes.append(f"what stands above the table is left out: {shown}")
    return number, said, names


def names_in(comment: str, line: str, sep: str | None) -> list[str]:
    """The names in ``comment``, if it has one for each cell of the ``line`` below it and this line
    holds a number; else none.
    """
    sep = SEPARATORS.get(sep or "", sep) or find_separator([line], [])
    pattern = sep if sep == SPACES else re.escape(sep)
    names, cells = re.split(pattern, comment.lstrip("#% ")), re.split(pattern, line.strip())
    matches = comment.startswith(COMMENT) and len(names) == len(cells)
    matches &= any(map(is_number, cells)) and not any(map(is_number, names))
    return [name.strip().strip('"') for name in names] if matches else []


def first_lines(path: Path, encoding: str, above: int = 0) -> list[str]:
    """The first two lines that are not blank, each cut to the largest size of a cell. Raises
    ``ValueError`` if there is none.
    """
    lines: list[str] = []
    with path.open(encoding=encoding, newline=None) as file:
        for _ in range(above):
            file.readline()
        while len(lines) < 2 and (line := file.readline(MAX_CELL)):
            lines += [line] if line.strip() else []
    if not lines:
        raise ValueError("it has no lines")
    return lines


def find_separator(lines: list[str], notes: list[str]) -> str:
    """What separates the cells of ``lines``, by the rule of this module."""
    unquoted = [re.sub(r'"[^"]*"', "", line) for line in lines]
    counts = {sep: [line.count(sep) for line in unquoted] for sep in NAMES}
    alike = [sep for sep, (first, *more) in counts.items() if first and more in ([], [first])]
    found = next((sep for sep in (*alike, *NAMES) if counts[sep][0]), ",")
    if not any(sep in line for line in unquoted for sep in NAMES):
        cells = unquoted[-1].split()
        found = SPACES if len(cells) > 1 and all(map(is_number, cells)) else ","
    if found != ",":
        notes.append(f"cells are separated by {NAMES.get(found, 'spaces')}")
    return found


def check_size(path: Path, encoding: str, sep: str, max_entries: int) -> None:
    """Raise ``ValueError`` for too many cells, a cell that is too long, or NUL bytes. Takes little
    memory.
    """
    marks = [mark.encode() for mark in (" " if sep == SPACES else sep, "\n", "\r")]
    entries = 0
    with path.open("rb") as file:
        while block := file.read(MAX_CELL):
            found = max(block.count(marks[0]) + block.count(mark) for mark in marks[1:])
            if not found and len(block) == MAX_CELL:
                raise ValueError(f"a cell must have at most {MAX_CELL:,} bytes")
            if encoding != "utf-16" and b"\x00" in block:
                raise ValueError("it has NUL bytes")
            entries += found
            check_entries(path, entries, max_entries)


def find_header(
    path: Path, options: dict[str, Any], mentioned: Collection[str], notes: list[str]
) -> bool:
    """Whether the first line names the columns. Raises ``ValueError`` if both are possible."""
    first, *more = parse(path, {**options, "nrows": 2, "dtype": object}).astype(object).to_numpy()
    cells = [str(cell) for cell in first if cell == cell]  # without missing cells, which are NaN
    numbers = [cell for cell in cells if is_number(cell)]
    words = [cell.strip() for cell in cells if not is_number(cell)]
    if not numbers or any(word in (LABEL, *mentioned) for word in words):
        return bool(words)
    if numbers == [str(i) for i in range(len(numbers))] and len(first) > 1:
        shown = ", ".join(numbers[:3]) + ", ..." * (len(numbers) > 3)
        notes.append(
            f"the first line, {shown}, is taken for a header (--header no reads it as a row)"
        )
        return True
    if words:
        raise unsure(path, f"words and numbers, {shorten(words[0])} and {shorten(numbers[0])}")
    if rises(first) and more and not rises(more[0]):
        raise unsure(path, f"numbers that rise, {first[0]} to {first[-1]}, as the second does not")
    return False


def unsure(path: Path, what: str) -> ValueError:
    """The error for a first line that could be a header."""
    rule = "--header must be yes if it names the columns, or no if it is a row"
    return ValueError(f"the first line of {path} has {what}: {rule}")


def rises(cells: Sequence[Any]) -> bool:
    """Whether ``cells`` are many numbers, each greater than the one before, like the wavelengths
    of a spectrum.
    """
    texts = [str(cell).replace(",", ".", 1) for cell in cells]
    numbers = [float(text) for text in texts if is_number(text)]
    return MANY <= len(numbers) == len(texts) and all(a < b for a, b in pairwise(numbers))


def has_decimal_commas(column: "pd.Series") -> bool:
    """Whether all cells of a column of text are numbers, some with a decimal comma."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column.dtype) or column.isna().all():
        return False
    cells = column.dropna().astype(str)
    return bool(cells.str.fullmatch(DECIMAL_COMMA).all() and cells.str.contains(",").any())


def line_numbers(path: Path, encoding: str, sep: str, above: int) -> list[int]:
    """The lines, from 1, on which rows begin: those after the first ``above`` lines that are
    neither blank nor inside a quoted cell.
    """
    blank, quoted, lines = " \t\r\n".replace(sep, ""), False, []
    with path.open(encoding=encoding, newline=None) as file:
        for number, line in enumerate(file, 1):
            if number <= above:
                continue
            if not quoted and line.strip(blank):
                lines.append(number)
            quoted ^= bool(line.count('"') % 2)
    return lines
