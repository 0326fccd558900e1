"""A curation streams, counts, resumes as if unbroken, and writes a table with weights."""

import json
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from latent_ebm.cli import main
from latent_ebm.data import CaptionedImages, draw_shapes
from latent_ebm.data.curation import (
    Curation,
    Filter,
    Mixture,
    Noise,
    PersonalData,
    Pixels,
    Row,
    Sharpness,
    Size,
    Templates,
    Terms,
    curate,
    folder_rows,
)
from tests.latent_ebm.test_curation_filters import blurred, jpeg, picture

FILTERS = [Size(16), Sharpness(0.05), Terms(["bomb"]), Terms(["kill"]), PersonalData()]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Twenty shapes, ten near copies, three exact ones, and one row for each filter."""
    x = draw_shapes(32).on(torch.ones(3))[::9]
    images = [*x[:20], *(jpeg(image, 90) for image in x[:10]), *x[:3]]
    found = [Row(f"{i}.png", f"shape {i}", image) for i, image in enumerate(images)]
    bad = [
        ("small", "a shape", x[0, :, :9, :9]),
        ("blurred", "a shape", blurred(x[0], 3)),
        ("bomb", "a b0mb", x[20]),
        ("kill", "k.i.l.l", x[20]),
        ("mail", "a@example.com", x[20]),
        ("empty", "nothing", torch.zeros(1, 4, 4)),
    ]
    order = torch.randperm(39, generator=torch.Generator().manual_seed(0)).tolist()
    every = [*found, *(Row(*row) for row in bad)]
    return [every[i] for i in order]


def test_every_row_has_a_reason_and_counts_add_up(rows: list[Row]) -> None:
    report = Curation(FILTERS, chunk=7)(rows)
    assert [d.name for d in report.decisions] == [row.name for row in rows]
    dropped = {d.name: (d.filter, d.reason) for d in report.decisions if d.filter}
    assert dropped["small"] == ("Size", "9 x 9 pixels, a side below 16")
    assert dropped["blurred"][0] == "Sharpness"
    assert dropped["bomb"] == ("Terms", "term 'bomb'")
    assert dropped["kill"] == ("Terms 2", "term 'kill'")
    assert dropped["mail"] == ("PersonalData", "an e-mail address")
    assert dropped["empty"][0] == "Reading"
    assert "must be (3, H, W), got (1, 4, 4)" in dropped["empty"][1]
    assert Counter(step for step, _ in dropped.values())["Copies"] == 3
    assert len(dropped) == 9
    steps = ["Reading", "Size", "Sharpness", "Terms", "Terms 2", "PersonalData", "Copies"]
    assert [count.filter for count in report.counts] == steps
    assert [(c.rows_in, c.rows_out) for c in report.counts] == [
        *((39 - k, 38 - k) for k in range(6)),
        (33, 30),
    ]
    assert all(d.caption == "" and d.weight == 0 for d in report.decisions if d.filter)
    assert Counter(d.weight for d in report.kept) == {1.0: 10, 0.5: 20}
    assert sum(d.weight for d in report.kept) == 20


def test_captions_are_those_that_a_filter_gave_last(rows: list[Row]) -> None:
    mixtures = [Mixture([Templates([f"{word} {{caption}}"])], [1.0]) for word in ("two", "one")]
    report = Curation(mixtures, chunk=7)(rows)
    captions = {row.name: row.caption for row in rows}
    assert all(d.caption == f"one two {captions[d.name]}" for d in report.kept)


def test_a_chunk_is_on_the_disk_before_the_next_one(
    rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "journal", list[int]()
    monkeypatch.setattr(
        "latent_ebm.data.curation.journal.os.fsync",
        lambda _: synced.append(path.read_bytes().count(b"\n")),
    )
    Curation([], chunk=10)(rows, path)
    assert synced == [1, 2, 3, 4, 5]  # the chain and four chunks


def test_chunks_do_not_change_what_is_decided(rows: list[Row]) -> None:
    reports = [Curation(FILTERS, chunk=chunk)(rows) for chunk in (1, 7, 1000)]
    assert reports[0] == reports[1] == reports[2]


class Killed(Exception):
    pass


def cut_after(rows: Sequence[Row], num: int) -> Iterator[Row]:
    yield from rows[:num]
    raise Killed


@pytest.mark.parametrize("num", [0, 5, 17, 39])
def test_a_killed_run_resumes_where_it_was(rows: list[Row], tmp_path: Path, num: int) -> None:
    curation = Curation([*FILTERS, Mixture([Templates(["the {caption}"])], [0.5])], chunk=5)
    whole = curation(rows)
    journal = tmp_path / "journal.jsonl"
    with pytest.raises(Killed):
        curation(cut_after(rows, num), journal)
    judged = 5 * (num // 5)
    later = [CountedRow(row.name, row.caption, row.source) for row in rows]
    assert curation(later, journal) == whole
    assert [row.looked for row in later[:judged]] == [False] * judged
    assert all(row.looked for row in later[judged:])
    assert curation(rows, journal) == whole  # a finished run, once more


class CountedRow(Row):
    """A row that knows whether its image was looked at."""

    looked = False

    @property
    def image(self) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        object.__setattr__(self, "looked", True)
        return Row(self.name, self.caption, self.source).image


def test_a_journal_that_is_cut_anywhere_leads_to_the_same_end(
    rows: list[Row], tmp_path: Path
) -> None:
    curation, journal = Curation(FILTERS, chunk=10), tmp_path / "journal.jsonl"
    whole = curation(rows, journal)
    content = journal.read_bytes()
    for end in (0, 1, 50, len(content) // 3, len(content) // 2, len(content) - 1, len(content)):
        journal.write_bytes(content[:end])
        assert curation(rows, journal) == whole
        assert journal.read_bytes() == content


def test_personal_data_and_dropped_captions_are_not_kept(rows: list[Row], tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    Curation(FILTERS)(rows, journal)
    assert "example.com" not in journal.read_text()
    assert "b0mb" not in journal.read_text()


def test_a_journal_that_was_changed_or_belongs_to_others_is_refused(
    rows: list[Row], tmp_path: Path
) -> None:
    curation, journal = Curation(FILTERS, chunk=10), tmp_path / "journal.jsonl"
    curation(rows, journal)
    content = journal.read_text()
    lines = content.splitlines(keepends=True)
    for changed in (
        content.replace("shape 3", "shape 4", 1),
        "".join([*lines[:2], *lines[3:]]),
        "".join([lines[0], lines[2], lines[1], *lines[3:]]),
        "[]\n",
        "{\n",
    ):
        journal.write_text(changed)
        with pytest.raises(
            ValueError, match=r"must hold a journal of curation, as it was written"
        ):
            curation(rows, journal)
        assert journal.read_text() == changed
    journal.write_text(content)
    for other in (FILTERS[1:], [Size(17), *FILTERS[1:]]):
        with pytest.raises(ValueError, match=r"must be of the same filters, got one of '\[\[Size"):
            Curation(other)(rows, journal)
    caption = [Row(rows[0].name, "other", rows[0].source), *rows[1:]]
    image = [Row(rows[0].name, rows[0].caption, rows[1].source), *rows[1:]]
    for changed_rows in (caption, image, rows[1:], rows[::-1]):
        with pytest.raises(ValueError, match=r"rows must be those of the journal, in its order"):
            curation(changed_rows, journal)
    with pytest.raises(ValueError, match=r"rows must be those of the journal, got 9 of 39"):
        curation(rows[:9], journal)
    assert journal.read_text() == content
    more = [*rows, Row("new", "a new shape", rows[0].source)]
    assert curation(more, journal) == curation(more)


@pytest.mark.parametrize("content", [b"my own notes", b"{}", b"\x89PNG"])
def test_what_is_no_beginning_of_a_journal_is_left_alone(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=r"must hold a journal of curation, as it was written"):
        Curation([])([], tmp_path / "journal.jsonl")
    assert (tmp_path / "journal.jsonl").read_bytes() == content


def test_rows_that_have_weights_are_not_weighed_anew(folder: Path, tmp_path: Path) -> None:
    lines = read_lines(folder / "captions.jsonl")

    def weigh(weights: Callable[[int], float]) -> None:
        weighed = [json.dumps({**line, "weight": weights(i)}) for i, line in enumerate(lines)]
        (folder / "captions.jsonl").write_text("\n".join(weighed))

    weigh(lambda _: 1.0)
    plain = curate(folder, [], tmp_path / "plain")
    weigh(lambda _: 3.0)
    assert curate(folder, [], tmp_path / "three") == plain
    weigh(lambda i: 1.0 + (i > 3))
    with pytest.raises(ValueError, match=r"must have rows of equal weight, .* got 1 to 2"):
        curate(folder, [], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_no_more_than_a_chunk_is_held() -> None:
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0

    def stream() -> Iterator[Row]:
        nonlocal most
        for i in range(100):
            most = max(most, len(alive))
            x = torch.full((3, 8, 8), i / 99)
            alive.add(x)
            yield Row(f"{i}", "a", x)
            del x

    report = Curation([Size(4)], near=[Pixels()], chunk=8)(stream())
    assert len(report.kept) == 100
    assert 7 <= most <= 8


@dataclass(frozen=True)
class Answer(Filter):
    answer: object

    def __call__(self, rows: Sequence[Row]) -> list[Row | str]:
        return self.answer  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, r"Answer: a filter must return a list of 1 answers, one per row, got NoneType"),
        ([], r"a list of 1 answers, one per row, got 0"),
        ([""], r"must return the row or a reason that is not empty, got ''"),
        ([None], r"must return the row or a reason that is not empty, got None for 'a'"),
        ([Row("b", "b", torch.zeros(3, 4, 4))], r"must return the row or a reason"),
    ],
)
def test_answers_of_a_filter_are_checked(answer: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Curation([Answer(answer)])([Row("a", "a", torch.zeros(3, 4, 4))])


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: Curation([], chunk=0), r"Curation: chunk must be an integer >= 1, got 0"),
        (lambda: Curation([len]), r"Curation: filters must be a Filter, got <built-in"),  # pyright: ignore
        (lambda: Curation([], near=[Size(1)]), r"copies and near must be a Likeness"),  # pyright: ignore
        (
            lambda: Curation([])([Row("a", "a", torch.zeros(3, 1, 1))] * 2),
            r"rows must have different names, got 'a' twice",
        ),
    ],
)
def test_bad_input_is_refused(run: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run()


def test_nothing_is_left_of_no_rows() -> None:
    report = Curation(FILTERS)([])
    assert report.decisions == report.kept == []
    assert {(c.rows_in, c.rows_out) for c in report.counts} == {(0, 0)}


@pytest.fixture
def folder(rows: list[Row], tmp_path: Path) -> Path:
    """The rows as a folder of images, one of which is broken."""
    place = tmp_path / "images"
    place.mkdir()
    lines = []
    for row in rows[:30]:
        if row.name != "empty":
            name = row.name.removesuffix(".png") + ".png"
            picture(row.image).save(place / name)
            lines.append({"file": name, "caption": row.caption})
    (place / "0.png").write_bytes(b"no image")
    (place / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


def read_lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_is_curated_into_a_table_that_data_modules_read(
    folder: Path, tmp_path: Path
) -> None:
    out, before = tmp_path / "out", {p: p.read_bytes() for p in folder.iterdir()}
    report = curate(folder, FILTERS, out)
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    lines, table = read_lines(out / "report.jsonl"), read_lines(out / "captions.jsonl")
    assert [line["name"] for line in lines] == [row.name for row in folder_rows(folder)]
    broken = next(line for line in lines if line["name"] == "0.png")
    assert broken["filter"] == "Reading"
    assert "0.png must hold a plain image" in str(broken["reason"])
    assert [(r["file"], r["caption"], r["weight"]) for r in table] == [
        (d.name, d.caption, d.weight) for d in report.kept
    ]
    assert 0.5 in {row["weight"] for row in table}
    assert read_lines(out / "counts.jsonl") == [count._asdict() for count in report.counts]
    assert "example.com" not in "".join(p.read_text() for p in out.iterdir())

    data = CaptionedImages(str(folder), table=str(out / "captions.jsonl"), num_val=1, num_test=1)
    data.setup()
    weight = {d.caption: d.weight for d in report.kept}
    assert data.train.weights is not None
    assert data.train.weights.tolist() == [weight[text] for text in data.train.texts]

    files = {p.name: p.read_bytes() for p in out.iterdir()}
    assert curate(folder, FILTERS, out) == report
    assert {p.name: p.read_bytes() for p in out.iterdir()} == files


def test_the_command_does_what_the_function_does(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "terms.txt").write_text("circle\n")
    options = ["--least-side", "8", "--noise", "9", "--terms", str(tmp_path / "terms.txt")]
    options += ["--sharpness", "0.01", "--personal-data"]
    for _ in range(2):  # the second run goes on from the end of the first
        assert main(["curate", str(folder), "--out", str(tmp_path / "a"), *options]) == 0
    filters = [Size(8), Sharpness(0.01), Noise(9), Terms(["circle"]), PersonalData()]
    report = curate(folder, filters, tmp_path / "b")
    for name in ("captions.jsonl", "report.jsonl", "counts.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert f"{len(report.kept)} of {len(report.decisions)} rows" in capsys.readouterr().out
    assert main(["curate", str(folder), "--out", str(tmp_path / "a"), "--noise", "9"]) == 1
    assert "must be of the same filters" in capsys.readouterr().err


def test_rows_are_drawn_in_proportion_to_their_weight(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "weights.csv"
    names = [row.name for row in folder_rows(folder) if row.name != "0.png"][:12]
    lines = [f"{name},word {i},{1 + i}" for i, name in enumerate(names)]
    table.write_text("\n".join(["file,caption,weight", *lines]))
    data = CaptionedImages(
        str(folder), size=8, table=str(table), num_val=1, num_test=1, batch_size=5
    )
    data.setup()
    order = data.order(1, 0, 0)
    drawn = Counter[int]()
    for epoch in range(2000):
        order.set_epoch(epoch)
        drawn.update(order)
    given = torch.tensor([float(text.split()[1]) + 1 for text in data.train.texts])
    share = torch.tensor([drawn[i] for i in range(10)]) / drawn.total()
    assert torch.allclose(share, given / given.sum(), atol=0.01)
    assert data.files == [folder, table]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{0},a,1", "{1},b,"], r"must hold a file and .*: row 2 has no weight, but others have"),
        (["{0},a,0"], r"row 1: weight must be finite and positive, got 0"),
        (["{0},a,heavy"], r"row 1: weight must be finite and positive, got 'heavy'"),
        (["{0},a,nan"], r"row 1: weight must be finite and positive, got nan"),
    ],
)
def test_weights_of_a_table_are_checked(
    folder: Path, tmp_path: Path, lines: list[str], message: str
) -> None:
    names = [row.name for row in folder_rows(folder)][:2]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["file,caption,weight", *(li.format(*names) for li in lines)]))
    with pytest.raises(ValueError, match=message):
        CaptionedImages(str(folder), table=str(table)).setup()


def test_only_a_new_folder_or_that_of_an_earlier_run_is_written_to(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"out must be a new folder or that of an earlier run"):
        curate(folder, FILTERS, folder)
    with pytest.raises(FileNotFoundError, match=r"folder with captions.csv or captions.jsonl"):
        curate(tmp_path / "none", FILTERS, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match=r"path must name a table of captions"):
        CaptionedImages(str(folder), table=str(tmp_path / "none.csv")).setup()
    (tmp_path / "table.txt").write_text("")
    with pytest.raises(ValueError, match=r"table must end in .csv or .jsonl"):
        CaptionedImages(str(folder), table=str(tmp_path / "table.txt")).setup()


def test_an_image_that_changes_between_runs_is_refused(folder: Path, tmp_path: Path) -> None:
    curate(folder, FILTERS, tmp_path / "out")
    name = next(folder_rows(folder)).name
    (folder / name).write_bytes((folder / name).read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"another or changed.*choose a new folder"):
        curate(folder, FILTERS, tmp_path / "out")
