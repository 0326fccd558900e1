"""A journal of curation loses no line, and tells filters apart by what is inside them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch

from latent_ebm.data.curation import CaptionScore, Curation, Filter, Pixels, Row, Size, Terms
from latent_ebm.data.curation.journal import describe


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [Row(f"{i}.png", f"shape {i}", torch.full((3, 8, 8), i / 9)) for i in range(6)]


def test_a_torn_line_is_cut_off_in_place(rows: list[Row], tmp_path: Path) -> None:
    """A disk that is full at that moment, or a kill, loses no whole line."""
    resource = pytest.importorskip("resource")
    curation, journal = Curation([Size(4)], chunk=2), tmp_path / "journal.jsonl"
    whole = curation(rows, journal)
    content = journal.read_bytes()
    journal.write_bytes(content[:-5])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            curation(rows, journal)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert journal.read_bytes() == content[: content.rfind(b"\n", 0, -1) + 1]
    assert curation(rows, journal) == whole
    assert journal.read_bytes() == content


class Short(Filter):
    """A filter that is no dataclass."""

    def __init__(self, most: int) -> None:
        self.most, self.self = most, self

    def __call__(self, rows: Sequence[Row]) -> list[Row | str]:
        return [row if len(row.caption) <= self.most else "long" for row in rows]

    def score(self, captions: list[str], scale: float = 1.0) -> list[float]:
        return [scale * (len(text) - self.most) for text in captions]


def scaled(scale: float) -> Filter:
    return CaptionScore(lambda texts: [scale * len(text) for text in texts])


def by_default(scale: float) -> Filter:
    return CaptionScore(lambda texts, scale=scale: [scale * len(text) for text in texts])


PAIRS_OF_FILTERS: dict[str, tuple[Filter, Filter]] = {
    "attributes": (Short(3), Short(100)),
    "constants": (
        CaptionScore(lambda texts: [len(text) - 3 for text in texts]),
        CaptionScore(lambda texts: [len(text) - 4 for text in texts]),
    ),
    "names": (
        CaptionScore(lambda texts: [len(text) for text in texts]),
        CaptionScore(lambda texts: [hash(text) for text in texts]),
    ),
    "closures": (scaled(1.0), scaled(2.0)),
    "defaults": (by_default(1.0), by_default(2.0)),
    "methods": (CaptionScore(Short(3).score), CaptionScore(Short(4).score)),
    "partials": (
        CaptionScore(partial(Short(3).score, scale=1.0)),
        CaptionScore(partial(Short(3).score, scale=2.0)),
    ),
}


@pytest.mark.parametrize("name", PAIRS_OF_FILTERS)
def test_a_journal_of_filters_that_differ_inside_is_refused(
    rows: list[Row], tmp_path: Path, name: str
) -> None:
    one, other = PAIRS_OF_FILTERS[name]
    report = Curation([one])(rows, tmp_path / "journal")
    assert Curation([one])(rows, tmp_path / "journal") == report
    with pytest.raises(ValueError, match="must be of the same filters"):
        Curation([other])(rows, tmp_path / "journal")


SOURCE = """
import threading
from functools import cache, partial

class Filter:
    def __init__(self, nine):
        self.words, self.none, self.lock = set(nine), object(), threading.Lock()
        self.own = {"score": self.score, "all": [cache(kept), partial(kept, 3), self]}

    def score(self, text):
        return text in {"a", "b"} and any(kept(t) for t in text)

def kept(text):
    return len(text) > 3

parts = [Filter(nine), Filter(nine).score, lambda text: [kept(t) for t in text]]
"""


def test_filters_are_described_the_same_way_in_the_next_run() -> None:
    """Whatever the order of sets, the addresses of objects, and what Python has optimised."""
    told = set[str]()
    for nine in ([0, 8], [8, 0]):  # sets of these have different orders
        run = {"__name__": "__main__", "nine": nine}
        exec(SOURCE, run)
        told.add(describe(run["parts"]))
        for _ in range(100):
            run["parts"][1]("a")  # pyright: ignore
        told.add(describe(run["parts"]))
    assert len(told) == 1
    assert " at 0x" not in told.pop()


def test_descriptions_of_dataclasses_and_plain_values_stay_as_they_were() -> None:
    values = [Size(16), Terms(["bomb"]), {"a": {1, 2}}, Pixels(), None, "x at 0x1", len, int]
    assert describe(values) == (
        "[Size(least=16, aspect=3.0), Terms(terms=['bomb'], patterns=[]), {'a': {1, 2}}, "
        "Pixels(), None, 'x at 0x1', len, int]"
    )
