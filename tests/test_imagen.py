"""The experiment on curation, on drawn shapes: judges against exact teachers, folders that hold
what they should, and a run with a tiny budget.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import ttest_1samp
from torch import Tensor
from torch.nn.functional import avg_pool2d

from experiments import claims, common
from experiments.imagen import (
    balance,
    canaries,
    corpora,
    counting,
    filters,
    meta,
    ranking,
    report,
    run,
    watermark,
)
from experiments.text_to_image.judging import Gallery
from latent_ebm.data.caption_table import read_table
from latent_ebm.data.curation import Decision
from latent_ebm.data.shapes import draw_shapes
from latent_ebm.responsibility import detect_watermark, embed_watermark
from tests.imagen_stage import people, shapes, stage

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def on_shapes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage(monkeypatch, tmp_path)


def test_a_claim_is_decided_by_the_interval_of_student() -> None:
    values = [0.2, 0.3, 0.25]
    exact = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert claims.interval(values) == pytest.approx((0.25, exact.low, exact.high))
    assert claims.decide(values) == "holds"
    assert claims.decide([-v for v in values]) == "refuted"
    assert claims.decide(values, exact.low + 1e-6) == "undecided"
    assert claims.decide(values[:2]) == "undecided"


def test_the_difference_of_two_arms_is_that_of_their_estimates() -> None:
    arms = {"a": {"share": [0.75, 0.5, 0.9]}, "b": {"share": 0.25}}
    assert claims.difference("share", "a", "b")(arms) == 0.5


def test_near_copies_are_near_their_canary_and_nothing_else_is() -> None:
    planted = corpora.canaries(0)
    known, gallery = canaries.small(planted.x), Gallery(shapes(corpora.SIDE))
    limit = canaries.threshold(known, gallery.x)
    generator = torch.Generator().manual_seed(0)
    copies = torch.stack([corpora.near_copy(x, generator) for x in planted.x for _ in range(9)])
    assert not torch.equal(copies[0], copies[1])
    assert canaries.near(canaries.small(copies), known, limit) == 1
    for i in range(len(known)):
        others = torch.cat([known[:i], known[i + 1 :]])
        assert canaries.near(known[i : i + 1], others, limit) == 0
    assert canaries.near(gallery.x, known, limit) == 0


def test_the_threshold_is_half_of_the_least_distance() -> None:
    known = torch.tensor([0.0, 0.9]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    glyphs = torch.tensor([-0.5, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    assert canaries.threshold(known, glyphs) == pytest.approx(0.05)


def test_copies_are_planted_and_curation_weighs_them_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(corpora.COPIES, "each", 2)
    corpus = run.planted_corpus(3)
    raw = read_table(corpus.ready() / corpora.TABLE)
    prompts = corpora.canaries(3).prompts
    assert [sum(line.caption == p for line in raw) for p in prompts] == [1, 1, 10, 10, 100, 100]
    assert len(raw) == 222 + len(corpora.seen(corpora.LARGE)[0])
    found = canaries.found_copies(corpus, 3)
    for num in corpora.COPIES["levels"]:
        assert 0.999 <= found[f"weight, {num}"] <= 2.5


def test_captions_are_wrong_at_the_rate_that_is_said() -> None:
    glyphs, _ = corpora.seen(corpora.SIDE)
    num = len(glyphs)
    wrong = [
        text != name
        for seed in range(20)
        for (_, text, _), name in zip(corpora.captioned("noisy", seed), glyphs.names, strict=True)
    ]
    rate, deviation = corpora.NOISE, (corpora.NOISE * (1 - corpora.NOISE) / len(wrong)) ** 0.5
    assert sum(wrong) / len(wrong) == pytest.approx(rate, abs=4 * deviation)
    mixed = [text for _, text, _ in corpora.captioned("mixed", 0)]
    assert mixed[:num] == [text for _, text, _ in corpora.captioned("noisy", 0)]
    assert mixed[num:] == [text for _, text, _ in corpora.captioned("synthetic", 0)]


def test_one_category_is_seen_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher shows one cell for each base, another one all cells alike; both know names."""
    shown = people()
    monkeypatch.setattr(balance, "grid", lambda: shown)
    monkeypatch.setattr(balance, "NUM_SHOWN", 3)
    names = list(shown.glyphs.names)

    def draw(prompts: list[str], generator: torch.Generator, spread: bool) -> Tensor:
        rows = list[int]()
        for text in prompts:
            cells = [i for i, base in enumerate(shown.glyphs.base) if base == text] or [
                names.index(text)
            ]
            place = int(torch.randint(len(cells), (), generator=generator)) if spread else 0
            rows.append(cells[place])
        return shown.x[rows]

    skewed = balance.judge(lambda p, g: draw(p, g, False), CPU)
    even = balance.judge(lambda p, g: draw(p, g, True), CPU)
    assert skewed["gender one category"][0] == skewed["tone one category"][0] == 1
    assert skewed["gender shares"]["female"][0] == 1
    assert even["gender one category"][0] == even["tone one category"][0] == 0
    assert even["gender distance"][0] < 0.25 < skewed["gender distance"][0]
    assert skewed["base"] == even["base"] == skewed["R@1"] == even["R@1"] == 1


