"""Copies and near copies are found, look-alikes are not, and clusters are transitive."""

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from latent_ebm.data import draw_shapes
from latent_ebm.data.curation import (
    Curation,
    Features,
    Likeness,
    Perceptual,
    Pixels,
    Row,
    clusters,
)
from latent_ebm.data.curation.likeness import Pairs, Prints, pairs_above
from tests.latent_ebm.test_curation_filters import blurred, jpeg, noisy, picture, tensor


@pytest.fixture(scope="module")
def shapes() -> Tensor:
    return draw_shapes(64).on(torch.ones(3))


def resized(x: Tensor, side: int) -> Tensor:
    return tensor(picture(x).resize((side, side), Image.Resampling.BICUBIC))


def cropped(x: Tensor, margin: int) -> Tensor:
    return x[:, margin:-margin, margin:-margin]


def rows_of(images: Sequence[Tensor]) -> list[Row]:
    return [Row(str(i), "a shape", image) for i, image in enumerate(images)]


def pairs_of(likeness: Likeness, images: Sequence[Tensor]) -> set[tuple[int, int]]:
    """All pairs of a set of images that are alike, without chains."""
    prints = likeness.prints(rows_of(images))
    _, first, inverse = np.unique(prints, axis=0, return_index=True, return_inverse=True)
    groups = [np.flatnonzero(inverse.reshape(-1) == k) for k in range(len(first))]
    found = {(int(i), int(j)) for group in groups for i in group for j in group if i < j}
    for block in likeness.pairs(prints[first]):
        for a, b in block:
            found |= {(min(i, j), max(i, j)) for i in groups[a] for j in groups[b]}
    return found


EDITS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {  # and the least recall
    "JPEG 90": (lambda x: jpeg(x, 90), 1.0),
    "JPEG 50": (lambda x: jpeg(x, 50), 1.0),
    "JPEG 30": (lambda x: jpeg(x, 30), 1.0),
    "half the size": (lambda x: resized(x, 32), 1.0),
    "larger": (lambda x: resized(x, 100), 1.0),
    "blur": (lambda x: blurred(x, 1), 1.0),
    "noise": (lambda x: noisy(x, 5, torch.Generator().manual_seed(0)), 1.0),
    "a pixel cropped on each side": (lambda x: cropped(x, 1), 0.95),
}


@pytest.mark.parametrize("edit", EDITS)
def test_near_copies_of_shapes_are_found_and_other_shapes_are_not(
    shapes: Tensor, edit: str
) -> None:
    change, least = EDITS[edit]
    num = len(shapes)
    found = pairs_of(Perceptual(), [*shapes, *map(change, shapes)])
    true = {(i, i + num) for i in range(num)}
    assert len(found & true) >= least * num
    assert len(found - true) <= 4  # of 73,344 pairs of shapes that are not copies


def test_shapes_in_other_colours_are_no_copies_although_their_hashes_are_equal() -> None:
    glyphs = draw_shapes(64)
    x = glyphs.on(torch.ones(3))
    rows = [i for i, base in enumerate(glyphs.base) if base == "circle"]
    assert len(rows) == 8
    assert pairs_of(Perceptual(), [x[i] for i in rows]) == set()
    assert len(pairs_of(Perceptual(colour=255), [x[i] for i in rows])) == 28
    assert len(pairs_of(Perceptual(colour=0), [x[0], x[0]])) == 1


def test_the_hash_is_that_of_the_definition() -> None:
    column = torch.cos(torch.pi * 3 * (torch.arange(32) + 0.5) / 32)
    for image, place in ((column[:, None], 24), (column[None, :], 3)):
        row = Row("wave", "", image.expand(3, 32, 32) / 2)
        bits = np.unpackbits(Perceptual().prints([row])[0, :8])
        assert np.flatnonzero(bits).tolist() == [place]


def test_exact_copies_have_the_same_pixels_and_the_same_shape(shapes: Tensor) -> None:
    x = shapes[0]
    other = x.clone()
    other[0, 5, 5] -= 2 / 255
    turned = torch.zeros(3, 2, 8)
    images = [x, x + 1e-4, other, turned, turned.reshape(3, 8, 2), turned.clone()]
    assert pairs_of(Pixels(), images) == {(0, 1), (3, 5)}


def test_features_of_a_network_find_what_the_hash_does_not(shapes: Tensor) -> None:
    mirrored = shapes[:, :, :, torch.arange(63, -1, -1)]

    def colours(images: list[Tensor]) -> Tensor:
        return torch.stack([torch.cat([x.mean((1, 2)), x.amin((1, 2))]) for x in images])

    arrow = next(i for i, name in enumerate(draw_shapes(8).names) if name == "red arrow")
    images = [shapes[arrow], mirrored[arrow], shapes[0]]
    assert pairs_of(Perceptual(), images) == set()
    assert pairs_of(Features(colours, 0.9999), images) == {(0, 1)}


def test_every_pair_is_compared_once_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latent_ebm.data.curation.likeness.BLOCK", 7)
    vectors = torch.nn.functional.normalize(
        torch.randn(30, 2, generator=torch.Generator().manual_seed(0)), dim=1
    )
    found = [tuple(pair) for block in pairs_above(vectors, 0.8) for pair in block.tolist()]
    near = (vectors @ vectors.T >= 0.8).triu(1).nonzero().tolist()
    assert sorted(found) == sorted(map(tuple, near))


def near_copies(num: int) -> Prints:
    """Different prints, all of which are alike."""
    prints = np.full((num, 200), 100, np.uint8)
    prints[:, -192:] += np.random.default_rng(0).integers(0, 10, (num, 192), dtype=np.uint8)
    return prints


