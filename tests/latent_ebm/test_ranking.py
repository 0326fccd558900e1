"""Bradley-Terry with ties: closed forms, other packages, planted strengths, honest intervals."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from latent_ebm.evaluation import Rating, rank, rater_shares, win_matrix
from latent_ebm.evaluation.ranking import check_decided, design_matrix, fit

PAIRS = torch.tensor([[0, 1], [0, 2], [1, 2]])
PLANTED = torch.tensor([0.8, 0.1, -0.9], dtype=torch.float64)
NU = 0.7


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chances(strength: Tensor, nu: float, pairs: Tensor = PAIRS) -> Tensor:
    """Davidson's probabilities (p, 3), written out."""
    a, b = strength[pairs].exp().unbind(1)
    three = torch.stack([a, b, nu * (a * b).sqrt()], 1)
    return three / three.sum(1, keepdim=True)


def simulate(chance: Tensor, num: int, draws: int, seed: int = 0) -> Tensor:
    """Counts (draws, p, 3) of ``num`` ratings of every pair."""
    rng = np.random.default_rng(seed)
    counts = [rng.multinomial(num, row / row.sum(), size=draws) for row in chance.numpy()]
    return torch.from_numpy(np.stack(counts, 1)).double()


def ratings_of(counts: Tensor, pairs: Tensor = PAIRS, **named: str) -> list[Rating]:
    """One rating for each count of (p, 3), of models a, b, c."""
    made = list[Rating]()
    for (i, j), row in zip(pairs.tolist(), counts.int().tolist(), strict=True):
        first, second = "abcdef"[i], "abcdef"[j]
        for better, num in zip((first, second, None), row, strict=True):
            made += num * [Rating(first, second, better, **named)]
    return made


def test_two_models_have_the_closed_form() -> None:
    """The model has as many parameters as free frequencies, so it reproduces them."""
    ratings = ratings_of(torch.tensor([[30, 12, 8]]), PAIRS[:1])
    found = rank(ratings, replicates=10, generator=seeded())
    assert found.strength[0] - found.strength[1] == pytest.approx(math.log(30 / 12), rel=1e-9)
    assert found.nu == pytest.approx(8 / math.sqrt(30 * 12), rel=1e-9)
    assert found.probability("a", "b") == pytest.approx((0.6, 0.24, 0.16), rel=1e-9)
    assert found.probability("b", "a") == pytest.approx((0.24, 0.6, 0.16), rel=1e-9)
    assert found.elo.mean().item() == pytest.approx(1000)
    assert (found.elo[0] - found.elo[1]).item() == pytest.approx(400 * math.log10(2.5))


def test_probabilities_are_those_of_the_strengths() -> None:
    found = rank(ratings_of(100 * chances(PLANTED, NU)), replicates=2, generator=seeded())
    expected = chances(found.strength, found.nu)
    for (i, j), row in zip(PAIRS.tolist(), expected.tolist(), strict=True):
        assert found.probability("abc"[i], "abc"[j]) == pytest.approx(row, rel=1e-9)


def test_a_model_that_is_not_ranked_has_no_probability() -> None:
    found = rank(ratings_of(100 * chances(PLANTED, NU)), replicates=2, generator=seeded())
    with pytest.raises(ValueError, match="second must be one of a, b, c, got 'z'"):
        found.probability("a", "z")


def test_the_order_of_the_two_sides_does_not_matter() -> None:
    ratings = ratings_of(torch.tensor([[7, 3, 2], [4, 3, 1], [2, 6, 5]]))
    swapped = [Rating(r.second, r.first, r.better) for r in ratings]
    one, other = (rank(r, replicates=2, generator=seeded()) for r in (ratings, swapped))
    assert torch.allclose(one.strength, other.strength)
    assert one.nu == pytest.approx(other.nu)


