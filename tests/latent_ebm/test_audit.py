"""The audit of a generator: what it measures, and a page whose every number is a metric."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from latent_ebm.data.shapes import draw_shapes
from latent_ebm.responsibility import Audit, Classified, Terms, embed_watermark, model_card
from latent_ebm.responsibility.cards import flatten_metrics
from tests.browser import CHROMIUM, Browser

SIDE, NUM = 32, 4
SHAPES = draw_shapes(SIDE)
COLOURS = ["red", "green", "blue", "yellow"]
HOSTILE = "<script>document.title='7'</script>"
PROMPTS = [
    "circle",
    "star",
    f"heart b0mb {HOSTILE}",
    'a red square " onload=alert(1) ' + "x" * 120,
]
KEY = b"sixteen bytes of a key"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shape(base: str, tone: str) -> Tensor:
    cells = list(zip(SHAPES.base, SHAPES.tone, strict=True))
    return SHAPES.on(torch.ones(3))[cells.index((base, tone))]


def noisy(x: Tensor, size: float, seed: int = 0) -> Tensor:
    return (x + size * torch.randn(x.shape, generator=seeded(seed))).clamp(-1, 1)


def drawn() -> Tensor:
    """Circles of four colours, stars of one, and red hearts and squares: red is 9 of 16."""
    tones = [COLOURS, ["blue"] * NUM, ["red"] * NUM, ["red"] * NUM]
    bases = ["circle", "star", "heart", "square"]
    rows = [[shape(b, tone) for tone in row] for b, row in zip(bases, tones, strict=True)]
    return noisy(torch.stack([torch.stack(row) for row in rows]), 0.05)


def colour_of(x: Tensor) -> Tensor:
    """The number of the colour of each picture, by the pixel in its middle."""
    tones = torch.stack([shape("circle", tone)[:, SIDE // 2, SIDE // 2] for tone in COLOURS])
    return torch.cdist(x[:, :, SIDE // 2, SIDE // 2], tones).argmin(1)


def redness(x: Tensor) -> Tensor:
    return (colour_of(x) == 0).float()


def references() -> tuple[Tensor, Tensor]:
    """Training pictures, of which the first is near the first circle, and held-out ones."""
    x = torch.rand(60, 3, SIDE, SIDE, generator=seeded(1)) * 2 - 1
    x[7] = noisy(shape("circle", "red"), 0.02, 1)
    return x[:30], x[30:]


def audited() -> Audit:
    facts = {"model": "folder 3 & <b>", "seed": 12345, "guidance": 1.5}
    audit = Audit(PROMPTS, drawn(), facts)
    audit.judge_prompts(Terms(["bomb"]))
    audit.judge_pictures(Classified(redness, 0.5, "red").images)
    audit.represent("colour", colour_of, COLOURS, dict.fromkeys(COLOURS, 0.25), generator=seeded())
    audit.represent("colour, no goal", colour_of, COLOURS)
    audit.compare(*references())
    audit.find_watermark(KEY)
    audit.add_noise_watermark(torch.tensor([1e-9, 0.5, 0.0009]))
    audit.add_text_differences(torch.tensor([1.25, 2.5, 3.75, 1234.5]))
    audit.add_alignment(torch.linspace(-0.25, 0.5, 4 * NUM).view(4, NUM))
    return audit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit") / "report"
    audited().write(folder)
    return folder


class Page(HTMLParser):
    """Tags, texts with the tags around them, and for each number its metric, value and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[list[str], str]] = []
        self.numbers: list[tuple[str, str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((list(self.open), data))
        if self.open and self.open[-1] == "data":
            attrs = self.tags[-1][1]
            self.numbers.append((attrs["data-metric"] or "", attrs["value"] or "", data))


def test_each_number_on_the_page_is_one_of_the_metrics(folder: Path) -> None:
    metrics = dict(flatten_metrics(json.loads((folder / "metrics.json").read_text())))
    page = Page((folder / "report.html").read_text())
    assert page.open == []
    assert len(page.numbers) > 100
    for name, value, text in page.numbers:
        assert float(value) == metrics[name]
        shown = float(re.sub(r"[\u202f ]", "", text).replace("−", "-"))
        assert any(
            shown == pytest.approx(metrics[name] * scale, rel=0.005, abs=0.5 if scale > 1 else 0)
            for scale in (1, 100)
        ), name
    free = ("data", "bdi", "style", "title")  # texts of the user, and no text at all
    rest = [text for tags, text in page.texts if not set(tags) & set(free)]
    assert not [text for text in rest if re.search(r"\d", text)]
    shown_names = {name.split("/")[0] for name, *_ in page.numbers}
    assert shown_names >= metrics.keys() & {"variety", "prompt_filter", "representation"}
    untold = {name.split("/")[0] for name in metrics} - shown_names
    assert not untold


def test_texts_of_the_user_are_escaped_and_nothing_is_fetched(folder: Path) -> None:
    html = (folder / "report.html").read_text()
    page = Page(html)
    for tag, attrs in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        assert not any(name.startswith("on") for name in attrs)
        for name in ("src", "href"):
            assert (attrs.get(name) or "data:").startswith(("data:", "#"))
    assert "url(" not in html
    user = [text for tags, text in page.texts if "bdi" in tags]
    assert HOSTILE in "".join(user)
    titles = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {attrs["href"] for tag, attrs in page.tags if tag == "a"} <= {f"#{i}" for i in titles}
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == 4 * NUM + 2 * 6
    assert all(attrs["alt"] for attrs in images)


def test_metrics_are_what_was_planted(folder: Path) -> None:
    found = json.loads((folder / "metrics.json").read_text())
    assert found["run"] == {"seed": 12345, "guidance": 1.5}
    assert (found["prompts"], found["num"], found["pictures"]) == (4, NUM, 4 * NUM)
    assert found["variety"]["different"]["by_prompt"] == [4, 1, 1, 1]
    assert found["variety"]["repeated"]["estimate"] == 0.75
    assert found["prompt_filter"]["refused"]["hits"] == 1
    assert found["picture_filter"]["by_prompt"] == [1, 0, 4, 4]
    told = found["representation"][0]
    assert (told["prompts"], told["left_out"]) == (3, 1)  # "a red square" names a category
    assert told["counts"] == [5, 1, 5, 1]
    assert told["one_category"]["estimate"] == pytest.approx(2 / 3)
    assert told["distance"]["estimate"] == pytest.approx(2 * (5 / 12 - 0.25))
    copies = found["memorisation"]
    assert copies["nearest"][0]["p"] == pytest.approx(1 / 31)
    assert (copies["nearest"][0]["prompt"], copies["nearest"][0]["picture"]) == (1, 1)
    marks = found["watermark"]
    assert marks["marked"]["hits"] == 4 * NUM > marks["drawn"]["hits"]
    assert (found["noise_watermark"]["hits"], found["noise_watermark"]["total"]) == (2, 3)
    assert found["text_difference"]["by_prompt"] == [1.25, 2.5, 3.75, 1234.5]
    assert found["alignment"]["by_prompt"] == pytest.approx([-0.175, 0.025, 0.225, 0.425])
    assert found["alignment"]["mean"] == pytest.approx(0.125)


def test_the_nearest_training_picture_is_shown() -> None:
    audit = audited()
    assert torch.equal(audit.nearest[0], references()[0][7])


def test_pictures_that_carry_the_mark_are_found_as_they_were_drawn() -> None:
    x = drawn()
    marked = embed_watermark(x.flatten(0, 1), KEY).view_as(x)
    audit = Audit(PROMPTS, marked)
    audit.find_watermark(KEY)
    assert audit.metrics["watermark"]["drawn"]["hits"] == len(marked.flatten(0, 1))


@pytest.mark.parametrize("facts", [None, {"seed": np.float32(3)}, {"model": 7}])
def test_a_page_needs_no_name_of_the_model(facts: dict | None, tmp_path: Path) -> None:
    Audit(["circle"], drawn()[:1], facts).write(tmp_path / "audit")
    page = (tmp_path / "audit" / "report.html").read_text()
    assert "<title>Audit</title>" in page


def test_what_was_not_tested_is_what_was_not_called() -> None:
    audit, whole = Audit(PROMPTS, drawn()), audited()
    before = audit.untested
    audit.judge_prompts(Terms(["bomb"]))
    assert before.keys() - audit.untested.keys() == {"Which prompts are refused"}
    audit.represent("colour", colour_of, ["square", "circle", "star", "heart"])
    assert before.keys() - audit.untested.keys() == {"Which prompts are refused"}  # all name one
    assert before.keys() > whole.untested.keys() >= {"Other prompts", "What people think"}
    assert "Whether a picture shows what its prompt says" in before


def test_the_metrics_make_a_model_card(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    titles = ("Description", "Intended use", "Limits", "Not tested")
    texts = dict.fromkeys(titles, "16 pictures were drawn.")
    card = model_card("shapes", tmp_path / "config.yaml", folder / "metrics.json", texts)
    assert "`watermark/marked/hits` | 16" in str(card)


def test_nothing_is_overwritten(folder: Path) -> None:
    with pytest.raises(FileExistsError):
        audited().write(folder)


@pytest.fixture(scope="module")
def browser(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    browser = Browser(tmp_path_factory.mktemp("browser") / "profile")
    try:
        for domain in ("Network", "Page", "Runtime", "Log"):
            browser.send(f"{domain}.enable")
        browser.resize(390)
        browser.open((folder / "report.html").as_uri())
        yield browser
    finally:
        browser.close()


WIDE = (
    "[...document.querySelectorAll('body *')].filter((e) => !e.closest('.scroll') && "
    "e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))"
)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 820, 1440])
def test_the_page_fits_the_screen(browser: Browser, width: int, theme: str) -> None:
    browser.resize(width)
    media = [{"name": "prefers-color-scheme", "value": theme}]
    browser.send("Emulation.setEmulatedMedia", features=media)
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(WIDE) == []
    sizes = browser.evaluate("[...document.images].map((image) => [image.complete, "
                             "image.naturalWidth, image.clientWidth > 20])")  # fmt: skip
    assert sizes == [[True, SIDE, True]] * (4 * NUM + 2 * 6)
    paper, ink = browser.evaluate(
        "((s) => [s.backgroundColor, s.color].map((c) => c.match(/\\d+/g).map(Number)))"
        "(getComputedStyle(document.body))"
    )
    assert (sum(paper) > sum(ink)) == (theme == "light")


def test_the_browser_has_nothing_to_complain_of(browser: Browser) -> None:
    browser.evaluate("document.querySelector('nav a[href=\"#untested\"]').click()")
    assert browser.evaluate("location.hash") == "#untested"
    bad = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    assert not [event for event in browser.events if event.get("method") in bad]
    asked = [e for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    addresses = {event["params"]["request"]["url"] for event in asked}
    assert len([a for a in addresses if not a.startswith("data:")]) == 1
