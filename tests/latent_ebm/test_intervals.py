"""Intervals of shares are those of Wilson, and of Clopper and Pearson, by their definitions."""

from statistics import NormalDist

import pytest
import torch

from latent_ebm.metrics import share_of

COUNTS = pytest.mark.parametrize(("correct", "num"), [(0, 10), (3, 10), (10, 10), (250, 1000)])
CONFIDENCE = pytest.mark.parametrize("confidence", [0.95, 0.99])


@COUNTS
@CONFIDENCE
def test_wilson_ends_solve_their_quadratic_equation(
    correct: int, num: int, confidence: float
) -> None:
    found = share_of(correct, num, confidence)
    assert found.estimate == correct / num
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    for end in (found.low, found.high):
        assert (found.estimate - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / num)


@COUNTS
@CONFIDENCE
def test_exact_ends_leave_half_of_the_error_in_each_binomial_tail(
    correct: int, num: int, confidence: float
) -> None:
    found = share_of(correct, num, confidence, exact=True)
    ends = torch.tensor([found.low or 0.5, found.high if found.high < 1 else 0.5]).double()
    tails = torch.distributions.Binomial(num, ends)
    mass = tails.log_prob(torch.arange(num + 1.0).double()[:, None]).exp()
    half = pytest.approx((1 - confidence) / 2, rel=1e-4)
    assert float(mass[correct:, 0].sum()) == half if correct else found.low == 0
    assert float(mass[: correct + 1, 1].sum()) == half if correct < num else found.high == 1


@pytest.mark.parametrize(
    ("correct", "num", "confidence", "message"),
    [
        (4, 3, 0.99, "correct must be at most num, 3, got 4"),
        (0, 0, 0.99, "num must be an integer >= 1, got 0"),
        (-1, 3, 0.99, "correct must be an integer >= 0, got -1"),
        (1, 3, 1.0, r"confidence must be in \(0, 1\), got 1.0"),
    ],
)
def test_odd_input_is_refused(correct: int, num: int, confidence: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        share_of(correct, num, confidence)