def test_the_fit_is_that_of_a_general_optimiser() -> None:
    counts = simulate(chances(PLANTED, NU), 60, 1, seed=3)[0]

    def loss(at: np.ndarray) -> float:
        chance = chances(torch.from_numpy(at[:3]), math.exp(at[3]))
        return -float((counts * chance.log()).sum()) + 0.5 * 0.2 * float((at[:3] ** 2).sum())

    best = minimize(loss, np.zeros(4), method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9})
    made = fit(PAIRS, counts[None], 3, prior=0.2)[0].numpy()
    assert made == pytest.approx(best.x, abs=1e-4)
    assert loss(made) <= best.fun + 1e-9


def no_ties() -> Tensor:
    counts = simulate(chances(PLANTED, 0.0), 80, 1, seed=4)[0]
    assert (counts[:, 2] == 0).all()
    return counts


def test_without_ties_it_is_logistic_regression() -> None:
    counts = no_ties()
    design = design_matrix(PAIRS, 3)[:, :2, :3]
    difference = (design[:, 0] - design[:, 1]).numpy()
    rows, won = np.repeat(difference, 2, 0), np.tile([1, 0], 3)
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000)
    model.fit(rows, won, sample_weight=counts[:, :2].flatten().numpy())
    expected = model.coef_[0] - model.coef_[0].mean()
    found = rank(ratings_of(counts), replicates=2, generator=seeded())
    assert found.strength.numpy() == pytest.approx(expected, abs=1e-5)
    assert found.nu == 0
    assert found.probability("a", "c")[2] == 0


def test_without_ties_it_agrees_with_choix() -> None:
    choix = pytest.importorskip("choix", reason="needs the package choix")
    ratings = ratings_of(no_ties())
    wins = [("abc".index(str(r.better)), "abc".index(other(r))) for r in ratings]
    expected = choix.opt_pairwise(3, wins, alpha=0.0, tol=1e-10)
    found = rank(ratings, replicates=2, generator=seeded())
    assert found.strength.numpy() == pytest.approx(expected - expected.mean(), abs=1e-5)


def other(rating: Rating) -> str:
    return rating.second if rating.better == rating.first else rating.first


def test_planted_strengths_are_recovered_with_the_variance_of_the_information() -> None:
    num, draws = 400, 400
    chance = chances(PLANTED, NU)
    found = fit(PAIRS, simulate(chance, num, draws), 3, prior=0.0)
    truth = torch.cat([PLANTED - PLANTED.mean(), torch.tensor([math.log(NU)]).double()])
    design = design_matrix(PAIRS, 3)
    mean = torch.einsum("po,pok->pk", chance, design)
    second = torch.einsum("po,pok,pol->kl", chance, design, design)
    information = num * (second - torch.einsum("pk,pl->kl", mean, mean))
    error = torch.linalg.pinv(information, rtol=1e-9).diag().sqrt()
    z = (found.mean(0) - truth) / (error / draws**0.5)
    assert z.abs().max() < 3
    spread = found.std(0) / error
    assert (spread - 1).abs().max() < 3 / (2 * draws) ** 0.5


def test_intervals_cover_as_often_as_they_say() -> None:
    """The percentiles of 300 replicates of each of 300 studies, all fitted at once."""
    studies, replicates, num = 300, 300, 120
    chance = chances(PLANTED, NU)
    counts = simulate(chance, num, studies, seed=8)
    rng = np.random.default_rng(9)
    rows = (counts.flatten(0, 1) / num).numpy()
    again = rng.multinomial(num, rows[:, None], size=(len(rows), replicates))
    again = torch.from_numpy(again).double().unflatten(0, (studies, 3)).transpose(1, 2)
    drawn = fit(PAIRS, again.flatten(0, 1), 3, 1e-6)[:, :3].unflatten(0, (studies, replicates))
    low, high = drawn.quantile(torch.tensor([0.005, 0.995]).double(), 1)
    covered = ((low <= PLANTED - PLANTED.mean()) & (PLANTED - PLANTED.mean() <= high)).double()
    error = (0.99 * 0.01 / studies) ** 0.5
    assert (covered.mean(0) - 0.99).abs().max() < 3 * error


