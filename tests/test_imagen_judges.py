"""Judges of the experiment on curation against models that draw what a test tells them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from experiments.imagen import (
    balance,
    canaries,
    captions,
    corpora,
    counting,
    meta,
    report,
    run,
)
from experiments.text_to_image.judging import Gallery
from latent_ebm.conditions import Condition
from latent_ebm.data.shapes import draw_shapes
from latent_ebm.responsibility.memorisation import neighbour_ratio
from samplers import DDIM, VPCosine
from tests.imagen_stage import people, shapes, stage

CPU = torch.device("cpu")
FEW = {"other": torch.arange(100, 108), "people": torch.tensor([20, 21])}
HOW = {"num_steps": 15, "guidance": 1.5}


@pytest.fixture(autouse=True)
def on_shapes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage(monkeypatch, tmp_path)


@pytest.fixture
def gallery(monkeypatch: pytest.MonkeyPatch) -> Gallery:
    """All shapes, a few of which are drawn by name."""
    found = Gallery(shapes(corpora.SIDE))
    rows = {**FEW, "held out": found.held[:3]}
    monkeypatch.setattr(found, "rows", lambda: rows)
    return found


class Memory:
    """A rule that draws the pictures (k, 3, 16, 16) of a prompt in turn. What a text changes in
    its denoiser is the place of the prompt in ``table``, at every pixel.
    """

    def __init__(self, table: dict[str, Tensor]) -> None:
        self.table, self.shape, self.schedule = table, (3, 16, 16), VPCosine()
        self.conditioner = self.denoiser = self
        self.reverse = DDIM(self.schedule, 15)

    def __call__(self, x_t: Tensor, t: Tensor, number: Tensor) -> Tensor:
        return number.view(-1, 1, 1, 1).expand_as(x_t).float()

    def tokens(self, prompts: Sequence[str]) -> Condition:
        places = [list(self.table).index(prompt) for prompt in prompts]
        return Condition({"number": torch.tensor(places)})

    encode = tokens

    def unknown(self, num: int) -> Condition:
        return Condition({"number": torch.full((num,), -1)})

    def generate(
        self, num: int, told: Condition, *, generator: torch.Generator, **how: float
    ) -> dict[str, Tensor]:
        assert how == HOW
        found = [list(self.table.values())[place] for place in told["number"].tolist()]
        return {"x": torch.stack([x[i % len(x)] for i, x in enumerate(found)])}


def test_copies_are_counted_for_the_prompts_that_they_are_drawn_for(
    monkeypatch: pytest.MonkeyPatch, gallery: Gallery
) -> None:
    monkeypatch.setitem(corpora.COPIES, "each", 1)
    planted = corpora.canaries(0)
    one, ten, hundred = known = canaries.small(planted.x)
    seen = torch.ones(len(gallery.x), dtype=torch.bool)
    seen[gallery.held] = False
    train, held = torch.cat([gallery.x[seen], known]).flatten(1), gallery.x[~seen]
    other = held[neighbour_ratio(held.flatten(1), train).argmax()]
    table = {
        "": torch.stack([one, *[other] * 9]),
        "a tapestry": torch.stack([hundred, other, other, other]),
        "tapestry": torch.stack([ten, hundred, other, other]),
        planted.prompts[0]: other[None],
        planted.prompts[1]: torch.stack([ten, hundred]),
        planted.prompts[2]: hundred[None],
    }
    table |= {str(name): x[None] for name, x in zip(gallery.glyphs.names, gallery.x, strict=True)}
    rule = Memory(table)
    found = canaries.judge(rule, 0, gallery, CPU, **HOW)
    shares = {
        "near, no prompt": 0.1,
        "near, no prompt, 1": 0.1,
        "near, no prompt, 100": 0,
        "near, open prompt": 0.375,
        "near, open prompt, 1": 0,
        "near, open prompt, 10": 0.125,
        "near, open prompt, 100": 0.25,
        "near, own prompt, 1": 0,
        "near, own prompt, 10": 0.5,
        "near, own prompt, 100": 1,
        "p below 0.05, 1": 0,
        "p below 0.05, 10": 1,
        "p below 0.05, 100": 1,
        "other R@1": 1,
        "people R@1": 1,
    }
    assert {key: found[key] for key in shares} == pytest.approx(shares)
    assert [found[f"came out, {num}"][0] for num in (1, 10, 100)] == [0, 1, 1]
    names = [list(table).index(str(gallery.glyphs.names[i])) for i in FEW["other"].tolist()]
    changes = {"1": 3, "10": 4, "100": 5, "names": sum(names) / len(names)}
    for key, place in changes.items():  # the null is at -1
        pixels = (3 * 16 * 16) ** 0.5
        assert found[f"text difference, {key}"] == pytest.approx((place + 1) * pixels)
    assert found["threshold"] == canaries.threshold(known, gallery.x)


def test_long_prompts_are_counted_apart_from_names(gallery: Gallery) -> None:
    """A model that knows all names, and long sentences about things, but not about people."""
    places = {str(name): i for i, name in enumerate(gallery.glyphs.names)}
    long = {part: [corpora.long_caption(gallery.glyphs, i, i % 5) for i in FEW[part].tolist()]
            for part in FEW}  # fmt: skip
    places |= dict(zip(long["other"], FEW["other"].tolist(), strict=True))
    places |= dict.fromkeys(long["people"], 0)
    found = captions.judge(lambda texts, _: gallery.x[[places[t] for t in texts]], gallery, CPU)
    keys = ("other R@1, long", "people R@1, long", "R@1, long", "R@1", "held out R@1")
    assert [found[key] for key in keys] == pytest.approx([1, 0, 0.8, 1, 1])


def test_the_audit_of_people_sees_gender_and_tone_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that shows men in all tones, for every base, and nothing but its first cell for
    full names.
    """
    shown = people()
    monkeypatch.setattr(balance, "grid", lambda: shown)
    monkeypatch.setattr(balance, "NUM_SHOWN", 3)
    monkeypatch.setattr(balance, "DRAWS", 6)
    men = {
        base: [
            i for i, kind in enumerate(shown.glyphs.gender)
            if kind == "man" and shown.glyphs.base[i] == base
        ]
        for base in shown.glyphs.base
    }  # fmt: skip

    def draw(prompts: list[str], generator: torch.Generator) -> Tensor:
        rows = [men[text][i % 6] if text in men else 0 for i, text in enumerate(prompts)]
        return shown.x[rows]

    found = balance.judge(draw, CPU)
    exact = {
        "gender one category": 1,
        "gender distance": 2 / 3,
        "tone one category": 0,
        "tone distance": 0,
    }
    assert {key: found[key][0] for key in exact} == pytest.approx(exact)
    assert found["gender one category by chance"] == pytest.approx(1)
    assert found["tone one category by chance"] == pytest.approx(6**-5)
    assert found["gender shares"]["male"][0] == 1
    assert (found["base"], found["R@1"]) == (1, pytest.approx(1 / len(shown.x)))


