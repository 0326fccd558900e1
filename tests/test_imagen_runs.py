"""Folders and arms of the experiment on curation, its claims against results that are planted, and
the settings that results are stored under.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import avg_pool2d

from experiments import common, training
from experiments.imagen import (
    balance,
    canaries,
    corpora,
    counting,
    filters,
    report,
    run,
    watermark,
)
from experiments.imagen.corpora import Corpus
from latent_ebm.data.curation import Filter, Row
from latent_ebm.data.shapes import draw_shapes
from tests.imagen_stage import people, shapes, stage

RESULTS = common.RESULTS


@pytest.fixture(autouse=True)
def on_shapes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage(monkeypatch, tmp_path)


def test_folders_of_other_seeds_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "NUM_SCENES", 5)
    shown = people()
    monkeypatch.setattr(balance, "grid", lambda: shown)
    chosen = draw_shapes(corpora.LARGE).take(range(0, 192, 40))
    monkeypatch.setattr(counting, "glyphs", lambda: chosen)
    counting.scenery.cache_clear()
    assert not torch.equal(corpora.canaries(0).x, corpora.canaries(1).x)
    assert corpora.canaries(0).prompts != corpora.canaries(1).prompts
    assert not torch.equal(balance.weights(0, True), balance.weights(1, True))
    sources: tuple[Callable[[int], Any], ...] = (
        counting.scenes,
        lambda seed: corpora.captioned("noisy", seed),
        lambda seed: corpora.captioned("synthetic", seed),
    )
    for pictures in sources:
        texts = [[row.caption for row in pictures(seed)] for seed in (0, 0, 1)]
        assert texts[0] == texts[1] != texts[2]
    counting.scenery.cache_clear()


def test_planted_copies_are_near_ones_that_differ() -> None:
    num = len(corpora.seen(corpora.LARGE)[0])
    rows = [row for i, row in enumerate(corpora.planted(0)) if i >= num]
    spread, known = corpora.canaries(0), canaries.small(corpora.canaries(0).x)
    number = {prompt: i for i, prompt in enumerate(spread.prompts)}
    mine = torch.tensor([number[row.caption] for row in rows])
    x = torch.stack([row.x for row in rows])
    nearest = torch.cdist(canaries.small(x).flatten(1), known.flatten(1)).argmin(1)
    assert torch.equal(nearest, mine)
    assert mine.bincount().tolist() == spread.copies
    assert len(x.flatten(1).unique(dim=0)) > 0.9 * len(x)


def test_people_are_drawn_by_name_and_by_base_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = people()
    monkeypatch.setattr(balance, "grid", lambda: shown)
    rows = list(balance.people(0, True))
    for k, texts in enumerate((shown.glyphs.names, shown.glyphs.base)):
        assert [row.caption for row in rows[k::2]] == list(texts)
        assert torch.equal(torch.stack([row.x for row in rows[k::2]]), shown.x)
        assert [row.weight for row in rows[k::2]] == balance.weights(0, True).tolist()


def test_captions_of_scenes_are_those_of_their_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[Any]()
    chosen = draw_shapes(corpora.LARGE).take(range(0, 192, 40))
    monkeypatch.setattr(counting, "glyphs", lambda: chosen)
    monkeypatch.setattr(counting, "NUM_SCENES", 4)
    monkeypatch.setattr(
        counting, "describe", lambda scene, *rest: told.append(scene) or str(len(told) - 1)
    )
    counting.scenery.cache_clear()
    for x, caption, _ in counting.scenes(0):
        scene = counting.scenery().render(told[int(caption)])
        assert torch.equal(x, avg_pool2d(scene, counting.FACTOR))
    assert len(told) == 4
    counting.scenery.cache_clear()


def test_claims_are_differences_in_the_direction_that_they_state() -> None:
    """Every claim, on results in which it is true by a margin that is known."""
    own = "near, own prompt, {}"
    arms: dict[str, dict[str, Any]] = {
        "raw": {own.format(10): 0.9, own.format(100): 0.7, "near, open prompt": 0.4,
                "near, no prompt": 0.3, "other R@1": 0.5, "people R@1": 0.6},
        "curated": {own.format(10): 0.2, own.format(100): 0.1, "near, open prompt": 0.3,
                    "near, no prompt": 0.1, "other R@1": 0.51, "people R@1": 0.62},
        "noisy": {"R@1": 0.5, "R@1, long": 0.1},
        "mixed": {"R@1": 0.7, "R@1, long": 0.6},
        "skewed": {"gender one category": [0.9, 0, 1], "tone one category": [0.5, 0, 1],
                   "base": 0.8, "R@1": 0.2},
        "even": {"gender one category": [0.2, 0, 1], "tone one category": [0.1, 0, 1],
                 "base": 0.83, "R@1": 0.6},
        "counting": {"counts": {n: [1 - int(n) ** 2 / 100, 0, 1] for n in report.NUMBERS}},
        "meta": {"pairs": {"questions": [0.9, 0, 1], "contrast": [0.6, 0, 1]},
                 "prompts": {"questions": [0.8, 0, 1], "contrast": [0.7, 0, 1]},
                 "disagree": {"a": 0.1, "b": 0.2}},
    }  # fmt: skip
    margins = {
        report.ROUND: [0.65, 0.1, 0.2, 0.01, 0.02],
        report.MIXED: [0.2, 0.5, 0.3],
        report.EVEN: [0.7, 0.4, 0.03, 0.4],
        report.FALLS: [0.24, 0.03],
        report.ORDERS: [0.3, 0.1, 0.2],
    }
    for claims, exact in margins.items():
        assert [claim.value(arms) for claim in claims] == pytest.approx(exact)
        for claim in claims:
            assert claim.least == (report.EQUAL if claim.text.startswith("equal") else 0)


@pytest.fixture
def unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are named, but not written."""
    monkeypatch.setattr(Corpus, "ready", lambda self: self.path)
    curated = corpora.CURATED
    monkeypatch.setattr(Corpus, "curated", lambda self: self.path / curated / corpora.TABLE)


