"""A folder of captioned images, curated into a new table of captions."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from latent_ebm.data.caption_table import read_captions
from latent_ebm.data.curation.base import Filter, Row
from latent_ebm.data.curation.chain import Curation, Report
from latent_ebm.data.curation.likeness import Likeness, Perceptual, Pixels
from latent_ebm.writing import atomic_path

JOURNAL, TABLE, REPORT, COUNTS = "journal.jsonl", "captions.jsonl", "report.jsonl", "counts.jsonl"


def folder_rows(folder: str | Path) -> Iterator[Row]:
    """The rows of a folder of captioned images, as ``CaptionedImages`` reads it, one by one.

    Raises ``ValueError`` and ``FileNotFoundError`` as ``CaptionedImages``, and ``ValueError`` for
    rows that have weights already.
    """
    folder = Path(folder).expanduser()
    paths, texts, weights, _ = read_captions(folder)
    if weights is not None and bool((weights != weights[0]).any()):
        raise ValueError(
            f"{folder} must have rows of equal weight, because curation weighs them, got "
            f"{float(weights.min()):g} to {float(weights.max()):g}"
        )
    pairs = zip(paths, texts, strict=True)
    return (Row(path.relative_to(folder).as_posix(), text, path) for path, text in pairs)


def curate(
    folder: str | Path,
    filters: Sequence[Filter],
    out: str | Path,
    *,
    copies: Sequence[Likeness] = (Pixels(),),
    near: Sequence[Likeness] = (Perceptual(),),
    chunk: int = 64,
) -> Report:
    """Curate a folder of captioned images, and write what was decided to a new folder ``out``.

    ``captions.jsonl`` has a line per row that is kept, with its caption, weight and cluster:
    ``CaptionedImages(folder, table="out/captions.jsonl")`` reads it, and keeps clusters together.
    ``report.jsonl`` has a line per row, with the filter that drops it and the reason, and
    ``counts.jsonl`` the rows that came to each filter and went on. If the run is killed, the same
    call goes on where it was, by ``journal.jsonl``. No image is changed.

    Args:
        folder: The folder, with images and a table of captions.
        filters: Judge the rows, one after the other.
        out: A new folder, or that of an earlier run with the same filters.
        copies: Of rows that are alike in one of these ways, only the first is kept.
        near: Rows that are alike in one of these ways share a weight.
        chunk: Number of rows that are held in memory at a time.

    Returns:
        The decisions and counts.

    Raises:
        ValueError: If ``folder`` cannot be read, or ``out`` belongs to something else.
        FileNotFoundError: If ``folder`` has no table of captions.
    """
    curation, out = Curation(filters, copies, near, chunk), Path(out).expanduser()
    if out.exists() and not (out / JOURNAL).is_file() and (out.is_file() or any(out.iterdir())):
        raise ValueError(f"out must be a new folder or that of an earlier run, got {str(out)!r}")
    rows = folder_rows(folder)
    out.mkdir(parents=True, exist_ok=True)
    report = curation(rows, out / JOURNAL)
    lines = {
        REPORT: (
            {k: v for k, v in d._asdict().items() if k != "caption"} for d in report.decisions
        ),
        TABLE: (
            {"file": d.name, "caption": d.caption, "weight": d.weight, "cluster": d.cluster}
            for d in report.kept
        ),
        COUNTS: (c._asdict() for c in report.counts),
    }
    for name, objects in lines.items():
        write_lines(out / name, objects)
    return report


def write_lines(path: Path, objects: Iterable[dict[str, object]]) -> None:
    """Write a line of JSON per object. The file appears complete or not at all."""
    with atomic_path(path) as draft, draft.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in objects)
