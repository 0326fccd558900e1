"""Filters say why; assurance sets judge them and cannot be trained on."""

import ast
import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from scipy.stats import beta
from torch import Tensor
from torch.utils.data import DataLoader

from latent_ebm.responsibility import (
    AllOf,
    AssuranceSet,
    Classified,
    Decision,
    Terms,
    threshold_for,
)

ROOT = Path(__file__).parents[2]
ALLOWED = Decision(True)


def test_a_decision_says_why_and_where() -> None:
    judge = Terms(["bomb"], [r"\d{3}-\d{4}"])
    prompt = "Draw a B0\u200bMB, please"
    decision = judge(prompt)
    assert not decision
    assert decision.span == (7, 12)
    assert decision.reason == "term 'bomb' in 'B0\\u200bMB'"
    assert judge("call 555-1234").span == (5, 13)
    assert judge("bombastic") == ALLOWED


def test_filters_are_asked_in_order_until_one_refuses() -> None:
    asked = []

    def nosy(prompt: str) -> Decision:
        asked.append(prompt)
        return ALLOWED

    both = AllOf([nosy, Terms(["bomb"]), nosy])
    assert both("a bomb").reason.startswith("term 'bomb'")
    assert asked == ["a bomb"]
    assert both("a cat").allowed


def test_a_classifier_of_prompts_or_images_refuses_from_its_threshold_on() -> None:
    judge = Classified(lambda p: torch.tensor([float(len(t)) for t in p]), 5, "length")
    assert judge("1234").allowed
    assert judge("12345") == Decision(False, "length: 5 >= 5")
    images = Classified(lambda x: x.mean((1, 2, 3)), 0.5, "brightness")
    decisions = images.images(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4))
    assert [d.allowed for d in decisions] == [True, False]


@pytest.mark.parametrize(
    ("term", "text"),
    [("illicit", "i" + "|" * 400), ("killer", "k" + "|" * 400), ("titties", "t" + "|+" * 400)],
)
def test_a_text_of_signs_takes_no_time(term: str, text: str) -> None:
    """Signs that stand for letters and between them have many readings, whose number grows as a
    power of the length: to try all of them would not end.
    """
    terms = Terms([term])
    assert terms(text).allowed
    hidden = "!".join(term)
    assert not terms(f"{text} {hidden}").allowed


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("rock & roll", "we play rock & roll"),
        ("c++", "c + +"),
        ("at&t", "a t & t"),
        ("kill all", "kill!! @ll"),
        ("kick ass", "kick $$ @$$"),
        ("killer", "k!!i!!|!!|!!e!!r"),
        ("killer", "k - ! - l . l . e . r"),
    ],
)
def test_signs_belong_to_a_term_or_hide_it(term: str, text: str) -> None:
    assert not Terms([term])(text).allowed


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 1.0])
def test_a_threshold_refuses_no_more_of_the_harmless_than_allowed(share: float) -> None:
    for scores in (torch.arange(20.0), torch.tensor([1.0] * 15 + [2.0] * 5)):
        threshold = threshold_for(scores, share)
        assert (scores.double() >= threshold).double().mean() <= share
        closer = scores[scores.double() < threshold]
        if len(closer):  # one value lower would refuse too many
            assert (scores >= closer.max()).double().mean() > share


PROMPTS = ["a bomb", "a B0MB", "an explosive", "a cat", "a bath bomb", "a dog", "the sea"]
VIOLATES = [True, True, True, False, False, False, False]


def test_rates_count_both_failures() -> None:
    rates = AssuranceSet(PROMPTS, VIOLATES).rates(Terms(["bomb"]), 0.9)
    assert rates.violation.estimate == pytest.approx(1 / 3)
    assert rates.over_refusal.estimate == pytest.approx(1 / 4)
    assert rates.violation.low == pytest.approx(beta.ppf(0.05, 1, 3))
    assert rates.violation.high == pytest.approx(beta.ppf(0.95, 2, 2))
    refuses_all = AssuranceSet(PROMPTS, VIOLATES).rates(lambda prompt: Decision(False, "no"))
    assert (refuses_all.violation.estimate, refuses_all.over_refusal.estimate) == (0, 1)


