"""Emoji in files: a folder with pictures in several styles, their names, and which are held out.

- ``emoji_rows.csv``: one row per emoji with its name, keywords (``tags``, joined by ``|``),
  group, subgroup, tone, gender and base.
- ``emoji_<style>_64.npz``: ``png``, the bytes of all PNG files end to end; ``offset`` (n + 1),
  where each begins; ``row`` (n,), the line of each in the table; ``hexcode`` (n,).
- ``emoji_splits.json``: lists of hexcodes by the name of their split.
"""

import csv
import io
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latent_ebm.data.glyphs import MAX_SIDE, Glyphs, as_images, check_side, join, to_side
from latent_ebm.files.arrays import array_names, load_array
from latent_ebm.foreign import check_file, check_zip, read_json, reading

ENVIRONMENT, FOLDER = "LATENT_EBM_DATA", "emoji"
ROWS, SPLITS, PICTURES = "emoji_rows.csv", "emoji_splits.json", "emoji_{style}_64.npz"
ARRAYS = ("png", "offset", "row", "hexcode")
FIELDS = ("hexcode", "name", "tags", "group", "subgroup", "tone", "gender", "base")
MAX_BYTES, MAX_TABLE = 2**28, 2**24  # bytes of a style's pictures when unpacked; of the table
PLAIN = "pictures of emoji"

Row = dict[str, str]


def find_pack(folder: str | None = None) -> Path:
    """``folder``, else the folder that ``LATENT_EBM_DATA`` names, or its ``emoji``.

    Raises ``FileNotFoundError`` if there is no ``emoji_rows.csv`` in it.
    """
    named = folder or os.environ.get(ENVIRONMENT)
    source = "folder" if folder else f"the environment variable {ENVIRONMENT}"
    for place in [Path(named).expanduser(), Path(named).expanduser() / FOLDER] if named else []:
        if (place / ROWS).is_file():
            return place
    raise FileNotFoundError(f"{source} must name a folder with {ROWS}, got {named!r}")


def read_pack(
    folder: str | None = None, styles: Sequence[str] = ("twemoji",), side: int = 64
) -> Glyphs:
    """The glyphs of all ``styles`` at ``side`` x ``side`` pixels, style after style.

    Raises:
        FileNotFoundError: If the folder or a file of it is missing.
        ValueError: If a file is damaged, too large, or does not fit the others; in one sentence
            that names the file.
    """
    check_side("read_pack", side)
    if isinstance(styles, str) or not styles or len(set(styles)) < len(styles):
        raise ValueError(f"styles must be a list of different names, got {styles!r}")
    place = find_pack(folder)
    rows = read_rows(place / ROWS)
    return join([_read_style(place, style, rows, side) for style in styles])


def read_rows(path: Path) -> list[Row]:
    """The table of emoji. Raises ``ValueError`` if it is damaged or a column is missing."""
    check_file(path, "a table of emoji")
    if path.stat().st_size > MAX_TABLE:
        raise ValueError(f"{path} must have at most {MAX_TABLE:,} bytes")
    with reading(path, "a table of emoji"), path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file, strict=True)
        missing = [field for field in FIELDS if field not in (table.fieldnames or [])]
        if missing:
            raise ValueError(f"it has no column {', '.join(missing)}")
        rows = list(table)
        for line, row in enumerate(rows):
            if None in row.values() or None in row:
                raise ValueError(f"row {line} does not have one cell per column")
    return rows


def read_splits(folder: str | None = None) -> dict[str, frozenset[str]]:
    """Hexcodes by split. Raises ``ValueError`` for a split that names an unknown emoji."""
    place = find_pack(folder)
    content = read_json(place / SPLITS, "splits of emoji")
    known = {row["hexcode"] for row in read_rows(place / ROWS)}
    splits = {}
    for name, codes in content.items():
        if not (isinstance(codes, list) and all(isinstance(code, str) for code in codes)):
            raise ValueError(f"{place / SPLITS} must hold lists of texts, got another {name}")
        if not name.endswith("held_out"):
            continue
        if unknown := sorted(set(codes) - known):
            raise ValueError(
                f"{name} of {place / SPLITS} must name emoji of {ROWS}, got {unknown[0]!r}"
            )
        splits[name] = frozenset(codes)
    return splits