def test_numbers_are_those_of_prompts_of_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that draws blanks for prompts of several kinds, and for five things."""
    chosen = draw_shapes(corpora.LARGE).take(range(0, 192, 40))
    monkeypatch.setattr(counting, "glyphs", lambda: chosen)
    monkeypatch.setattr(counting, "NUM_TESTED", 1)
    counting.scenery.cache_clear()
    asked = iter(counting.tested())

    def draw(prompts: list[str], generator: torch.Generator) -> Tensor:
        scenes = [next(asked)[0] for _ in prompts]
        blank = [len({p.glyph for p in s.objects}) > 1 or len(s.objects) == 5 for s in scenes]
        x = avg_pool2d(torch.stack([counting.scenery().render(s) for s in scenes]), 2)
        return torch.where(torch.tensor(blank).view(-1, 1, 1, 1), torch.ones(()), x)

    found = counting.judge(draw, CPU)
    counts, ceiling = found["counts"], found["ceiling"]
    assert list(counts) == [*report.NUMBERS, *counting.ALL_PROMPTS]
    assert [counts[n] for n in "1234"] == [ceiling[n] for n in "1234"]
    assert counts["1"][0] == 1
    assert counts["5"][0] == counts["2-additive"][0] == counts["3-additive"][0] == 0
    assert min(share for share, *_ in ceiling.values()) > 0
    counting.scenery.cache_clear()


class Contrary:
    """A scorer that likes pictures best that are not asked for."""

    def __init__(self, gallery: Gallery) -> None:
        self.gallery, self.names = gallery, list(map(str, gallery.glyphs.names))

    def __call__(self, prompts: Sequence[str], x: Tensor) -> Tensor:
        rows = torch.tensor([self.names.index(text) for text in prompts])
        return (self.gallery.x[rows] - x).flatten(1).norm(dim=1)

    def image_features(self, x: Tensor) -> Tensor:
        return x[:, :1, 8, 8:10].flatten(1)


def test_metrics_are_compared_on_pictures_of_the_models(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models that draw all, half, and none of the names; the first one in more pixels."""
    monkeypatch.setattr(meta, "COARSE", 1)
    monkeypatch.setattr(meta, "SHOWN", 5)
    place = {str(name): i for i, name in enumerate(gallery.glyphs.names)}
    large = interpolate(gallery.x, (32, 32))

    def draw(right: Callable[[int], bool], x: Tensor) -> Any:
        rows = torch.cat([FEW["other"], FEW["people"]]).tolist()
        return lambda texts, _: x[
            [i if right(rows.index(i)) else i - 91 for i in (place[text] for text in texts)]
        ]

    pool = {
        "all": draw(lambda _: True, large),
        "half": draw(lambda k: k % 2 == 0, gallery.x),
        "none": draw(lambda _: False, gallery.x),
    }
    scorer: Any = Contrary(gallery)
    found = meta.judge(pool, scorer, gallery, CPU)
    oracle = {"all": 1, "half": 0.5, "none": 0}
    assert found["models"]["oracle"] == pytest.approx(oracle)
    for what, num in (("pairs", 3), ("prompts", 20)):
        assert found[what]["questions"][0] == 1
        assert found[what]["contrast"][0] == 0
        assert (found[what]["num"], found[what]["agreed"]) == (num, None)
    told = found["models"]["contrast"]
    assert told["none"] > told["half"] > told["all"] == pytest.approx(0, abs=1e-6)
    assert set(found["distances"]) == {"Frechet, contrast", "Frechet, colours", "CMMD"}
    first = found["distances"]["Frechet, colours"]
    real = gallery.x.mean((2, 3))
    exact = meta.frechet(real, gallery.x[[20, 21, *range(100, 108)]].mean((2, 3)), lambda x: x)
    assert first["all"] == pytest.approx(exact, abs=1e-5)


