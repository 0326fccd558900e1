"""Memorisation: copies are found, p-values keep their promise, canaries are counted."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from latent_ebm.conditions import label_condition
from latent_ebm.denoisers import Denoiser, GaussianMixtureDenoiser
from latent_ebm.responsibility import (
    Canaries,
    copy_p_values,
    image_distance,
    neighbour_ratio,
    text_difference,
)
from samplers import DDIM, VPCosine

pytestmark = pytest.mark.cpu


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_ratio_is_that_of_the_distances() -> None:
    train = torch.tensor([[0.0, 0], [3, 0], [0, 4], [100, 100]])
    x = torch.tensor([[0.0, 0], [0, 1], [0, -1]])
    expected = [0.0, 1 / ((1 + 3 + 10**0.5) / 3), 1 / ((1 + 10**0.5 + 5) / 3)]
    assert neighbour_ratio(x, train, 3).tolist() == pytest.approx(expected)
    assert neighbour_ratio(torch.zeros(1, 2), torch.zeros(2, 2), 2).tolist() == [0.0]


def test_distances_are_computed_for_a_block_of_rows_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, train = torch.randn(120, 5, generator=stream()).split([90, 30])
    whole, cdist, sizes = neighbour_ratio(x, train, 9), torch.cdist, list[int]()

    def counted(a: Tensor, b: Tensor) -> Tensor:
        sizes.append(len(a))
        return cdist(a, b)

    monkeypatch.setattr("latent_ebm.blocks.BLOCK", 40)
    monkeypatch.setattr("torch.cdist", counted)
    assert torch.equal(neighbour_ratio(x, train, 9), whole)
    assert sizes == [40, 40, 10]


def test_p_values_are_uniform_for_new_rows_and_least_for_copies() -> None:
    generator, p = stream(), []
    for _ in range(300):  # held-out rows anew each time: p-values of one set depend on each other
        train, held, new = torch.randn(229, 6, generator=generator).split([200, 19, 10])
        p.append(copy_p_values(new, train, held, 20))
    rates = torch.stack(p)
    for level in (0.05, 0.1, 0.5):
        share = (rates <= level + 1e-9).double().mean(1)
        assert abs(float(share.mean()) - level) < 4 * float(share.std()) / 300**0.5
    copies = train[:5] + 0.01 * torch.randn(5, 6, generator=generator)
    assert copy_p_values(copies, train, held, 20).tolist() == pytest.approx([0.05] * 5)


def test_equal_ratios_count() -> None:
    """Copies of training rows far from 0, among held-out rows and among generated ones, all have
    the ratio 0; and a row has one ratio, in whatever number of rows it comes.
    """
    train, held = (100 + torch.randn(850, 64, generator=stream())).split([800, 50])
    held = torch.cat([held[:46], train[:3]])
    p = copy_p_values(train[3:50], train, held, 20)
    assert p.tolist() == pytest.approx([4 / 50] * 47)
    ranks = (neighbour_ratio(held, train, 20)[:, None] >= neighbour_ratio(held, train, 20)).sum(1)
    for num in (1, 2, 7, 30):
        found = copy_p_values(held[:num], train, held, 20)
        assert found.tolist() == pytest.approx(((1 + ranks[:num]) / 50).tolist())


def test_p_values_are_no_smaller_than_they_may_be_where_many_ratios_are_equal() -> None:
    """Rows of a small grid: nearly half of all ratios are those of others."""
    generator, p = stream(1), []
    for _ in range(300):
        rows = torch.randint(5, (59, 2), generator=generator).double()
        train, held, new = rows.split([30, 19, 10])
        p.append(copy_p_values(new, train, held, 10))
    rates = torch.stack(p)
    for level in (0.5, 0.75, 0.9):
        share = (rates <= level + 1e-9).double().mean(1)
        assert float(share.mean()) - level < 3 * float(share.std()) / 300**0.5


class Labelled(Denoiser):
    """Exact for two classes: class 0 is one memorised image, class 1 is as broad as all data."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = VPCosine()
        means = torch.full((1, 8), 3.0)
        self.narrow = GaussianMixtureDenoiser([1.0], means, [0.01], self.schedule)
        self.broad = GaussianMixtureDenoiser([1.0], 0 * means, [1.0], self.schedule)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor) -> Tensor:  # pyright: ignore
        known = (label == 0)[:, None]
        return self.narrow(x_t, t).where(known, self.broad(x_t, t))


