"""A study from the page to the ranking: a person rates with keys, and the file is read back."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from latent_ebm.evaluation import QUESTIONS, Pair, export_study, rank, read_ratings
from tests.browser import CHROMIUM, Browser, served

COUNT = ("preference", "counting")
KEYS = {"left": "ArrowLeft", "right": "ArrowRight", "indifferent": "ArrowDown", "back": "ArrowUp"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(level: float) -> torch.Tensor:
    return torch.full((3, 4, 4), level)


def pairs(num: int = 2, questions: tuple[str, ...] = COUNT) -> list[Pair]:
    """The model "bright" draws white and "dark" draws black."""
    two = ("bright", "dark", picture(1), picture(-1))
    return [Pair(f"{i + 1} </script> <b>cats</b>", *two, questions) for i in range(num)]


def page_of(folder: Path) -> dict:
    """What the page knows."""
    page = (folder / "page" / "index.html").read_text()
    (found,) = re.findall(r'<script id="study" type="application/json">(.*?)</script>', page)
    return json.loads(found)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    export_study(pairs(), tmp_path / "study", generator=seeded(3))
    return tmp_path / "study"


@pytest.fixture
def browser(study: Path, tmp_path: Path) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with served(study / "page") as address:
        browser = Browser(tmp_path / "profile")
        try:
            browser.send("Network.enable")
            browser.send("Page.enable")
            browser.open(address)
            yield browser
        finally:
            browser.close()


def press(browser: Browser, name: str, **options: object) -> None:
    for kind in ("keyDown", "keyUp"):
        browser.send("Input.dispatchKeyEvent", type=kind, key=KEYS[name], **options)


def text(browser: Browser, selector: str) -> str:
    return browser.evaluate(f"document.querySelector('{selector}').textContent")


def white_side(browser: Browser) -> str:
    """The side of the white picture, as a person sees it."""
    return browser.evaluate(
        "(async () => { const image = document.querySelector('#left img'); await image.decode();"
        " const canvas = document.createElement('canvas'), pen = canvas.getContext('2d');"
        " pen.drawImage(image, 0, 0); return pen.getImageData(1, 1, 1, 1).data[0] > 127 ?"
        " 'left' : 'right'; })()"
    )


def saved(browser: Browser, folder: Path) -> Path:
    """The file that the button saves."""
    options = {"behavior": "allow", "downloadPath": str(folder)}
    folder.mkdir()
    browser.send("Page.setDownloadBehavior", **options)
    browser.click("#save")
    while not (found := list(folder.glob("*.json"))):
        browser.evaluate("new Promise((resolve) => setTimeout(resolve, 20))")
    return found[0]


def test_a_person_rates_with_keys_and_the_file_gives_a_ranking(
    browser: Browser, study: Path, tmp_path: Path
) -> None:
    browser.write("#rater", " Ann B. ")
    browser.click("#start button")
    assert text(browser, "#question").startswith("1 of 4. Which picture would you rather have")
    assert re.fullmatch(r"“[12] </script> <b>cats</b>”", text(browser, "#prompt"))
    press(browser, "left", modifiers=1)  # the browser's own key for the page before
    assert text(browser, "#question").startswith("1 of 4")
    first = text(browser, "#prompt")
    press(browser, white_side(browser))
    assert text(browser, "#prompt") != first
    other = {"left": "right", "right": "left"}
    press(browser, "indifferent")
    press(browser, "back")
    press(browser, other[white_side(browser)])  # in place of "indifferent"
    assert text(browser, "#question").startswith("3 of 4. Count the things")

    browser.evaluate("document.title = 'before'")
    browser.send("Page.reload")
    browser.until("document.title !== 'before' && document.readyState === 'complete'")
    assert text(browser, "#question").startswith("3 of 4. Count the things")
    assert text(browser, "#prompt") == first
    assert browser.evaluate("document.querySelector('#progress').value") == 2
    press(browser, "indifferent")
    browser.click(f"#{white_side(browser)}")
    assert browser.evaluate("document.querySelector('#task').hidden")
    assert not browser.evaluate("document.querySelector('#thanks').hidden")
    press(browser, "left")  # nothing is left to answer

    path = saved(browser, tmp_path / "down")
    assert path.name == "ratings-Ann_B_.json"
    ratings = read_ratings([path], study / "key.json")
    assert len(ratings) == 4
    assert {r.rater for r in ratings} == {"Ann B."}
    wanted = [r for r in ratings if r.question == "preference"]
    assert [r.better for r in wanted] == ["bright", "dark"]
    assert wanted[0].prompt in first
    assert [r.better for r in ratings if r.question == "counting"] == [None, "bright"]
    assert rank(wanted, replicates=2).elo.tolist() == pytest.approx([1000, 1000])


def test_nothing_comes_from_the_network(browser: Browser) -> None:
    asked = [e for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    addresses = {e["params"]["request"]["url"] for e in asked}
    assert len([a for a in addresses if not a.startswith("data:")]) == 1
    found = browser.evaluate(
        "Promise.race([new Promise((resolve) => document.addEventListener("
        "'securitypolicyviolation', (event) => resolve(event.effectiveDirective))),"
        " fetch('http://127.0.0.1:9/').catch(() => new Promise((resolve) => "
        "setTimeout(resolve, 1000, 'sent')))])"
    )
    assert found == "connect-src"


def test_the_appeal_of_pictures_is_asked_without_the_prompt(tmp_path: Path) -> None:
    export_study(pairs(1, tuple(QUESTIONS)), tmp_path / "study")
    asked = {q["name"]: q["prompt"] for q in page_of(tmp_path / "study")["questions"]}
    assert asked == {name: name != "appeal" for name in QUESTIONS}


def test_sides_are_random_and_the_page_does_not_tell_them(tmp_path: Path) -> None:
    num = 400
    export_study(pairs(num), tmp_path / "a", generator=seeded(1))
    export_study(pairs(num), tmp_path / "b", generator=seeded(1))
    key, page = (json.loads((tmp_path / f / "key.json").read_text()) for f in "ab")
    assert key == page
    left = [pair["left"] for pair in key["pairs"]]
    assert abs(left.count("bright") - num / 2) < 3 * (num / 4) ** 0.5
    shown = page_of(tmp_path / "a")["pairs"]
    images = {pair["left"] for pair in shown}
    assert len(images) == 2
    by_model = {(model, pair["left"]) for model, pair in zip(left, shown, strict=True)}
    assert len(by_model) == 2  # a picture goes with its model
    html = (tmp_path / "a" / "page" / "index.html").read_text()
    assert "bright" not in html
    assert "dark" not in html.replace("light dark", "")


def test_pixels_are_shown_if_all_pictures_are_small(tmp_path: Path) -> None:
    large, small = torch.zeros(3, 8, 257), torch.zeros(3, 256, 8)
    for number, two in enumerate([(small, small), (small, large), (large, small)]):
        folder = tmp_path / str(number)
        export_study([*pairs(1), Pair("p", "a", "b", *two)], folder)
        assert page_of(folder)["small"] == (number == 0)


def filed(folder: Path, path: Path, **changes: object) -> Path:
    """A file as the page writes it, with changes."""
    number = json.loads((folder / "key.json").read_text())["study"]
    answers = [{"pair": 0, "question": "preference", "answer": "left", "seconds": 1.5}]
    content = {"format": "latent_ebm ratings 1", "study": number, "rater": "x"}
    path.write_text(json.dumps({**content, "answers": answers, **changes}))
    return path


def one(**changes: object) -> list[dict]:
    return [{"pair": 0, "question": "preference", "answer": "left", **changes}]


BAD = [
    ({"study": "other"}, r"must be of the study [0-9a-f]{16}, got 'other'"),
    ({"format": "ratings"}, "must hold ratings of a study, but it does not"),
    ({"rater": ""}, "must hold a rater and answers, but one is missing"),
    ({"answers": []}, "must hold a rater and answers, but one is missing"),
    ({"answers": one(pair=2)}, "is damaged: it answers what was not asked"),
    ({"answers": one(pair=-1)}, "is damaged: it answers what was not asked"),
    ({"answers": one(pair=True)}, "is damaged: it answers what was not asked"),
    ({"answers": one(question="appeal")}, "is damaged: it answers what was not asked"),
    ({"answers": [5]}, "is damaged: it answers what was not asked"),
    ({"answers": one(answer="middle")}, "must be left, right or indifferent, got 'middle'"),
    ({"answers": 2 * one()}, "must answer every question once, but one is there twice"),
]


def test_a_rating_has_the_names_of_the_key(study: Path, tmp_path: Path) -> None:
    pair = json.loads((study / "key.json").read_text())["pairs"][0]
    (found,) = read_ratings([filed(study, tmp_path / "good.json")], study / "key.json")
    expected = (pair["left"], pair["right"], pair["left"], "x", pair["prompt"], "preference")
    assert found == expected


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_damaged_files_are_refused(
    changes: dict, message: str, study: Path, tmp_path: Path
) -> None:
    good = filed(study, tmp_path / "good.json", rater="y")
    with pytest.raises(ValueError, match=message):
        read_ratings([good, filed(study, tmp_path / "bad.json", **changes)], study / "key.json")


def test_other_files_and_raters_twice_are_refused(study: Path, tmp_path: Path) -> None:
    a, b = filed(study, tmp_path / "a.json"), filed(study, tmp_path / "b.json")
    with pytest.raises(ValueError, match=r"'x' is in .*a.json and in .*b.json"):
        read_ratings([a, b], study / "key.json")
    with pytest.raises(ValueError, match=r"must be the key of a study, key.json, but"):
        read_ratings([a], b)
    b.write_text(a.read_text()[:-20])
    with pytest.raises(ValueError, match=r"b.json"):
        read_ratings([b], study / "key.json")


@pytest.mark.parametrize(
    "pairs",
    [None, "ab", ["ab"], [{"left": "a", "right": "b", "prompt": "p"}],
     [{"left": "a", "right": "a", "prompt": "p", "questions": []}],
     [{"left": 1, "right": "a", "prompt": "p", "questions": []}]],
)  # fmt: skip
def test_damaged_keys_are_refused(pairs: object, study: Path, tmp_path: Path) -> None:
    key = json.loads((study / "key.json").read_text()) | {"pairs": pairs}
    (tmp_path / "key.json").write_text(json.dumps(key))
    message = "no pair of two models" if isinstance(pairs, list) else "must be the key of a study"
    with pytest.raises(ValueError, match=message):
        read_ratings([filed(study, tmp_path / "a.json")], tmp_path / "key.json")


NAN = picture(float("nan"))
REFUSED = [
    ([], "pairs must hold at least one pair, got none"),
    ([Pair("p", "a", "a", picture(0), picture(0))], "row 0 has 'a' twice"),
    ([Pair("p", "a", "b", picture(0), picture(2))], r"must lie in \[-1, 1\], but row 0 has one"),
    ([Pair("p", "a", "b", NAN, picture(0))], r"must lie in \[-1, 1\], but row 0 has one"),
    ([Pair("p", "a", "b", picture(0)[0], picture(0))], r"shape \(1 or 3, H, W\), got \(4, 4\)"),
    ([Pair("p", "a", "b", picture(0), picture(0), ("x",))], r"questions must be of .*, got \('x'"),
    ([Pair("p", "a", "b", picture(0), picture(0), ())], r"questions must be of .*, got \(\)"),
    ([Pair("p", "a", "b", picture(0), picture(0), 2 * COUNT)], "each once, got .* in row 0"),
    ([Pair("p\0", "a", "b", picture(0), picture(0))], "prompt of row 0 must hold no control"),
    ([Pair("p", 1, "b", picture(0), picture(0))], "first of row 0 must be a string, got 1"),  # pyright: ignore
]


@pytest.mark.parametrize(("wrong", "message"), REFUSED)
def test_pairs_that_cannot_be_shown_are_refused(
    wrong: list[Pair], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        export_study(wrong, tmp_path / "study")
    assert not list(tmp_path.iterdir())