def _read_style(place: Path, style: str, rows: list[Row], side: int) -> Glyphs:
    path = place / PICTURES.format(style=style)
    if not path.is_file():
        head, tail = PICTURES.split("{style}")
        known = sorted(p.name[len(head) : -len(tail)] for p in place.glob(f"{head}*{tail}"))
        raise FileNotFoundError(
            f"styles must be some of {', '.join(known) or '(none)'} in {place}, got {style!r}"
        )
    png, offset, row, codes = _read_arrays(path)
    if row.min() < 0 or row.max() >= len(rows):
        raise ValueError(f"row of {path} must lie in 0 to {len(rows) - 1}, as {ROWS} has")
    kept = [rows[i] for i in row.tolist()]
    for i, (entry, code) in enumerate(zip(kept, codes.tolist(), strict=True)):
        if entry["hexcode"] != code:
            raise ValueError(
                f"hexcode of {path} must agree with {ROWS}, got {code!r} for {entry['hexcode']!r} "
                f"at glyph {i}"
            )
    content = png.tobytes()
    spans = zip(pairwise(offset.tolist()), codes.tolist(), strict=True)
    pictures = [decode(content[a:b], path, code, side) for (a, b), code in spans]
    return glyphs_of(pictures, kept, style)


def _read_arrays(path: Path) -> list[NDArray]:
    """``png``, ``offset``, ``row`` and ``hexcode`` of a style, of types and sizes that fit."""
    check_zip(path, MAX_BYTES, PLAIN)
    missing = [name for name in ARRAYS if name not in (array_names(path) or [])]
    if missing:
        raise ValueError(f"{path} must hold {', '.join(ARRAYS)}, got no {', '.join(missing)}")
    arrays = [load_array(path, name, MAX_BYTES, "numbers or texts") for name in ARRAYS]
    png, offset, row, codes = arrays
    if [array.dtype.kind for array in arrays] != ["u", "i", "i", "U"] or png.dtype != np.uint8:
        types = ", ".join(str(array.dtype) for array in arrays)
        raise ValueError(f"{path} must hold bytes, integers, integers and texts, got {types}")
    if any(array.ndim != 1 for array in arrays) or not len(row) == len(codes) == len(offset) - 1:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise ValueError(f"{path} must hold (bytes,), (n + 1,), (n,) and (n,), got {shapes}")
    if not len(row):
        raise ValueError(f"{path} must hold at least one picture, got none")
    if offset[0] != 0 or offset[-1] != len(png) or (np.diff(offset) < 0).any():
        raise ValueError(f"offset of {path} must rise from 0 to {len(png)}")
    return arrays


def decode(content: bytes, path: Path, code: str, side: int) -> Image.Image:
    """One picture of ``path``, as RGBA at ``side``. Raises ``ValueError`` if there is none."""
    if not content:
        raise ValueError(f"{path} must hold a picture of every glyph, got none of {code!r}")
    with reading(path, f"a PNG picture of {code!r}"):
        picture = Image.open(io.BytesIO(content), formats=["PNG"])
        if picture.width != picture.height or picture.width > MAX_SIDE:
            raise ValueError(
                f"it must be square with at most {MAX_SIDE} pixels a side, got {picture.width} x "
                f"{picture.height}"
            )
        return to_side(picture.convert("RGBA"), side)


def glyphs_of(pictures: Sequence[Image.Image], rows: Sequence[Row], style: str) -> Glyphs:
    """Pictures and their rows as ``Glyphs``."""
    columns = {
        name: [row[name] for row in rows] for name in FIELDS if name not in ("name", "tags")
    }
    return Glyphs(
        as_images(pictures),
        names=[row["name"] for row in rows],
        keywords=[keywords_of(row["tags"]) for row in rows],
        style=[style] * len(rows),
        **columns,
    )


def keywords_of(tags: str) -> tuple[str, ...]:
    """The keywords of a cell; those without a letter or digit, such as ``*``, are no captions."""
    return tuple(tag for tag in tags.split("|") if any(map(str.isalnum, tag)))