def test_colours_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = near_copies(50)
    prints[::3, -9] = 255
    whole = np.concatenate(list(Perceptual().pairs(prints)))
    assert len(whole) == 17 * 16 / 2 + 33 * 32 / 2
    monkeypatch.setattr("latent_ebm.data.curation.likeness.PART", 7)
    parts = list(Perceptual().pairs(prints))
    assert max(map(len, parts)) <= 7
    assert np.concatenate(parts).tolist() == whole.tolist()


def test_many_near_copies_take_little_memory() -> None:
    prints = near_copies(1000)
    tracemalloc.start()
    label = clusters([Perceptual()], [prints])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert set(label.tolist()) == {0}
    assert peak < 10**8  # bytes; all pairs at once take 700 MB


@dataclass(frozen=True)
class Steps(Likeness):
    """Numbers that differ by at most ``step``: no transitive relation."""

    step: int = 1

    def prints(self, rows: Sequence[Row]) -> Prints:
        return np.array([[int(row.caption)] for row in rows], np.uint8)

    def pairs(self, prints: Prints) -> Iterator[Pairs]:
        values = prints[:, 0].astype(int)
        near = np.abs(values[:, None] - values[None]) <= self.step
        yield np.argwhere(np.triu(near, 1))


def test_clusters_are_the_transitive_closure() -> None:
    values = np.array([[9], [1], [2], [5], [3], [5], [7], [8]], np.uint8)
    label = clusters([Steps()], [values])
    groups = {frozenset(np.flatnonzero(label == k).tolist()) for k in set(label.tolist())}
    assert groups == {frozenset(g) for g in ([0, 6, 7], [1, 2, 4], [3, 5])}
    # a second way of being alike joins clusters
    odd = values % 2
    assert set(clusters([Steps(), Pixels()], [values, odd]).tolist()) == {0}


@dataclass(frozen=True)
class Given(Likeness):
    """The pairs are given, in parts."""

    parts: Sequence[Pairs]

    def prints(self, rows: Sequence[Row]) -> Prints:
        raise NotImplementedError

    def pairs(self, prints: Prints) -> Iterator[Pairs]:
        return iter(self.parts)


@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_those_of_all_pairs_in_whatever_parts_they_come(seed: int) -> None:
    generator = np.random.default_rng(seed)
    pairs = generator.integers(0, 200, (150, 2))
    graph = coo_array((np.ones(150), tuple(pairs.T)), shape=(200, 200))
    rows = np.arange(200, dtype=np.uint8)[:, None]
    expected = connected_components(graph, directed=False)[1].tolist()
    for num in (1, 7, 200):
        likenesses = [Given(np.array_split(part, num)) for part in np.split(pairs, [50])]
        assert clusters(likenesses, [rows, rows]).tolist() == expected


def test_clusters_hold_no_pairs_but_those_of_a_part() -> None:
    num = 1500
    prints = np.arange(num, dtype=">u2").view(np.uint8).reshape(num, 2)
    likeness = Given([np.stack([np.full(num, k), np.arange(num)], 1) for k in range(num)])
    tracemalloc.start()
    assert set(clusters([likeness], [prints]).tolist()) == {0}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**6  # bytes; all pairs take 36 MB


def numbered(values: Sequence[int]) -> list[Row]:
    """Rows with different images, whose captions are ``values``."""
    return [Row(f"{i}", f"{v}", torch.full((3, 4, 4), i / 99)) for i, v in enumerate(values)]


def test_weights_of_a_cluster_add_up_to_one() -> None:
    values = np.random.default_rng(0).permutation([v for v in range(60) if v % 7]).tolist()
    report = Curation([], near=[Steps()])(numbered(values))
    weights: dict[str, list[float]] = {}
    for decision in report.decisions:
        weights.setdefault(decision.cluster, []).append(decision.weight)
    assert len(weights) == 9
    for part in weights.values():
        assert part == [1 / len(part)] * len(part)
    total = sum(decision.weight for decision in report.decisions)
    assert total == pytest.approx(len(weights))


def test_copies_are_dropped_and_do_not_count_in_clusters() -> None:
    rows = numbered([1, 2, 2, 9])
    rows[2] = Row("copy", "2", rows[1].source)
    report = Curation([], near=[Steps()])(rows)
    assert [d.weight for d in report.decisions] == [0.5, 0.5, 0, 1]
    assert report.decisions[2][1:4] == ("", "Copies", "a copy of 1")
    assert [d.cluster for d in report.decisions] == ["0", "0", "", "3"]


def test_a_row_that_a_filter_drops_is_no_first_copy(shapes: Tensor) -> None:
    from latent_ebm.data.curation import Terms

    rows = [Row("a", "a bomb", shapes[0]), Row("b", "a circle", shapes[0])]
    report = Curation([Terms(["bomb"])])(rows)
    assert [d.name for d in report.kept] == ["b"]
    assert report.kept[0].weight == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Perceptual(-1), r"Perceptual: distance must be an integer >= 0, got -1"),
        (lambda: Perceptual(colour=-2), r"Perceptual: colour must be an integer >= 0"),
        (lambda: Features(torch.stack, 2), r"Features: cosine must be in \(0, 1\], got 2"),
    ],
)
def test_bad_arguments_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "features",
    [torch.ones(1, 3), torch.ones(2), torch.zeros(2, 3), torch.full((2, 3), float("nan"))],
)
def test_bad_features_are_refused(features: Tensor) -> None:
    rows = rows_of([torch.zeros(3, 4, 4)] * 2)
    with pytest.raises(ValueError, match=r"function must return finite features \(2, D\)"):
        Features(lambda _: features).prints(rows)
