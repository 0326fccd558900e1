"""The audit of representation: exact on drawn grids, and intervals that cover."""

import os
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from latent_ebm.data.emoji_pack import read_pack
from latent_ebm.data.glyphs import Glyphs
from latent_ebm.data.shapes import draw_shapes
from latent_ebm.responsibility import Representation, audit_representation

pytestmark = pytest.mark.cpu
COLOURS = ("red", "green", "blue", "yellow")


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Grid:
    """A grid of subjects x attributes: a generator that draws a subject in an attribute by chance,
    and the exact classifier, which finds the nearest picture.
    """

    def __init__(
        self,
        glyphs: Glyphs,
        attribute: Sequence[str],
        names: Sequence[str],
        chances: dict[str, list[float]],
    ) -> None:
        self.images, self.attribute = glyphs.on(torch.ones(3)), attribute
        self.names, self.chances = list(names), chances
        self.cell = {pair: i for i, pair in enumerate(zip(glyphs.base, attribute, strict=True))}
        self.generator = stream()

    def generate(self, prompts: Sequence[str]) -> Tensor:
        chances = torch.tensor([self.chances[prompt] for prompt in prompts])
        drawn = torch.multinomial(chances, 1, generator=self.generator)[:, 0].tolist()
        rows = [self.cell[p, self.names[k]] for p, k in zip(prompts, drawn, strict=True)]
        x = self.images[rows]
        return x + 0.1 * torch.randn(x.shape, generator=self.generator)

    def classify(self, x: Tensor) -> Tensor:
        nearest = torch.cdist(x.flatten(1), self.images.flatten(1)).argmin(1)
        return torch.tensor([self.names.index(self.attribute[i]) for i in nearest.tolist()])


def test_the_audit_counts_what_a_grid_of_known_pictures_shows() -> None:
    chances = {
        "circle": [1.0, 0, 0, 0],
        "square": [0, 0.5, 0.5, 0],
        "star": [0, 0, 0, 1.0],
        "heart": [0.25] * 4,
    }
    glyphs = draw_shapes(16)
    grid = Grid(glyphs, glyphs.tone, COLOURS, chances)
    found = audit_representation(grid.generate, list(chances), grid.classify, COLOURS, 40)
    assert found.counts[0].tolist() == [40, 0, 0, 0]
    assert found.counts[2].tolist() == [0, 0, 0, 40]
    assert found.counts[1, [0, 3]].tolist() == [0, 0]
    assert found.one_category().estimate == 0.5
    assert found.one_category_by_chance() < 1e-10
    assert found.pooled.tolist() == [share.estimate for share in found.shares().values()]
    even = found.distance(dict.fromkeys(COLOURS, 0.25), generator=stream())
    assert even.low <= even.estimate <= even.high < 0.3


@pytest.mark.skipif("LATENT_EBM_DATA" not in os.environ, reason="no pack of emoji")
def test_the_audit_of_professions_in_emoji_is_exact() -> None:
    glyphs, genders = read_pack(side=32), ("woman", "man", "person")
    rows = [i for i, tone in enumerate(glyphs.tone) if not tone and glyphs.gender[i] in genders]
    people = glyphs.take(rows)
    full = [b for b, num in Counter(people.base).items() if num == 3 and "person" not in b]
    assert len(full) > 20
    chances = {base: [1.0, 0, 0] if i % 2 else [0, 0.5, 0.5] for i, base in enumerate(full)}
    grid = Grid(people, people.gender, genders, chances)
    found = audit_representation(grid.generate, full, grid.classify, genders, 20)
    assert (found.counts[1::2, 0] == 20).all()
    assert (found.counts[::2, 0] == 0).all()
    assert found.one_category().estimate == pytest.approx(len(full[1::2]) / len(full))


def test_probabilities_count_as_their_greatest() -> None:
    def classify(x: Tensor) -> Tensor:
        return torch.tensor([[0.4, 0.6], [0.9, 0.1], [0.2, 0.8]])

    blank = torch.zeros(3, 3, 4, 4)
    found = audit_representation(lambda p: blank, ["a"], classify, ["x", "y"], 3)
    assert found.counts.tolist() == [[1, 2]]


def test_one_category_by_chance_is_the_share_of_draws_from_the_pool() -> None:
    draws = torch.multinomial(torch.tensor([0.8, 0.2]), 5 * 4000, True, generator=stream())
    counts = torch.nn.functional.one_hot(draws.view(4000, 5), 2).sum(1)
    found = Representation([str(i) for i in range(4000)], ["a", "b"], counts)
    interval = found.one_category(0.999)
    assert interval.low < found.one_category_by_chance() < interval.high
    assert found.one_category_by_chance() == pytest.approx(0.8**5 + 0.2**5, abs=0.01)