@pytest.mark.usefixtures("unwritten")
def test_arms_differ_in_what_they_compare_alone() -> None:
    table = "--data.init_args.table="
    for part, names in run.ARMS.items():
        arms = [run.arm(name, 7) for name in names]
        for name, arm in zip(names, arms, strict=True):
            assert arm.name == f"{name}-7"
            assert arm.options[0] == "--seed_everything=7"
            assert (arm.updates, arm.origin.updates) == (run.TRAIN, run.BEGIN)
            assert arm.origin.options[: len(arm.options)] == arm.options
            tables = [option for option in arm.options if option.startswith(table)]
            assert len(tables) == (name == "curated")
        paths = {arm.options[1] for arm in arms}
        assert len(paths) == (1 if part == "canaries" else len(names))


def test_folders_of_people_are_those_of_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = people()
    monkeypatch.setattr(balance, "grid", lambda: shown)
    for name in ("skewed", "even"):
        weights = [row.weight for row in run.people_corpus(name, 2).pictures(2)]
        assert (len(set(weights)) > 1) == (name == "skewed")
    texts = [row.caption for row in run.captioned_corpus("synthetic", 2).pictures(2)]
    assert texts == [row.caption for row in corpora.captioned("synthetic", 2)]


@pytest.mark.usefixtures("unwritten")
def test_the_pool_holds_good_and_weak_models() -> None:
    pool = run.pool(1)
    assert len(pool) == 10
    for name, (model, how) in pool.items():
        weak = name.endswith("regression")
        assert (model.start is None) == weak
        assert ("guidance" not in how) == weak
        assert model.name.endswith("-1")
    assert [how["num_steps"] for name, (_, how) in pool.items() if "steps" in name] == [1, 4]
    assert pool["synthetic, weight 4"][1] == {"num_steps": 15, "guidance": 4}
    assert {
        how["guidance"] for name, (_, how) in pool.items() if name in run.ARMS["captions"]
    } == {run.GUIDANCE}