def test_pictures_are_skewed_as_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = people()
    monkeypatch.setattr(balance, "grid", lambda: shown)
    weight = balance.weights(0, True)
    for base in ("judge", "pilot", "cook"):
        for column in ("gender", "tone"):
            of = dict[str, float]()
            for i, value in enumerate(getattr(shown.glyphs, column)):
                if shown.glyphs.base[i] == base:
                    of[value] = of.get(value, 0) + float(weight[i])
            assert sum(of.values()) == pytest.approx(1)
            assert max(of.values()) == pytest.approx(balance.SKEW[column])
    assert bool((balance.weights(0, False) == 1).all())
    captions = [(caption, w) for _, caption, w in balance.people(0, False)]
    assert len(captions) == 2 * 54  # here no name is that of its base


def test_true_pictures_count_as_the_reader_does(monkeypatch: pytest.MonkeyPatch) -> None:
    glyphs = draw_shapes(64)
    chosen = glyphs.take(range(0, len(glyphs), len(glyphs) // 5))
    monkeypatch.setattr(counting, "glyphs", lambda: chosen)
    monkeypatch.setattr(counting, "NUM_TESTED", 1)
    counting.scenery.cache_clear()
    asked: Iterator[Any] = iter(counting.tested())

    def draw(prompts: list[str], generator: torch.Generator) -> Tensor:
        scenes = [counting.scenery().render(next(asked)[0]) for _ in prompts]
        return avg_pool2d(torch.stack(scenes), counting.FACTOR)

    found = counting.judge(draw, CPU)
    assert found["counts"] == found["ceiling"]
    assert found["ceiling"]["1"][0] == 1
    blank = counting.judge(lambda prompts, _: torch.ones(len(prompts), 3, 32, 32), CPU)
    assert all(share == 0 for share, _, _ in blank["counts"].values())
    counting.scenery.cache_clear()


@pytest.mark.filterwarnings("ignore")  # of Lightning and jsonargparse, as the command line does
def test_a_run_is_judged_once_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "ARMS", {"captions": ("mixed",)})
    gallery = Gallery(shapes(corpora.SIDE))
    few = {part: torch.arange(3) for part in ("other", "people", "held out")}
    monkeypatch.setattr(gallery, "rows", lambda: few)
    monkeypatch.setattr(run, "gallery", lambda side: gallery)
    for name in ("BEGIN", "TRAIN", "STEPS"):
        monkeypatch.setattr(run, name, 1)
    assert report.section() == ""
    corpora.write_words(["style"])
    run.run_captions(0)
    weights = sorted(Path("outputs/imagen").glob("*.pt"))
    assert len(weights) == 2
    stored = common.results("imagen")["mixed-0"]
    assert 0 <= stored["R@1, long"] <= 1
    common.write_json(common.OUTPUTS / "imagen" / "noisy-0.json", {"config": {}, "result": stored})
    common.write_json(
        common.OUTPUTS / "imagen" / "synthetic-0.json", {"config": {}, "result": stored}
    )
    claim = "| mixed captions beat noisy ones, names | 0.000 | > 0 | undecided, 1 seed |"
    assert claim in report.section()


def test_simulated_ratings_follow_the_model_that_was_planted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    num = 20_000
    monkeypatch.setattr(ranking, "PER_PAIR", num)
    ratings = ranking.study(torch.Generator().manual_seed(0))
    mine = [r.better for r in ratings if (r.first, r.second) == ("a", "d")]
    a, d = (torch.tensor(ranking.STRENGTHS[name]).exp() for name in "ad")
    tie = ranking.NU * (a * d).sqrt()
    for name, weight in (("a", a), ("d", d), (None, tie)):
        p = float(weight / (a + d + tie))
        assert mine.count(name) / num == pytest.approx(p, abs=4 * (p * (1 - p) / num) ** 0.5)


def test_changes_keep_pictures_in_range_and_marks_are_found_without_them() -> None:
    x = shapes(64).glyphs.on(torch.ones(3))[:6]
    marked = embed_watermark(x, watermark.secret(0), 30.0)
    for name, change in watermark.CHANGES.items():
        y = change(marked)
        side = 128 if name == "to 200 %" else 64
        assert y.shape == (6, 3, side, side)
        assert float(y.abs().max()) <= 1
    assert bool((detect_watermark(marked, watermark.secret(0)) < watermark.ALARM).all())
    turned = watermark.turned(x, 90.0)
    assert torch.allclose(turned, x.rot90(1, (2, 3)), atol=1e-4) or torch.allclose(
        turned, x.rot90(-1, (2, 3)), atol=1e-4
    )


def test_precision_and_recall_of_copies() -> None:
    """Two rows, of which the first is copied twice: one copy is found; the other row is merged
    with a third one.
    """

    def kept(name: str, weight: float, cluster: str) -> Decision:
        return Decision(name, "", "", "", weight, cluster)

    clean = [kept("a", 0.5, "a"), kept("b", 1.0, "b"), kept("c", 0.5, "c"), kept("d", 0.5, "c")]
    copies = [kept("a copy", 0.5, "a"), kept("b copy", 1.0, "b copy")]
    assert filters.of_copies([*clean, *copies], 4, 2) == [0.5, 0.5]


def test_metrics_that_know_the_oracle_agree_with_it() -> None:
    gallery = Gallery(shapes(corpora.SIDE))
    rows = torch.arange(8)
    assert bool((meta.asked(gallery.x[rows], gallery, rows) == 1).all())
    oracle = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    scores = {"oracle": oracle, "questions": 2 * oracle, "contrast": -oracle}
    means = {key: value.mean(1) for key, value in scores.items()}
    for found, num in ((meta.agreement(scores), 4), (meta.agreement(means), 3)):
        assert (found["questions"][0], found["contrast"][0], found["num"]) == (1, 0, num)
        assert found["agreed"] is None
    assert meta.ranks([0.3, 0.1, 0.2]).tolist() == [2, 0, 1]
