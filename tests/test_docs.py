"""What the documentation shows is run: the blocks of each page, in order, in an empty folder.

Blocks of ``python`` and lines of ``bash`` are run; ``yaml`` is saved under the name that the page
gives it. Blocks of other kinds (``console``, ``text``, ``pycon``) are for reading.
"""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from latent_ebm import load
from latent_ebm.cli import main

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```(python|bash|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [page for page in sorted(DOCS.glob("**/*.md")) if BLOCK.search(page.read_text())]


def student(names: dict[str, Any]) -> None:
    assert 2.9 < names["radius"] < 3.3
    assert ((names["z"].std(0) > 0.8) & (names["z"].std(0) < 1.2)).all()


def sample_any_density(names: dict[str, Any]) -> None:
    assert names["rate"].mean() > 0.7
    assert (names["rhat"] < 1.03).all()
    assert 0.4 < names["share"] < 0.6
    assert all(abs(names[end] - names["truth"]) < 0.1 for end in ("lower", "upper"))


def detect_anomalies(names: dict[str, Any]) -> None:
    selected, malignant = names["selected"], names["tumours"].target.to_numpy()[-69:] == 0
    assert selected[malignant].mean() > 2 * selected[~malignant].mean()
    assert names["why"].contribution.shape == (selected.sum(), 30)
    new = names["new"].to_numpy()
    assert (names["same"].score_samples(new) == names["detector"].score_samples(new)).all()
    assert Path("scores.csv").read_text() == Path("again.csv").read_text()


def train_on_your_table(names: dict[str, Any]) -> None:
    assert names["rows"].shape == (10, 13)
    assert names["rows"][:, -1].mean() > 300  # units of the table: proline is 750 on average


def conditions(names: dict[str, Any]) -> None:
    digits = load_digits()
    judge = LogisticRegression(max_iter=2000).fit(digits.data / 8 - 1, digits.target)
    for images in (names["images"], names["digits"]):
        found = judge.predict(images.flatten(1).numpy())
        assert (found == names["labels"].numpy()).mean() > 0.7
    assert (judge.predict(names["images_of_3"].flatten(1).numpy()) == 3).mean() > 0.7


def curate_captioned_images(names: dict[str, Any]) -> None:
    dropped = {d.name: d.filter for d in names["report"].decisions if d.filter}
    steps = ["Sharpness", "Terms", "PersonalData", "Copies"]
    assert dropped == dict(zip(["42.png", "43.png", "44.png", "45.png"], steps, strict=True))
    weights = [d.weight for d in names["report"].kept]
    assert weights == [0.5] * 10 + [1.0] * 22 + [0.5] * 10
    assert names["batch"].x.shape == (8, 3, 64, 64)
    assert {"ImageScore", "Short"} & {d.filter for d in names["strict"].decisions}
    assert sum("drawing" in d.caption for d in names["mixed"].kept) > 2


def draw_in_few_steps(names: dict[str, Any]) -> None:
    assert names["images"].shape == (4, 3, 16, 16)
    assert names["model"].weights == (1.0, 4.0)
    assert names["student"].stage == 1
    assert Path("four.png").stat().st_size > 0
    assert load("one_step").sampler.num_steps == 1


def edit_a_picture(names: dict[str, Any]) -> None:
    picture, kept = names["picture"], names["mask"] == 0
    assert (names["back"] - picture).abs().max() < 0.02
    assert torch.equal(names["filled"][:, kept[0]], picture.expand(5, -1, -1, -1)[:, kept[0]])
    assert names["again"].shape == picture.shape
    assert all(weights.shape[-1] == 4 for calls in names["maps"].values() for weights in calls)


def text_to_image(names: dict[str, Any]) -> None:
    assert names["x"].shape == (1, 3, 16, 16)
    assert names["mine"].train.captions([0])[0] in names["glyphs"].names
    assert all(Path(name).stat().st_size > 1000 for name in ("first.png", "eight.png", "grid.png"))


def inpaint_a_subject(names: dict[str, Any]) -> None:
    image, known = names["image"], names["mask"][0] == 0
    assert torch.equal(names["filled"][..., known], image[:, known].expand(4, -1, -1))
    assert Path("filled.png").stat().st_size > 0
    assert load("from_text").shape == (3, 16, 16)
    assert names["tokens"].shape == (3, 2, 8)
    assert torch.equal(names["x"][0][:, known], image[:, known])


def teach_a_subject(names: dict[str, Any]) -> None:
    art, found = names["data"].test.studio.glyphs.art, names["portraits"]
    assert all(art[portrait.glyph] == art[3] for portrait in found)
    assert (names["identity"] > 0.99).all()
    assert (names["scores"].amax(2).argmax(1) == 3).all()
    assert names["masks"].mean((1, 2, 3)).min() > 0.02


def compare_models(names: dict[str, Any]) -> None:
    assert names["scores"]["first"] > names["scores"]["second"] + 0.01
    assert names["recall"][1].estimate > 0.7
    assert all(abs(distance) < 1 for distance in names["distances"].values())
    assert names["pixels"]["second"] > 4 * names["pixels"]["first"]
    assert names["found"].right.estimate == 1
    assert 0.4 < names["found"].coverage < 0.6
    assert names["kl"] > 0.3
    assert names["agreement"].low > 0.5


def before_release(names: dict[str, Any]) -> None:
    assert "No key was given." in names["untested"].values()
    assert names["report"].metrics["representation"][0]["prompts"] == 2
    assert names["found"].double().mean() > 0.95
    assert (names["p_noise"] < 1e-6).all()
    assert names["shares"]["red"].estimate > 0.4
    assert names["alone"].estimate == pytest.approx(1 / 3)
    assert names["distance"].low > 0
    assert names["decision"].span == (2, 6)
    assert tuple(rate.estimate for rate in names["rates"]) == (0.5, 0.5)
    assert (names["p_copy"] < 0.05).all()
    assert len(names["images"]) == len(names["prompts"]) == 111


def compare_by_people(names: dict[str, Any]) -> None:
    page = Path("study/page/index.html").read_text()
    assert not [name for name in names["drawn"] if name in page]
    assert len(names["ratings"]) == 4 * 24 * 3
    assert set(names["shares"].values()) == {0.25}
    elo, intervals = names["elo"], names["intervals"]
    assert elo["clear"] > elo["noisy"] > elo["pale"]
    assert all(low < elo[model] < high for model, (low, high) in intervals.items())
    assert intervals["clear"][0] > intervals["pale"][1]
    assert names["win"] + names["loss"] + names["tie"] == pytest.approx(1)
    assert names["win"] > names["wins"][0, 2] - 0.1 > 0.5
    assert names["agreement"]["distance"].share.low > 0.5
    assert names["agreement"]["noise"].share.high < 0.5


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "student": student,
    "sample_any_density": sample_any_density,
    "detect_anomalies": detect_anomalies,
    "compare_models": compare_models,
    "before_release": before_release,
    "compare_by_people": compare_by_people,
    "conditions": conditions,
    "curate_captioned_images": curate_captioned_images,
    "draw_in_few_steps": draw_in_few_steps,
    "edit_a_picture": edit_a_picture,
    "inpaint_a_subject": inpaint_a_subject,
    "teach_a_subject": teach_a_subject,
    "text_to_image": text_to_image,
    "train_on_your_table": train_on_your_table,
}


def run_line(line: str) -> None:
    program, *arguments = shlex.split(line)
    assert program == "latent-ebm"
    assert main(arguments) == 0, line


@pytest.mark.cpu
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.filterwarnings("ignore:.*litlogger")
def test_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text()
    blocks = BLOCK.findall(text)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    if saved := re.search(r"`(\w+\.yaml)`", text):
        Path(saved[1]).write_text("".join(code for kind, code in blocks if kind == "yaml"))
    names: dict[str, Any] = {"__name__": page.stem}
    for kind, code in blocks:
        if kind == "python":
            exec(compile(code, page.name, "exec"), names)
        for line in code.replace("\\\n", "").splitlines() if kind == "bash" else ():
            run_line(line)
    CHECKS.get(page.stem, lambda names: None)(names)


PROSE = [*DOCS.glob("**/*.md"), *(DOCS.parent / f"{n}.md" for n in ("CONTRIBUTING", "CHANGELOG"))]


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.stem)
def test_lines_are_short(page: Path) -> None:
    """99 columns, but for tables, which Markdown cannot wrap."""
    lines = page.read_text().splitlines()
    assert not [line for line in lines if len(line) > 99 and not line.startswith("|")]
