"""Every YAML file says what it is, is accepted whole, and takes a step; what the report says is
counted rightly.
"""

import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments import common
from experiments.benchmarks.timing import ratios, take_turns
from experiments.diffusion_gan.run import measure
from experiments.imagen.corpora import SHOWN, WORDS, Picture, write_folder
from experiments.self_adversarial.report import count, unlike_density, verdict
from experiments.subjects.inpainting import Inpainting
from experiments.subjects.run import PACK
from experiments.tables import spread
from experiments.text_to_image import claims as text_to_image_claims
from experiments.training import Run
from latent_ebm.cli import main
from latent_ebm.data import MNIST, Emoji, Images, Scenes, Subjects, Toy2D
from latent_ebm.data.base import Pair
from latent_ebm.text import WordTokenizer

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "experiments").glob("*/*.yaml"))


def fake_mnist(self: MNIST) -> tuple[Pair, Pair, Pair]:
    """Noise in the shape of MNIST."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(300, 1, 28, 28, generator=generator) * 2 - 1
    pair = x[:100], torch.arange(100) % 10
    return pair, pair, pair


def fake_images(self: Images) -> tuple[Pair, Pair, Pair]:
    """Noise in the shape of small colour images."""
    x = torch.rand(150, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pair = x, torch.arange(150) % 10
    return pair, pair, pair


def test_there_are_experiments() -> None:
    assert {"digits", "mnist", "pinwheel"} <= {path.parent.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_header(path: Path) -> None:
    header = "".join(
        line for line in path.read_text().splitlines(keepends=True) if line.startswith("#")
    )
    assert "arXiv:" in header
    assert f"latent-ebm fit --config {path.relative_to(ROOT).as_posix()}" in header
    assert "RESULTS.md" in header


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a teacher of one step, which students name by its checkpoint."""
    folder = tmp_path_factory.mktemp("teacher")
    short = [
        "max_epochs=1",
        "limit_train_batches=1",
        "limit_val_batches=0",
        "enable_progress_bar=false",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(MNIST, "load", fake_mnist)
        config = ROOT / "experiments" / "mnist_diffusion" / "teacher.yaml"
        assert (
            main(["fit", "--config", str(config), *(f"--trainer.{option}" for option in short)])
            == 0
        )
    return folder


@pytest.mark.filterwarnings(
    "ignore:.*never moved:UserWarning"
)  # one of 200 chains, with untrained stages
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_takes_a_step(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    needs_teacher = "load_denoiser" in path.read_text()
    monkeypatch.chdir(request.getfixturevalue("teacher") if needs_teacher else tmp_path)
    monkeypatch.setattr(MNIST, "load", fake_mnist)
    monkeypatch.setattr(MNIST, "prepare_data", lambda self: None)
    monkeypatch.setattr(Images, "load", fake_images)
    short = ["--trainer.fast_dev_run=true", "--trainer.enable_progress_bar=false"]
    assert main(["fit", "--config", str(path), *short, *on_shapes(path)]) == 0


def on_shapes(path: Path) -> list[str]:
    """Options by which a file on emoji learns drawn shapes; their words are written as it says."""
    sources = {
        "text_to_image/words": (Emoji("shapes", num_val=8), ["num_val=8"]),
        "text_to_image/scene_words": (Scenes(), ["groups=null", "num=64"]),
        "subjects/words": (Subjects(), ["groups=null", "num=64"]),
    }
    if path.parent.name == "imagen":
        write_shapes()
        return []
    for name, (data, own) in sources.items():
        words = Path("runs") / f"{name}.json"
        if str(words) in path.read_text():
            data.setup()
            assert isinstance(data.tokenizer, WordTokenizer)
            words.parent.mkdir(parents=True)
            data.tokenizer.save(words)
            return [f"--data.init_args.{option}" for option in ("source=shapes", *own)]
    return []


@pytest.mark.filterwarnings("ignore")  # of Lightning and jsonargparse
def test_networks_that_fill_holes_begin_by_their_own_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also though making the model that they start from seeds the random state anew."""
    monkeypatch.chdir(tmp_path)
    shapes = on_shapes(PACK)
    monkeypatch.setattr(Run, "rule", lambda run: run.make().model)

    def begin(seed: int) -> Tensor:
        options = (f"--seed_everything={seed}", *shapes)
        start = Run("base", PACK, ("--seed_everything=0", *shapes))
        rule = Inpainting("filled", PACK, options, start=start).make().model
        return rule.denoiser.network.token_places

    assert torch.equal(begin(1), begin(1))
    assert not torch.equal(begin(1), begin(2))


def write_shapes() -> None:
    """Write drawn shapes and their words where the experiment on curation has its own."""
    data = Emoji("shapes", side=16, num_val=8)
    data.setup()
    rows = zip(data.train.x, data.train.glyphs.names, strict=True)
    write_folder(SHOWN, [Picture(*row) for row in rows])
    assert isinstance(data.tokenizer, WordTokenizer)
    data.tokenizer.save(WORDS)


def test_the_report_has_whole_tables_and_what_it_links_to() -> None:
    lines = (ROOT / "experiments" / "RESULTS.md").read_text().splitlines()
    for line, after in pairwise(lines):
        assert not line.startswith("|") or not after or after.startswith("|"), after
    headings = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    anchors = [re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings]
    text = "\n".join(lines)
    assert re.findall(r"\]\(#(.+?)\)", text) == anchors
    figures = set(re.findall(r"\]\((figures/.+?)\)", text))
    assert figures
    assert all((ROOT / "experiments" / name).is_file() for name in figures)


def test_spread_says_mean_deviation_and_number() -> None:
    assert spread([1.0, 3.0]) == "2.00 ± 1.41 (2)"
    assert spread([0.01234, None, math.nan]) == "0.0123 (1)"
    assert spread([None]) == "-"


def test_contestants_take_turns() -> None:
    calls: list[str] = []
    seconds = take_turns(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2
    )
    assert calls == ["a", "b"] * 3  # one round to warm up
    assert [len(times) for times in seconds.values()] == [2, 2]
    assert ratios({"a": [1.0, 2.0, 1.0], "b": [3.0, 4.0, 1.0]}, "a")["b"] == (1.0, 2.0, 3.0)


def test_modes_are_counted() -> None:
    """Of the data, of one mode of it (KL log 25), and of what lies beside every mode."""
    data = Toy2D("gaussian_grid", num=10_000)
    data.setup()
    x, label = data.train.x, data.train.label
    whole, one, none = measure(x), measure(x[label == 7]), measure(x + 0.6)
    assert whole["modes"] == 25
    assert whole["kl"] == pytest.approx(24 / (2 * len(x)), abs=0.002)
    assert whole["within_3"] == pytest.approx(1 - math.exp(-4.5), abs=0.005)
    assert whole["within_4"] == pytest.approx(1 - math.exp(-8), abs=0.001)
    assert (one["modes"], one["kl"]) == (1, pytest.approx(math.log(25), abs=1e-6))
    assert none["within_4"] < 0.1


def test_claims_are_counted_where_they_can_be_asked() -> None:
    near, far = {"samples": 0.01, "density": 0.5}, {"samples": 0.2, "density": 0.5}
    runs = [{"flow": near}, {"flow": far}, {"flow": {"diverged": "at step 3"}}]
    counted = count(lambda seed: unlike_density(seed["flow"]), runs)
    assert counted == (1, 2)
    assert verdict(*counted) == "The claim held in 1 of 2 runs."


def test_what_is_tracked_stands_in_for_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    calls: list[int] = []

    def compute() -> dict[str, Any]:
        calls.append(1)
        return {"kl": 0.25, "curve": [{"kl": 1.0}], "grid": [[1.0, 2.0]], "samples": "x" * 2000}

    config = {"seed": 0, "steps": (1, 2)}
    first = common.cached("toy/run-0", config, compute)
    assert common.cached("toy/run-0", config, compute) == first
    common.track("toy")
    (tmp_path / "outputs" / "toy" / "run-0.json").unlink()
    assert common.cached("toy/run-0", config, compute) == {"kl": 0.25, "curve": [{"kl": 1.0}]}
    assert len(calls) == 1
    common.cached("toy/run-0", {**config, "seed": 1}, compute)
    assert len(calls) == 2
    assert common.results("toy")["run-0"] == first


def test_a_claim_on_a_change_uses_the_seeds_that_have_it_and_the_plain_network() -> None:
    keys, sorts = text_to_image_claims.NETWORKS, text_to_image_claims.SORTS
    shares = {"plain": 0.5, "all": 0.49, "swish": 0.2}
    stored = {
        keys[name].format(seed): dict.fromkeys(sorts, share + 0.001 * seed)
        for name, share in shares.items()
        for seed in range(2 if name == "swish" else 4)
    }
    rows = text_to_image_claims.switched(stored).splitlines()[2:]
    assert [row.split(" | ")[1:] for row in rows] == [
        ["-0.300 (-0.300 to -0.300)", "> -0.02", "undecided, 2 seeds |"],
        ["-0.010 (-0.010 to -0.010)", "> -0.02", "holds, 4 seeds |"],
    ]


def test_claims_on_few_steps_are_decided_by_the_seeds_that_have_all_models() -> None:
    keys = text_to_image_claims.STUDENTS
    right = {"1": 0.2, "50": 0.4, "progressive": 0.39, "UFOGen": 0.3, "EMD": 0.3, "DMD": 0.1}
    stored = {
        key.format(seed): {name: right[arm] + 0.001 * seed for name in text_to_image_claims.KINDS}
        for seed in range(3)
        for arm, key in keys.items()
    }
    stored |= {keys["1"].format(3): {}, keys["50"].format(3): {}}
    text = text_to_image_claims.few_steps(stored)
    rows = {line.split(" | ")[0][2:]: line.split(" | ")[-1] for line in text.splitlines()}
    equal = "right: progressive in 8 steps as good as the teacher in 50"
    assert rows[equal] == "holds, 3 seeds |"
    told = "right: {} better than the teacher, both in one step"
    assert rows[told.format("UFOGen")] == "holds, 3 seeds |"
    assert rows[told.format("DMD")] == "refuted, 3 seeds |"
    assert text_to_image_claims.few_steps({}) == ""
