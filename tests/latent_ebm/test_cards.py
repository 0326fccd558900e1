"""Model cards: every number of a card is found in the files of the run."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from latent_ebm.responsibility import model_card
from latent_ebm.responsibility.cards import number_tokens

hub = pytest.importorskip("huggingface_hub")
METRICS = {
    "fid": 12.345678901234567,
    "counting": {"1": 0.93, "5": 0.414},
    "p": 1e-07,
    "win": [3, -0.5],
}
CONFIG = "seed_everything: 7\nmodel:\n  class_path: Denoising\n  rate: 0.0002\n"
TEXTS = {
    "Description": "Draws small pictures; trained with seed 7.",
    "Intended use": "Teaching.",
    "Limits": "Counts 0.93 of single objects right, but only 0.414 of five.",
    "Not tested": "Photographs.",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def card_of(run: Path, **texts: str) -> str:
    return str(
        model_card(
            "Emoji model",
            run / "config.yaml",
            run / "metrics.json",
            TEXTS | {key.replace("_", " "): value for key, value in texts.items()},
            license="apache-2.0",
            tags=["text-to-image"],
        )
    )


def test_every_number_of_the_card_is_in_the_files(run: Path) -> None:
    body = card_of(run).split("---\n", 2)[2]
    files = (run / "metrics.json").read_text() + (run / "config.yaml").read_text()
    known = {float(n) for n in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", files)}
    indices = {float(i) for i in range(len(METRICS["win"]))}  # names of the entries of a list
    numbers = re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", body)
    assert len(numbers) > 10
    assert {float(n) for n in numbers} <= known | indices
    for value in ("12.345678901234567", "0.93", "0.414", "1e-07", "-0.5", "0.0002"):
        assert value in body


def test_the_card_is_one_of_the_hub(run: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card_of(run))
    read = hub.ModelCard.load(tmp_path / "README.md")
    assert read.data.license == "apache-2.0"
    assert read.data.tags == ["text-to-image"]
    assert "## Not tested\n\nPhotographs." in read.text


@pytest.mark.parametrize("claim", ["0.94", "93", "12.3", "1,000", "7.5", "-7", ".5"])
def test_a_number_that_was_not_measured_is_refused(run: Path, claim: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"written as there, got {claim}")):
        card_of(run, Limits=f"It reaches {claim}.")


def test_metrics_of_one_name_are_refused(run: Path) -> None:
    (run / "metrics.json").write_text(json.dumps({**METRICS, "counting/1": 0.5}))
    with pytest.raises(ValueError, match="must have different names, got 'counting/1' 2 times"):
        card_of(run)


def test_a_minus_may_be_written_as_one(run: Path) -> None:
    assert "\N{MINUS SIGN}0.5" in card_of(run, Limits="Falls by \N{MINUS SIGN}0.5.")
    with pytest.raises(ValueError, match=r"got -0\.93"):
        card_of(run, Limits="Falls by \N{MINUS SIGN}0.93.")


def test_numbers_are_told_from_digits_in_words() -> None:
    text = "R1 and x2 of 3, 4.5, -1e-3; 1,000 (v2.0) 6."
    assert number_tokens(text) == {"3", "4.5", "-1e-3", "1,000", "6"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "metrics.json").write_text('{"a": NaN}'), "finite numbers, got nan"),
        (lambda run: (run / "metrics.json").write_text('{"a": "x"}'), "finite numbers, got 'x'"),
        (lambda run: (run / "config.yaml").write_text("- 1"), "config.yaml must hold the config"),
        (lambda run: (run / "metrics.json").write_text("[]"), "must hold metrics, got a list"),
    ],
)
def test_damaged_files_are_refused(
    run: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(run)
    with pytest.raises(ValueError, match=message):
        card_of(run)


def test_texts_must_be_there(run: Path) -> None:
    with pytest.raises(ValueError, match=r"texts\['Limits'\] must be a text that is not empty"):
        card_of(run, Limits=" ")
    with pytest.raises(ValueError, match="texts must have Description"):
        model_card("a", run / "config.yaml", run / "metrics.json", {"Limits": "none"})
