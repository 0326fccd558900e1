"""The report of a detector: it needs nothing but itself, shows what was found, and says it with
the data's own names.
"""

import base64
import io
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latent_ebm.detection import Explanation, LatentEBMDetector
from latent_ebm.detection.findings import Findings
from latent_ebm.detection.report import heat, make_report, png, score_range

HOSTILE = "<script>document.title='taken'</script>"
pytestmark = pytest.mark.filterwarnings("ignore:.*litlogger")
COLUMNS = ["flow", HOSTILE, 'heat" onmouseover="alert(1)', "{{ 7 * 7 }}"]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


class Page(HTMLParser):
    """Tags with their attributes, the text of each heading of the third level, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "col"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.text.append((self.open[-1], data.strip()))

    def of(self, tag: str) -> list[str]:
        return [text for name, text in self.text if name == tag]

    def images(self) -> list[tuple[str, bytes]]:
        sources = [attrs["src"] or "" for tag, attrs in self.tags if tag == "img"]
        parts = [re.fullmatch(r"data:image/([a-z+]+);base64,(.+)", source) for source in sources]
        return [(part[1], base64.b64decode(part[2], validate=True)) for part in parts if part]


def findings(
    detector: LatentEBMDetector, normal: np.ndarray, x: np.ndarray, alpha: float = 0.2
) -> Findings:
    scores, normal_scores = detector.score_samples(x), detector.score_samples(normal)
    p = (1 + (normal_scores <= scores[:, None]).sum(1)) / (1 + len(normal))
    return Findings(
        scores, p, p <= alpha / 4, normal_scores, float(np.quantile(normal_scores, alpha)), alpha
    )


@pytest.fixture(scope="module")
def table() -> str:
    """The report of twelve rows of which one, "row 5", has an impossible value in the hostile
    column.
    """
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(112, 4)) * [1, 10, 100, 1000]
    detector, x = LatentEBMDetector(random_state=0).fit(rows[:50]), rows[100:]
    x[5, 1] = 123.0
    names = [f"row {i}" for i in range(12)]
    return make_report(
        detector,
        x,
        findings(detector, rows[50:100], x),
        COLUMNS,
        names,
        {"New data": "a & b.csv"},
        3,
    )


@pytest.fixture(scope="module")
def pictures() -> str:
    """The report of six images, the first of which, "bright.png", is white where normal ones are
    dark.
    """
    rng = np.random.default_rng(0)
    rows = np.clip(-0.8 + 0.1 * rng.normal(size=(86, 64)), -1, 1)
    detector = LatentEBMDetector(
        image_shape=(1, 8, 8), latent_dim=2, channels=2, max_steps=2, random_state=0
    )
    detector.fit(rows[:50]).explain = lambda X: Explanation(
        X + 0.8, X + 0.8, np.full_like(X, -0.8)
    )  # pyright: ignore
    x = rows[80:]
    x[0, :8] = 1.0
    names = ["bright.png", *(f"{i}.png" for i in range(5))]
    return make_report(
        detector, x, findings(detector, rows[50:80], x), [str(j) for j in range(64)], names, {}, 2
    )


@pytest.mark.parametrize("name", ["table", "pictures"])
def test_the_page_needs_nothing_but_itself(name: str, request: pytest.FixtureRequest) -> None:
    html = request.getfixturevalue(name)
    page = Page(html)
    assert page.open == []
    for tag, attrs in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        assert not any(key.startswith("on") for key in attrs)
        for key in ("src", "href", "srcset", "action", "data", "poster"):
            assert attrs.get(key, "data:").startswith("data:")  # pyright: ignore
    assert "url(" not in html
    assert "@import" not in html
    assert any(
        attrs.get("content", "").startswith("default-src 'none'")
        for tag, attrs in page.tags
        if tag == "meta"
    )  # pyright: ignore


@pytest.mark.parametrize(("name", "num"), [("table", 3), ("pictures", 3 + 2 * 3)])
def test_all_images_can_be_shown(name: str, num: int, request: pytest.FixtureRequest) -> None:
    images = Page(request.getfixturevalue(name)).images()
    assert len(images) == num
    for kind, content in images:
        if kind == "png":
            assert Image.open(io.BytesIO(content)).size == (8, 8)
        else:
            assert ET.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
            assert (b"new images" in content) == (
                name == "pictures"
            )  # text stays in a comment beside its outlines
            assert re.findall(rb'href="(?!#)', content) == []


def test_names_are_shown_as_they_are(table: str) -> None:
    page = Page(table)
    cells = page.of("td")
    assert set(COLUMNS) & set(cells)
    assert HOSTILE in cells
    assert HOSTILE not in table
    assert "49" not in cells
    assert "a & b.csv" in page.of("dd")


def test_the_most_unusual_row_comes_first_with_its_reason(table: str) -> None:
    page = Page(table)
    assert page.of("h3")[0] == "row 5"
    assert len(page.of("h3")) == 3
    first = table[table.index("<tbody>") : table.index("</tbody>")]
    cells = Page(f"{first}</tbody>").of("td")
    assert cells[:2] == [HOSTILE, "123"]
    assert abs(float(cells[2].replace("−", "-"))) < 30  # the model's own value is a usual one
    widths = [float(w) for w in re.findall(r"width:([\d.]+)%\"></i>", first)]
    assert widths[0] == 100
    assert widths == sorted(widths, reverse=True)
    assert page.of("h1") == ["1 of 12 rows stands out"]
    assert page.of("span").count("stands out") == 1


def test_an_image_stands_beside_the_models_own(pictures: str) -> None:
    page = Page(pictures)
    assert page.of("h3")[0] == "bright.png"
    image, normal, why = (
        np.asarray(Image.open(io.BytesIO(c)).convert("RGB"), dtype=float)
        for _, c in page.images()[:3]
    )
    assert image[0].min() == 255
    assert image[1:].max() < 100
    assert normal.max() == normal.min() == pytest.approx(image[1:].mean(), abs=6)
    redness = why[..., 0] - why[..., 2]
    assert redness[0].mean() > 30 + redness[1:].mean()


@pytest.mark.parametrize("num", [1, 2, 4])
def test_images_of_other_than_three_channels_are_grey(num: int) -> None:
    image = np.random.default_rng(0).uniform(size=(num, 8, 9))
    shown = np.asarray(Image.open(io.BytesIO(decoded(png(image)))).convert("RGB")) / 255
    np.testing.assert_allclose(shown, image.mean(0)[..., None].repeat(3, 2), atol=1 / 255)


def test_images_of_three_channels_are_in_colour() -> None:
    image = np.random.default_rng(0).uniform(size=(3, 8, 9))
    shown = np.asarray(Image.open(io.BytesIO(decoded(png(image)))).convert("RGB")) / 255
    np.testing.assert_allclose(shown, np.moveaxis(image, 0, -1), atol=1 / 255)


def decoded(address: str) -> bytes:
    return base64.b64decode(address.removeprefix("data:image/png;base64,"), validate=True)


def test_colours_of_contributions() -> None:
    red, white, blue = np.moveaxis(heat(np.array([[2.0, 0.0, -2.0]])), 0, -1)[0]
    assert red[0] > 0.3 > red[2]
    assert white.min() > 0.95
    assert blue[2] > 0.3 > blue[0]
    assert heat(np.zeros((1, 2))).min() > 0.95


def test_rows_that_are_far_out_do_not_squeeze_the_others() -> None:
    normal = np.linspace(-3, -1, 50)
    found = Findings(np.array([-1e6, -2.0]), np.ones(2), np.zeros(2, bool), normal, -2.8, 0.1)
    assert score_range(found) == (-7.0, -1.0)
    assert score_range(found._replace(scores=np.array([-4.0, 5.0]))) == (-4.0, 5.0)
    assert score_range(
        found._replace(scores=np.full(2, -1.0), normal_scores=np.full(9, -1.0), threshold=-1.0)
    ) == (
        -1,
        0,
    )


def test_nothing_found() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 2))
    detector = LatentEBMDetector(random_state=0).fit(rows[:50])
    found = findings(detector, rows[:50], rows[50:])._replace(selected=np.zeros(10, bool))
    page = Page(make_report(detector, rows[50:], found, ["a", "b"], list("abcdefghij"), {}))
    assert page.of("h1") == ["None of 10 rows stands out"]
    assert len(page.of("h3")) == 8
    with pytest.raises(ValueError, match="columns must name all 2, got 1"):
        make_report(detector, rows[50:], found, ["a"], list("abcdefghij"), {})


def test_rows_beyond_every_normal_one_have_a_headline_of_their_own() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 2))
    detector, nothing = LatentEBMDetector(random_state=0).fit(rows[:50]), np.zeros(10, bool)
    rows[53] = 9.0
    found = findings(detector, rows[:50], rows[50:])._replace(selected=nothing)
    found = found._replace(
        p_values=np.where(np.arange(10) == 3, 1 / 51, 0.5), alpha=0.05, warnings=("Is it < so?",)
    )
    html = make_report(detector, rows[50:], found, ["a", "b"], list("abcdefghij"), {}, 1)
    page = Page(html)
    assert page.of("h1") == ["1 of 10 rows lies beyond every normal row"]
    assert page.of("span").count("beyond every normal row") == 1
    assert any(
        "4 or more of the 10 must lie beyond every normal row" in text for text in page.of("p")
    )
    assert any(
        "199 normal rows held out, twice as many in the training data" in text
        for text in page.of("p")
    )
    assert "Is it &lt; so?" in html
    assert "is not proven" not in html
    found = found._replace(
        num_folds=7, threshold=1e9
    )  # scores of several fits, which no threshold divides
    html = make_report(detector, rows[50:], found, ["a" * 3000, "b"], list("abcdefghij"), {}, 1)
    assert "<b>1</b>is an outlier by itself" in html  # as p-values say
    assert "a" * 101 not in html
    assert "below the threshold" not in html
    assert "the model was fitted 7 times" in html
    assert "this is not proven" in html
    assert "twice as many in the training data" not in html


def test_the_same_findings_make_the_same_page() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 2))
    detector = LatentEBMDetector(random_state=0).fit(rows[:50])
    found = findings(detector, rows[:50], rows[50:])
    pages = [
        make_report(detector, rows[50:], found, ["a", "b"], list("abcdefghij"), {})
        for _ in range(2)
    ]
    assert pages[0] == pages[1]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
def test_a_browser_shows_it(table: str, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(table, encoding="utf-8")
    shot = tmp_path / "shot.png"
    actions = ["--window-size=1100,1400", f"--screenshot={shot}"], ["--dump-dom"]
    shown, dumped = (browse(tmp_path, action) for action in actions)
    assert shown.returncode == dumped.returncode == 0
    assert "<title>1 of 12 rows stands out</title>" in dumped.stdout
    assert Page(dumped.stdout).of("h3")[0] == "row 5"
    pixels = np.asarray(Image.open(shot).convert("RGB")).reshape(-1, 3).astype(int)
    bars = np.abs(pixels - [0xC2, 0x41, 0x0C]).sum(1) < 12
    assert bars.sum() > 1000  # contribution bars are painted
    assert len(pixels) == 1100 * 1400


def browse(folder: Path, action: list[str]) -> subprocess.CompletedProcess[str]:
    """Chromium opens the report with a profile of its own and does ``action``."""
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [str(CHROMIUM), *FLAGS, profile, *action, (folder / "report.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    shutil.rmtree(folder / "profile", ignore_errors=True)
    return done