def test_intervals_have_the_width_of_a_large_sample() -> None:
    won, lost = 600, 400
    ratings = ratings_of(torch.tensor([[won, lost, 0]]), PAIRS[:1])
    found = rank(ratings, replicates=4000, generator=seeded(1))
    error = 400 / math.log(10) * (1 / won + 1 / lost) ** 0.5 / 2  # of half the difference
    width = (found.high - found.low) / (2 * 2.5758 * error)
    assert width.numpy() == pytest.approx(1, abs=0.08)
    assert (found.low < found.elo).all()
    assert (found.elo < found.high).all()
    narrow = rank(ratings, confidence=0.5, replicates=4000, generator=seeded(1))
    assert (narrow.high - narrow.low).numpy() == pytest.approx(2 * 0.6745 * error, rel=0.08)
    again = rank(ratings, replicates=4000, generator=seeded(1))
    assert torch.equal(found.low, again.low)


@pytest.mark.parametrize("by", ["rater", "prompt"])
def test_ratings_that_are_alike_are_drawn_together(by: str) -> None:
    """Nine equal ratings of each rater say as much as one: the interval is three times wider."""
    rng = np.random.default_rng(2)
    ratings = list[Rating]()
    for k, better in enumerate(rng.choice(["a", "b"], size=200, p=[0.6, 0.4]).tolist()):
        ratings += 9 * [Rating("a", "b", better)._replace(**{by: str(k)})]
    alone = rank(ratings, replicates=1000, generator=seeded())
    grouped = rank(ratings, replicates=1000, by=by, generator=seeded())  # pyright: ignore[reportArgumentType]
    ratio = (grouped.high - grouped.low) / (alone.high - alone.low)
    assert ratio.numpy() == pytest.approx(3, rel=0.15)


def grows_without_end(pairs: Tensor, counts: Tensor) -> bool:
    """Whether the likelihood never falls in some direction: a linear programme decides."""
    num = int(pairs.max()) + 1
    design = design_matrix(pairs, num).numpy()
    rows = [
        design[p, other] - design[p, seen]
        for p in range(len(pairs))
        for seen in range(3)
        for other in range(3)
        if counts[p, seen] > 0 and other != seen
    ]
    for goal in [*np.array(rows)]:
        best = linprog(goal, np.array(rows), np.zeros(len(rows)), bounds=[(-1, 1)] * (num + 1))
        if best.fun < -1e-6:
            return True
    return False


def test_ratings_are_refused_exactly_if_the_best_fit_is_not_finite() -> None:
    rng = np.random.default_rng(0)
    seen = {False: 0, True: 0}
    while min(seen.values()) < 25:
        counts = torch.from_numpy(rng.integers(0, 2, (3, 3)) * rng.integers(0, 2, (3, 3)))
        counts[:, 2] *= rng.integers(0, 2)
        if not counts[:, 2].any() or not counts[:, :2].any() or (counts.sum(1) == 0).any():
            continue
        endless = grows_without_end(PAIRS, counts)
        seen[endless] += 1
        try:
            check_decided("abc", PAIRS, counts.double(), 0.0)
            refused = False
        except ValueError:
            refused = True
        assert refused == endless, counts


WRONG = [
    ([[5, 0, 0]], r"but a never lost, so that the difference is infinite"),
    ([[5, 0, 3]], r"more wins than ties on some way from a model back to itself"),
    ([[0, 0, 3]], r'must prefer a model at least once, got "indifferent" alone'),
]