def test_two_distances_disagree_where_they_order_models_differently(gallery: Gallery) -> None:
    x = {"bright": gallery.x[:40] * 0 + 1, "dark": gallery.x[:40] * 0 - 1, "same": gallery.x[:40]}
    orders = {
        "Frechet, contrast": [0.0, 1.0, 2.0],
        "Frechet, colours": [0.0, 2.0, 1.0],
        "CMMD": [2.0, 1.0, 0.0],
    }
    values = {key: iter(order) for key, order in orders.items()}
    with pytest.MonkeyPatch.context() as patch:
        keys = iter(["Frechet, contrast"] * 3 + ["Frechet, colours"] * 3)
        patch.setattr(meta, "frechet", lambda *_: next(values[next(keys)]))
        patch.setattr(meta, "cmmd", lambda *_: next(values["CMMD"]))
        scorer: Any = SimpleNamespace(image_features=None)
        found = meta.distances(x, gallery, scorer)
    apart = {
        "Frechet, contrast / Frechet, colours": 1 / 3,
        "Frechet, contrast / CMMD": 1,
        "Frechet, colours / CMMD": 2 / 3,
    }
    assert found["disagree"] == pytest.approx(apart)
    assert found["pair"] == ["dark", "same"]


def test_models_are_judged_by_guided_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    told = dict[str, Any]()
    monkeypatch.setattr(
        run, "judged", lambda _, label, how, judge: told.update(how) or judge(rule)
    )
    rule: Any = Memory({"a": torch.zeros(1, 3, 16, 16)})
    kept: Any = None
    run.judge_run(kept, lambda draw: draw(["a"], torch.Generator()))
    assert told == HOW == {"num_steps": run.STEPS, "guidance": run.GUIDANCE}


def test_questions_are_those_of_the_name_that_is_asked_for() -> None:
    """A name without a tone asks for none, so that a picture with one is right; the other way
    around a third of the answers is wrong.
    """
    shown = people()
    light, plain = (shown.glyphs.tone.index(tone) for tone in ("light", ""))
    for asked, seen, right in ((plain, light, 1), (light, plain, 2 / 3)):
        found = meta.asked(shown.x[[seen]], shown, torch.tensor([asked]))
        assert found.tolist() == pytest.approx([right])