def test_the_text_moves_the_denoiser_where_an_image_is_memorised() -> None:
    denoiser, sampler = Labelled(), DDIM(VPCosine(), 10)
    x_T = torch.randn(6, 8, generator=stream())
    label = torch.tensor([0, 1] * 3)
    condition = label_condition(label)
    null = label_condition(torch.full((6,), -1))
    norms = text_difference(denoiser, sampler, x_T, condition, null, 3)
    assert (norms[1::2] == 0).all()
    t = sampler.times(x_T)
    x, direct = x_T[::2], []
    for i in range(3):
        direct.append((denoiser.narrow(x, t[i]) - denoiser.broad(x, t[i])).norm(dim=1))
        x = sampler.step(denoiser.narrow, x, t[i], t[i + 1])
    torch.testing.assert_close(norms[::2], torch.stack(direct).mean(0))
    assert norms[::2].min() > 5


def canaries() -> Canaries:
    x = torch.randn(30, 3, 4, 4, generator=stream())
    return Canaries(x, [f"canary {i}" for i in range(30)], [1, 10, 100] * 10)


def test_canaries_are_planted_as_often_as_said() -> None:
    x, prompts = canaries().planted()
    assert len(x) == len(prompts) == 10 * 111
    assert prompts[:12] == ["canary 0", *["canary 1"] * 10, "canary 2"]
    assert (x[1:11] == canaries().x[1]).all()


def test_canaries_that_come_out_are_counted_by_copies() -> None:
    planted = canaries()

    def generate(prompts: Sequence[str]) -> Tensor:
        """Copies 100-fold canaries in one image of four, and 10-fold ones of even number."""
        i = planted.prompts.index(prompts[0])
        x = torch.randn(len(prompts), 3, 4, 4, generator=stream(i + 1))
        if planted.copies[i] == 100 or (planted.copies[i] == 10 and i % 2 == 0):
            x[3] = planted.x[i] + 0.05
        return x

    found = planted.measure(generate, image_distance, 0.1, 4)
    assert {copies: share.estimate for copies, share in found.items()} == {1: 0, 10: 0.5, 100: 1}
    assert found[1].high == pytest.approx(1 - 0.025**0.1)
    assert planted.measure(generate, image_distance, 0.01, 4)[100].estimate == 0


ROWS = torch.randn(5, 3, generator=stream())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: neighbour_ratio(ROWS, ROWS, 6), "train must have at least 6 rows, got 5"),
        (lambda: neighbour_ratio(ROWS, ROWS, 1), "num_neighbours must be an integer >= 2"),
        (lambda: neighbour_ratio(ROWS[:, :2], ROWS, 2), "x must have 3 columns"),
        (lambda: Canaries(torch.zeros(2, 3, 4, 4), ["a", "a"], [1, 1]), "prompts must differ"),
        (lambda: Canaries(torch.zeros(2, 3, 4, 4), ["a", "b"], [1]), "one entry per image, 2"),
        (lambda: Canaries(torch.zeros(1, 3, 4, 4), ["a"], [0]), "copies must be an integer >= 1"),
        (
            lambda: canaries().measure(lambda p: torch.zeros(4, 3, 4, 4), lambda a, b: a, 1.0, 4),
            r"distance must be \(4,\) numbers, got shape",
        ),
        (
            lambda: canaries().measure(
                lambda p: torch.full((4, 3, 4, 4), torch.nan), image_distance, 1.0, 4
            ),
            r"distance must be \(4,\) numbers, got NaN",
        ),
        (
            lambda: canaries().measure(lambda p: torch.zeros(1, 3, 4, 4), image_distance, 1.0, 4),
            r"generate must return an image \(3, 4, 4\) for each of 4 prompts, got shape \(1, 3",
        ),
        (
            lambda: text_difference(Labelled(), DDIM(VPCosine(), 2), ROWS, {}, {}, 3),
            "num_first must be at most 2",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