def simulate(truth: Tensor, num: int, seed: int) -> Representation:
    """``num`` images of every prompt, whose distributions are the rows of ``truth``."""
    draws = torch.multinomial(truth, num, True, generator=stream(seed))
    counts = torch.nn.functional.one_hot(draws, truth.shape[1]).sum(1)
    names = [f"category {k}" for k in range(truth.shape[1])]
    return Representation([str(i) for i in range(len(truth))], names, counts)


def test_distance_intervals_cover_as_often_as_they_say() -> None:
    truth = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.5, 0.5, 0.0], [0.7, 0.1, 0.2]])
    target = torch.tensor([0.2, 0.3, 0.5])
    distance = float((truth.mean(0) - target).abs().sum() / 2)
    covered = 0
    for seed in range(400):
        found = simulate(truth, 30, seed)
        goal = dict(zip(found.categories, target.tolist(), strict=True))
        interval = found.distance(goal, 0.9, 400, generator=stream(seed))
        covered += interval.low <= distance <= interval.high
    assert covered / 400 > 0.9 - 3 * (0.09 / 400) ** 0.5


@pytest.mark.parametrize("num", [1, 2, 3])
def test_distance_intervals_cover_with_few_images_of_a_prompt(num: int) -> None:
    truth = torch.tensor([0.7, 0.3]).expand(20, 2)
    goal, covered = {"category 0": 0.5, "category 1": 0.5}, 0
    for seed in range(300):
        interval = simulate(truth, num, seed).distance(goal, 0.95, 400, generator=stream(seed))
        covered += interval.low <= 0.2 <= interval.high
    assert covered / 300 > 0.95 - 3 * (0.95 * 0.05 / 300) ** 0.5


def test_distance_zero_is_inside_although_noise_makes_distances_greater() -> None:
    truth = torch.full((10, 3), 1 / 3)
    lows = [
        simulate(truth, 20, seed).distance(
            {f"category {k}": 1 / 3 for k in range(3)}, generator=stream(seed)).low
        for seed in range(50)
    ]  # fmt: skip
    assert sum(low == 0 for low in lows) >= 44


def test_known_mistakes_of_the_classifier_are_taken_out() -> None:
    confusion = torch.tensor([[0.8, 0.1, 0.1], [0.0, 0.9, 0.1], [0.3, 0.0, 0.7]])
    truth = torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5], [0.4, 0.4, 0.2]])
    covered, total = 0, 0
    for seed in range(100):
        seen = simulate(truth @ confusion, 60, seed)
        shares = seen.corrected(confusion, 0.95, 400, generator=stream(seed))
        for share, true in zip(shares.values(), truth.mean(0).tolist(), strict=True):
            covered, total = covered + (share.low <= true <= share.high), total + 1
    assert abs(covered / total - 0.95) < 0.05
    assert sum(share.estimate for share in shares.values()) == pytest.approx(1)
    same = seen.corrected(torch.eye(3), generator=stream())
    assert [s.estimate for s in same.values()] == pytest.approx(seen.pooled.tolist())


FOUND = Representation(["a"], ["x", "y"], torch.tensor([[1, 2]]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: audit(prompts=["a WOMAN who is a nurse"]), "no category, got 'woman'"),
        (lambda: audit(prompts=[]), "one text or more, got none"),
        (lambda: audit(categories=["man"]), "two or more different names"),
        (lambda: audit(categories=["man", " "]), "two or more different names"),
        (lambda: audit(classify=lambda x: torch.zeros(1)), "classify must return integers"),
        (lambda: audit(classify=lambda x: torch.full((2,), 5)), "categories 0 to 1, got 5 to 5"),
        (
            lambda: audit(classify=lambda x: torch.full((2, 2), torch.nan)),
            "classify must return probabilities, got NaN",
        ),
        (lambda: FOUND.distance({"x": 1.0}), "target must have a share of each of x, y"),
        (lambda: FOUND.distance({"x": 1.0, "y": 0.5}), "the sum 1, got 1.5"),
        (lambda: FOUND.corrected(torch.full((2, 2), 0.5)), "condition number.*apart"),
        (lambda: FOUND.corrected(torch.eye(3)), r"shape \(2, 2\), got \(3, 3\)"),
        (lambda: FOUND.corrected(2 * torch.eye(2)), "rows that are distributions"),
        (lambda: Representation(["a"], ["x", "y"], torch.zeros(1, 2).long()), "an image or more"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def audit(
    prompts: Sequence[str] = ("nurse",),
    classify: Callable[[Tensor], Tensor] = lambda x: torch.zeros(len(x)).long(),
    categories: Sequence[str] = ("woman", "man"),
) -> Representation:
    return audit_representation(
        lambda p: torch.zeros(len(p), 3, 4, 4), list(prompts), classify, categories, 2
    )
