"""Coverage of open prompts: of uniform draws, and of models that repeat themselves."""

import math
from collections.abc import Callable

import pytest
import torch

from latent_ebm.data.base import make_generator
from latent_ebm.evaluation import category_histogram, histogram_kl, open_coverage


def test_uniform_draws_cover_what_is_expected_of_them() -> None:
    generator, right = make_generator(5), list(range(30))
    found = torch.tensor(
        [
            open_coverage(torch.randint(30, (48,), generator=generator), right).coverage
            for _ in range(400)
        ]
    )
    assert abs(float(found.mean()) - 1) < 4 * float(found.std()) / math.sqrt(len(found))


def test_one_answer_over_and_over_covers_one_and_wrong_answers_cover_nothing() -> None:
    expected = 4 * (1 - 0.75**6)
    found = open_coverage(["apple"] * 5 + ["car"], ["apple", "pear", "kiwi", "plum", "plum"])
    assert found.coverage == pytest.approx(1 / expected, rel=1e-12)
    assert (found.right.correct, found.right.num) == (5, 6)
    assert open_coverage([1, 2, 3, 4, 9, 9], [1, 2, 3, 4]).coverage > 1
    assert open_coverage([7, 7], [1]).coverage == 0
    assert open_coverage([1, 1, 1], [1]).coverage == 1


def test_tensors_and_lists_of_integers_are_the_same() -> None:
    answers, right = torch.tensor([3, 5, 5, 8]), torch.tensor([5, 8, 1])
    assert open_coverage(answers, right) == open_coverage(answers.tolist(), right.tolist())


def test_divergence_of_histograms_has_its_closed_form() -> None:
    kinds = ["fruit", "drink", "sweet"]
    shown = category_histogram(["fruit"] * 3 + ["drink"], kinds)
    assert shown == {"fruit": 3, "drink": 1, "sweet": 0}
    uniform = category_histogram(kinds * 2, kinds)
    p = [3.5 / 5.5, 1.5 / 5.5, 0.5 / 5.5]
    expected = sum(a * math.log(3 * a) for a in p)
    assert histogram_kl(shown, uniform) == pytest.approx(expected, rel=1e-9)
    assert histogram_kl(uniform, dict(reversed(uniform.items()))) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: open_coverage([], [1]), "answers must hold one answer at least, got none"),
        (lambda: open_coverage([1], []), "right must hold one answer at least, got none"),
        (
            lambda: open_coverage(torch.ones(2), [1]),
            r"answers must be integers \(n,\), got torch.f",
        ),
        (lambda: open_coverage([1], [1], confidence=1), r"confidence must be in \(0, 1\)"),
        (lambda: category_histogram(["a", "c"], ["a", "b"]), "must be categories, got 'c'"),
        (lambda: histogram_kl({"a": 1}, {"b": 1}), "must have the same categories"),
        (lambda: histogram_kl({}, {}), "must have the same categories"),
        (lambda: histogram_kl({"a": -1}, {"a": 1}), "shown: a must be finite and non-neg"),
    ],
)
def test_odd_input_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