@pytest.mark.parametrize(
    "read",
    [list, iter, lambda s: s[0], len, lambda s: next(iter(DataLoader(s))), copy.copy,
     copy.deepcopy, pickle.dumps, vars, lambda s: torch.save(s, "x.pt"), lambda s: "a bomb" in s],
)  # fmt: skip
def test_an_assurance_set_gives_out_no_rows(
    read: Callable[[object], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    held_out = AssuranceSet(PROMPTS, VIOLATES)
    with pytest.raises(TypeError):
        read(held_out)
    assert "bomb" not in repr(AssuranceSet(PROMPTS, VIOLATES))


class Peeking(LightningModule):
    """Reads the set in its training step."""

    def __init__(self, held_out: AssuranceSet[str]) -> None:
        super().__init__()
        self.held_out, self.weight = held_out, torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Tensor) -> Tensor:
        rates = self.held_out.rates(lambda prompt: Decision(bool(self.weight == 0)))
        return self.weight * rates.violation.estimate

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class ByCallback(Peeking):
    """Reads the set in a hook of the trainer."""

    def training_step(self, batch: Tensor) -> Tensor:
        return self.weight.sum()

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        super().training_step(batch)


class Estimator:
    """Reads the set in ``fit``, as in scikit-learn."""

    def fit(self, X: AssuranceSet[str]) -> None:
        X.rates(lambda prompt: ALLOWED)


@pytest.mark.cpu
@pytest.mark.parametrize("rule", [Peeking, ByCallback])
def test_a_trainer_cannot_use_an_assurance_set(rule: type[Peeking]) -> None:
    trainer = Trainer(max_steps=1, logger=False, enable_checkpointing=False, accelerator="cpu",
                      enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    with pytest.raises(RuntimeError, match="must not be used in training"):
        trainer.fit(rule(AssuranceSet(PROMPTS, VIOLATES)), DataLoader(torch.zeros(2, 1)))


def test_a_fit_cannot_use_an_assurance_set() -> None:
    with pytest.raises(RuntimeError, match="in training, got a call inside"):
        Estimator().fit(AssuranceSet(PROMPTS, VIOLATES))


def test_no_training_code_imports_this_room() -> None:
    rooms = ("learning", "distillation", "data", "networks", "objectives.py", "denoisers")
    for room in rooms:
        place = ROOT / "latent_ebm" / room
        for path in [place] if place.suffix else place.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [a.name for a in node.names] if isinstance(
                    node, ast.Import | ast.ImportFrom) else []  # fmt: skip
                assert not any("responsibility" in name for name in names), path


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AssuranceSet(["a"], [True, False]), "one entry per input, 1, got 2"),
        (lambda: AssuranceSet(["a"], [True]), "both True and False"),
        (lambda: AssuranceSet(PROMPTS, VIOLATES).rates(len), "must return a Decision, got 6"),
        (lambda: Terms(["a"])(3), "a prompt must be a string, got 3"),
        (lambda: Classified(lambda p: torch.zeros(2), 0.5)("a"), r"shape \(1,\), got \(2,\)"),
        (lambda: Classified(len, float("nan")), "threshold must be finite"),
        (lambda: AssuranceSet(["a", "b"], ["yes", ""]), "True and False alone, got 'yes'"),
        (lambda: Classified(lambda p: torch.full((1,), torch.nan), 0.5)("a"), "got NaN"),
        (lambda: threshold_for(torch.tensor([]), 0.1), "one or more, got none"),
        (lambda: threshold_for(torch.tensor([torch.inf]), 0.1), "finite numbers, .*infinite one"),
        (lambda: threshold_for(torch.zeros(3), 2), r"max_refused must be in \[0, 1\]"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