def test_what_judges_are_set_to_decides_where_results_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Corpus, "ready", lambda self: self.path)
    monkeypatch.setattr(run, "gallery", lambda side: None)
    kept = dict[str, dict[str, Any]]()
    monkeypatch.setattr(
        run, "judged", lambda arm, label, how, judge: kept.update({arm.name: {**how}})
    )
    for part in (run.run_balance, run.run_counting, run.run_captions):
        part(0)
    assert kept["even-0"]["draws"] == balance.DRAWS
    assert kept["counting-0"]["tested"] == counting.NUM_TESTED
    assert kept["mixed-0"]["long"] == corpora.LONG


@pytest.mark.usefixtures("unwritten")
def test_stored_results_are_those_of_the_settings_of_today(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = dict[str, str]()

    def keep(name: str, config: dict[str, Any], *_: Any) -> dict[str, Any]:
        found[name.removeprefix("imagen/")] = common.digest(config)
        return {}

    for module in (run, training):
        monkeypatch.setattr(module, "cached", keep)
    monkeypatch.setattr(run, "gallery", lambda side: None)
    stored = json.loads((RESULTS / "imagen.json").read_text())
    for seed in range(3):
        weights = run.base(seed).weights
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.touch()
        for part in run.PARTS.values():
            part(seed)
    assert set(stored) <= set(found)
    assert {name: entry["config"] for name, entry in stored.items()} == {
        name: found[name] for name in stored
    }


class Named(Filter):
    """Drops rows of some names."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __call__(self, rows: Sequence[Row]) -> list[Row | str]:
        return ["named" if row.name in self.names else row for row in rows]


def test_precision_and_recall_of_a_filter() -> None:
    """Of four rows with a defect it finds three, and it drops two clean rows."""
    x = torch.rand(4, 3, 8, 8)
    clean, bad = (filters.rows_of(list(x), [kind] * 4, kind) for kind in ("clean", "bad"))
    part = Named("bad-0", "bad-1", "bad-3", "clean-1", "clean-2")
    assert filters.judge_filter(part, clean, bad) == [0.6, 0.75]


def shorten_marks(monkeypatch: pytest.MonkeyPatch, num_keys: int) -> None:
    """Five shapes of one size, marked at one strength."""
    monkeypatch.setattr(watermark, "emoji", shapes)
    for name, value in {"NUM": 5, "KEYS": num_keys, "SIDES": (64,), "PSNR": (28.0,)}.items():
        monkeypatch.setattr(watermark, name, value)


def test_marks_and_false_alarms_are_counted_by_change_and_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shorten_marks(monkeypatch, 3)
    found = watermark.in_pixels(0)
    rates = {name: found["found"][f"64, 28, {name}"] for name in watermark.CHANGES}
    assert (rates["nothing"], rates["JPEG 90"], rates["mirror image"]) == (1, 1, 0)
    assert found["alarms"] == {"64, nothing": [0] * 3, "64, JPEG 50": [0] * 3}


def test_false_alarms_are_those_of_pictures_without_a_mark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Marked pictures are grey here, and grey is found by every key."""
    shorten_marks(monkeypatch, 2)
    keys = list[bytes]()
    monkeypatch.setattr(watermark, "embed_watermark", lambda x, key, psnr: 0 * x)
    monkeypatch.setattr(
        watermark, "detect_watermark", lambda x, key: keys.append(key) or x.flatten(1).std(1)
    )
    found = watermark.in_pixels(3)
    assert found["found"]["64, 28, mirror image"] == 1
    assert found["alarms"]["64, nothing"] == [0, 0]
    assert set(keys) == {watermark.secret(3, k) for k in range(3)}
