"""A chain of filters over a stream of rows, and what it decides.

Rows are judged in chunks: a row that one filter drops is not shown to the next. Of each row, its
name, caption, reason and prints are kept, not its image. When all rows have been seen, copies are
dropped, and each of the others gets the weight 1 / (size of its cluster of near copies), so that
the weights of a cluster add up to 1 (Imagen 3, arXiv:2408.07009, drops and weighs similar images).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latent_ebm.data.curation.base import Filter, Row
from latent_ebm.data.curation.journal import Journal, Judged, describe
from latent_ebm.data.curation.likeness import Likeness, Perceptual, Pixels, Prints, clusters
from samplers.checks import check_counts, check_kind

READING, COPIES = "Reading", "Copies"  # the first and the last step of every chain


class Decision(NamedTuple):
    """What becomes of a row.

    Args:
        name: The name of the row.
        caption: The caption that it goes on with; "" if it is dropped.
        filter: The filter that drops it; "" if it is kept.
        reason: Why it is dropped.
        weight: 1 / (size of its cluster); 0 if it is dropped.
        cluster: The name of the first row of its cluster; "" if it is dropped.
    """

    name: str
    caption: str
    filter: str
    reason: str
    weight: float
    cluster: str


class Count(NamedTuple):
    """How many rows came to a filter, and how many went on."""

    filter: str
    rows_in: int
    rows_out: int


class Report(NamedTuple):
    """What a curation decides.

    Args:
        decisions: One per row, in the order of the rows.
        counts: One per step: reading, every filter, and the search for copies.
    """

    decisions: list[Decision]
    counts: list[Count]

    @property
    def kept(self) -> list[Decision]:
        """The decisions on rows that are kept."""
        return [decision for decision in self.decisions if not decision.filter]


@dataclass(frozen=True)
class Curation:
    """Filters rows, drops copies, and weighs near copies.

    Called with rows, it returns a ``Report``. Images that cannot be read are dropped, too.

    Args:
        filters: Judge the rows, one after the other.
        copies: Of rows that are alike in one of these ways, only the first is kept.
        near: Rows that are alike in one of these ways share a weight.
        chunk: Number of rows that are held in memory at a time.

    Raises:
        ValueError: For filters and likenesses of another kind, or a chunk below 1.
    """

    filters: Sequence[Filter]
    copies: Sequence[Likeness] = (Pixels(),)
    near: Sequence[Likeness] = (Perceptual(),)
    chunk: int = 64

    def __post_init__(self) -> None:
        check_counts(self, chunk=self.chunk)
        for part in self.filters:
            check_kind(self, Filter, filters=part)
        for part in (*self.copies, *self.near):
            check_kind(self, Likeness, **{"copies and near": part})

    @property
    def steps(self) -> list[str]:
        """Names of all steps. Of filters of one class, the later ones are numbered."""
        seen, names = Counter[str](), [READING]
        for part in self.filters:
            name = type(part).__name__
            seen[name] += 1
            names.append(f"{name} {seen[name]}" if seen[name] > 1 else name)
        return [*names, COPIES]

    def __call__(self, rows: Iterable[Row], journal: Path | None = None) -> Report:
        """Judge ``rows``.

        Args:
            rows: The rows. They are read once, a chunk at a time.
            journal: A file that keeps what was decided. If it has been begun, the run goes on
                from there: the same rows must come again, but their images are not looked at.
                The filters are compared by their fields or attributes as a run begins.

        Raises:
            ValueError: If two rows have one name; if the journal is of other filters or rows, or
                was changed.
        """
        book = (
            Journal(journal, describe((self.filters, self.copies, self.near))) if journal else None
        )
        judged = list(book.judged) if book else []
        stream = checked(rows, judged)
        while part := list(islice(stream, self.chunk)):
            found = self.judge(part)
            part.clear()  # the next chunk is read while this name still holds the last one
            judged += found
            if book:
                book.write(found)
        return self.decide(judged)

    def judge(self, rows: Sequence[Row]) -> list[Judged]:
        """What the filters say of ``rows``, and the prints of those that they keep."""
        names, stamps = [row.name for row in rows], [row.stamp for row in rows]
        dropped: dict[int, tuple[int, str]] = {}
        left = dict(enumerate(rows))
        for step, part in enumerate((read, *self.filters)):
            answers = ask(part, list(left.values())) if left else []
            for place, answer in zip(list(left), answers, strict=True):
                if isinstance(answer, str):
                    dropped[place] = step, answer
                    del left[place]
                else:
                    left[place] = answer
        likenesses = (*self.copies, *self.near)
        prints = [part.prints(list(left.values())) for part in likenesses] if left else []
        printed = {place: [p[k].tobytes().hex() for p in prints] for k, place in enumerate(left)}
        return [
            Judged(name, stamp, "", *dropped[i], [])
            if i in dropped
            else Judged(name, stamp, left[i].caption, -1, "", printed[i])
            for i, (name, stamp) in enumerate(zip(names, stamps, strict=True))
        ]

    def decide(self, judged: Sequence[Judged]) -> Report:
        """Find copies and near copies among rows that the filters keep, and count."""
        left = [row for row in judged if row.step < 0]
        num = len(self.copies)
        first = first_of(self.copies, [row.prints[:num] for row in left])
        unique = [row for k, row in enumerate(left) if first[k] == k]
        near = first_of(self.near, [row.prints[num:] for row in unique])
        sizes = np.bincount(near, minlength=len(unique))
        found: dict[str, Decision] = {}
        for row, k in zip(unique, near.tolist(), strict=True):
            weight = 1 / int(sizes[k])
            found[row.name] = Decision(row.name, row.caption, "", "", weight, unique[k].name)
        for row, k in zip(left, first.tolist(), strict=True):
            reason = f"a copy of {left[k].name}"
            found.setdefault(row.name, Decision(row.name, "", COPIES, reason, 0.0, ""))
        steps = self.steps
        decisions = [
            found[row.name]
            if row.step < 0
            else Decision(row.name, "", steps[row.step], row.reason, 0.0, "")
            for row in judged
        ]
        return Report(decisions, count(steps, decisions))


def ask(judge: Callable[[Sequence[Row]], object], rows: Sequence[Row]) -> list[Row | str]:
    """The answers of a filter about ``rows``. Raises ``ValueError`` unless each of them is a row
    of the same name or a reason.
    """
    answers = judge(rows)
    if not isinstance(answers, list) or len(answers) != len(rows):
        got = len(answers) if isinstance(answers, list) else type(answers).__name__
        rule = f"a list of {len(rows)} answers, one per row"
        raise ValueError(f"{type(judge).__name__}: a filter must return {rule}, got {got}")
    for row, answer in zip(rows, answers, strict=True):
        if not (answer.name == row.name if isinstance(answer, Row) else is_reason(answer)):
            raise ValueError(
                f"{type(judge).__name__}: a filter must return the row or a reason that is not "
                f"empty, got {answer!r} for {row.name!r}"
            )
    return answers


def is_reason(answer: object) -> bool:
    return isinstance(answer, str) and bool(answer)


def read(rows: Sequence[Row]) -> list[Row | str]:
    """The rows whose image can be read."""
    return [unreadable(row) or row for row in rows]


def unreadable(row: Row) -> str:
    """Why the image of ``row`` cannot be read; nothing if it can."""
    try:
        return "" if row.image.numel() else "no pixels"
    except ValueError as error:
        return str(error)


def checked(rows: Iterable[Row], judged: Sequence[Judged]) -> Iterator[Row]:
    """The rows that come after those that were judged before, which must be the same again.

    Raises ``ValueError`` if they are not, or if two rows have one name.
    """
    names, num = set[str](), 0
    for row in rows:
        if row.name in names:
            raise ValueError(f"rows must have different names, got {row.name!r} twice")
        names.add(row.name)
        num += 1
        if num > len(judged):
            yield row
        elif (row.name, row.stamp) != judged[num - 1][:2]:
            raise ValueError(
                f"rows must be those of the journal, in its order, got {row.name!r}, another or "
                f"changed, for {judged[num - 1].name!r}; choose a new folder to start anew"
            )
    if num < len(judged):
        raise ValueError(f"rows must be those of the journal, got {num} of {len(judged)}")


def first_of(likenesses: Sequence[Likeness], prints: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """For each row, the position of the first row of its cluster."""
    if not (likenesses and prints):
        return np.arange(len(prints))
    columns = zip(*prints, strict=True)
    label = clusters(likenesses, [as_prints(column) for column in columns])
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)]


def as_prints(column: Sequence[str]) -> Prints:
    """Prints (n, bytes) that were kept as text. Raises ``ValueError`` if their lengths differ."""
    if len(lengths := {len(text) // 2 for text in column}) > 1:
        raise ValueError(f"prints of a likeness must have one length, got {sorted(lengths)} bytes")
    return np.frombuffer(bytes.fromhex("".join(column)), np.uint8).reshape(len(column), -1)


def count(steps: Sequence[str], decisions: Sequence[Decision]) -> list[Count]:
    """Rows that came to each of ``steps`` and went on."""
    dropped, counts, left = Counter(d.filter for d in decisions), [], len(decisions)
    for step in steps:
        counts.append(Count(step, left, left - dropped[step]))
        left -= dropped[step]
    return counts