@pytest.mark.parametrize(("counts", "message"), WRONG)
def test_ratings_without_a_finite_fit_are_refused(counts: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank(ratings_of(torch.tensor(counts), PAIRS[:1]))


def test_models_that_were_not_compared_are_named() -> None:
    ratings = [Rating("a", "b", "a"), Rating("a", "b", "b"), Rating("c", "d", "d")]
    with pytest.raises(ValueError, match=r"none links a, b with c, d; or give a prior"):
        rank(ratings)


def test_with_a_prior_a_model_that_always_wins_has_a_finite_strength() -> None:
    ratings = ratings_of(torch.tensor([[5, 0, 0]]), PAIRS[:1])
    found = rank(ratings, prior=0.5, replicates=50, generator=seeded())
    gap = (found.strength[0] - found.strength[1]).item()
    assert 5 / (1 + math.exp(gap)) == pytest.approx(0.5 * gap / 2, rel=1e-6)  # gradient 0
    stronger = rank(ratings, prior=0.05, replicates=2, generator=seeded())
    assert stronger.strength[0] > found.strength[0]
    assert rank([*ratings, Rating("c", "d", "d")], prior=0.5, replicates=2).models == tuple("abcd")


def test_replicates_without_a_finite_fit_make_the_interval_wide() -> None:
    """Two losses are absent from an eighth of the replicates."""
    found = rank(ratings_of(torch.tensor([[10, 2, 0]]), PAIRS[:1]), generator=seeded())
    assert torch.isfinite(found.high).all()
    assert found.high[0] > found.elo[0] + 800


@pytest.mark.parametrize(("num", "lost"), [(100, 1), (1000, 3)])
def test_replicates_without_a_loss_of_a_model_converge(num: int, lost: int) -> None:
    """Then only the small precision of the prior bounds a strength, against rounding."""
    ratings = [Rating("a", "b", "a")] * (num // 2) + [Rating("a", "b", "b")] * (num // 2)
    ratings += [Rating("b", "c", "c")] * (num - lost) + [Rating("b", "c", "b")] * lost
    found = rank(ratings, replicates=500, generator=torch.Generator().manual_seed(0))
    assert found.elo[2] - found.elo[1] == pytest.approx(400 * math.log10((num - lost) / lost))
    assert bool((found.low < found.elo).all() & (found.elo < found.high).all())


def test_win_matrix() -> None:
    ratings = [*ratings_of(torch.tensor([[3, 1, 4]]), PAIRS[:1]), Rating("c", "a", "c")]
    models, share = win_matrix(ratings)
    assert models == ("a", "b", "c")
    assert share[0].tolist()[1:] == [5 / 8, 0]
    assert share[:, 0].tolist()[1:] == [3 / 8, 1]
    assert share.diag().isnan().all()
    assert share[1, 2].isnan()


def test_rater_shares() -> None:
    ratings = [Rating("a", "b", "a", rater=rater) for rater in "xxxyz"]
    assert rater_shares(ratings) == {"x": 0.6, "y": 0.2, "z": 0.2}
    assert rater_shares(ratings, most=0.6)["x"] == 0.6
    with pytest.raises(ValueError, match=r"at most 0.5 of the ratings, but 'x' gave 0.6"):
        rater_shares(ratings, most=0.5)


GOOD = [Rating("a", "b", "a"), Rating("a", "b", "b")]
ODD = [
    ([], {}, "ratings must hold at least one rating, got none"),
    ([Rating("a", "a", None)], {}, "row 0 compares 'a' with itself"),
    ([Rating("a", "b", "c")], {}, "better must be 'a', 'b' or None in row 0, got 'c'"),
    ([("a", "b", "a")], {}, "row 0 must be a Rating"),
    ([*GOOD, Rating("a", "b", "b", question="counting")], {}, "one question, got counting, pref"),
    (GOOD, {"confidence": 1}, r"confidence must be in \(0, 1\), got 1"),
    (GOOD, {"prior": -1}, "prior must be finite and non-negative, got -1"),
    (GOOD, {"replicates": 0}, "replicates must be an integer >= 1, got 0"),
    (GOOD, {"by": "model"}, "by must be one of rating, rater, prompt, got 'model'"),
    (GOOD, {"by": "rater"}, "ratings must be of two raters at least for intervals, got one"),
]


@pytest.mark.parametrize(("ratings", "options", "message"), ODD)
def test_odd_input_is_refused(ratings: list, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank(ratings, **options)
