"""Tables of captions: ``captions.csv`` or ``captions.jsonl``, beside images or elsewhere.

The columns are ``file`` and ``caption``, and if need be ``weight`` and ``cluster``.
"""

import csv
import json
import reprlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch
from torch import Tensor

from latent_ebm.files.images import SUFFIXES, find_images
from latent_ebm.foreign import check_file, reading
from latent_ebm.text.tokenizer import check_prompt
from samplers.checks import check_numbers

TABLES, COLUMNS = ("captions.csv", "captions.jsonl"), ("file", "caption")
WEIGHT, CLUSTER, SUFFIX = "weight", "cluster", (".csv", ".jsonl")
MAX_TABLE = 2**28  # bytes


class Line(NamedTuple):
    """A row of a table of captions; ``weight`` is None if the table has no weights, and
    ``cluster`` is "" if the row has no near copies that are known.
    """

    file: str
    caption: str
    weight: float | None
    cluster: str


def find_table(folder: Path) -> Path:
    """The table of captions in ``folder``. Raises ``FileNotFoundError`` if there is none, and
    ``ValueError`` if there are two.
    """
    found = [folder / name for name in TABLES if (folder / name).is_file()]
    if not found:
        rule = f"path must name a folder with {' or '.join(TABLES)}"
        raise FileNotFoundError(f"{rule}, got {str(folder)!r}")
    if len(found) > 1:
        raise ValueError(f"{folder} must hold one table of captions, got {' and '.join(TABLES)}")
    return found[0]


def read_table(path: Path) -> list[Line]:
    """Rows of a table of captions. Raises ``ValueError`` if the file is large, unless all rows
    have a file and a caption, and unless all or none have a positive weight.
    """
    check_file(path, "a table of captions")
    if path.suffix not in SUFFIX:
        raise ValueError(f"table must end in {' or '.join(SUFFIX)}, got {str(path)!r}")
    if (size := path.stat().st_size) > MAX_TABLE:
        raise ValueError(f"{path} must have at most {MAX_TABLE:,} bytes, got {size:,}")
    what = "a file and a caption per row"
    with reading(path, what), path.open(encoding="utf-8-sig", newline="") as file:
        lines = named(file) if path.suffix == ".csv" else objects(file)
        rows = []
        for number, row in enumerate(lines, 1):
            for name in COLUMNS:
                if not isinstance(row.get(name), str) or not row[name].strip():
                    raise ValueError(f"row {number} has no {name}")
            file_name, caption = (row[name].strip() for name in COLUMNS)
            rows.append(Line(file_name, caption, as_weight(row, number), as_cluster(row, number)))
        if not rows:
            raise ValueError("it has no rows")
        without = [number for number, row in enumerate(rows, 1) if row.weight is None]
        if 0 < len(without) < len(rows):
            raise ValueError(f"row {without[0]} has no {WEIGHT}, but others have one")
    return rows


def as_weight(row: Mapping[str, object], number: int) -> float | None:
    """The weight of a row; None if there is none. Raises ``ValueError`` unless it is positive."""
    value = row.get(WEIGHT)
    if value is None or value == "":
        return None
    try:
        weight = float(value) if isinstance(value, str) else value
    except ValueError:
        weight = value
    check_numbers(f"row {number}", "positive", weight=weight)
    return float(str(weight))


def as_cluster(row: Mapping[str, object], number: int) -> str:
    """The cluster of a row; "" if there is none. Raises ``ValueError`` unless it is a name."""
    name = row.get(CLUSTER)
    if not isinstance(name, str | None):
        raise ValueError(f"row {number}: cluster must be a name, got {reprlib.repr(name)}")
    return (name or "").strip()


def named(lines: Iterable[str]) -> Iterable[dict[str, str]]:
    """Rows of a table whose first line names a file and a caption."""
    rows = csv.DictReader(lines, strict=True)
    if rows.fieldnames and not set(COLUMNS) <= set(rows.fieldnames):
        first = reprlib.repr(",".join(rows.fieldnames))
        raise ValueError(f"its first line must name {' and '.join(COLUMNS)}, got {first}")
    return rows


def objects(lines: Iterable[str]) -> Iterable[dict[str, str]]:
    """The JSON object of every line that is not blank."""
    for line in lines:
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(
                    f"each line must be an object of JSON, got a {type(row).__name__}"
                )
            yield row


def read_captions(
    folder: Path, table: Path | None = None
) -> tuple[list[Path], list[str], Tensor | None, list[str]]:
    """Images of ``folder``, their captions, their weights (n,) if there are any, and their
    clusters, in the order of ``table``; None: the table in the folder.

    Warns of images without a caption, unless ``table`` is given. Raises ``ValueError`` if an image
    is missing, named twice or outside of the folder, or if a caption holds control characters.
    """
    chosen = table is not None
    table = table if chosen else find_table(folder)
    rows = read_table(table)
    names = [str(PurePosixPath(row.file)) for row in rows]
    first: dict[str, int] = {}
    for number, (name, row) in enumerate(zip(names, rows, strict=True), 1):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{table} must name images inside its folder, got {name!r}")
        if (before := first.setdefault(name, number)) != number:
            raise ValueError(
                f"{table} must name every image once, got {name!r} in rows {before} and {number}"
            )
        check_prompt(f"the caption of {name!r} in {table}", row.caption)
    left = check_images(folder, table, names)
    if left and not chosen:
        warnings.warn(f"{left} images of {folder} have no caption and are left out", stacklevel=2)
    weights = torch.tensor([row.weight for row in rows if row.weight is not None])
    return (
        [folder / name for name in names],
        [row.caption for row in rows],
        weights if len(weights) else None,
        [row.cluster or name for name, row in zip(names, rows, strict=True)],
    )


def check_images(folder: Path, table: Path, names: Sequence[str]) -> int:
    """The number of images of ``folder`` that are not among ``names``. Raises ``ValueError`` for
    ``names`` that are no images of it.
    """
    present = {path.relative_to(folder).as_posix() for path in find_images(folder)}
    if odd := [name for name in names if name not in present and (folder / name).is_file()]:
        raise ValueError(f"{table} must name images ({', '.join(SUFFIXES)}), got {odd[0]!r}")
    if missing := [name for name in names if name not in present]:
        raise ValueError(
            f"{table} must name images that exist: {len(missing)} of {len(names)} do not, the "
            f"first {missing[0]!r}"
        )
    return len(present - set(names))
