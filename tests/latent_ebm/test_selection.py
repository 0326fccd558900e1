"""Selection of tokens: equations 3 and 4 of DreamInpainter against a plain loop, and baselines."""

import json
import math

import pytest
import torch
from torch import Tensor

from latent_ebm.artefacts.building import build
from latent_ebm.artefacts.classes import OURS, Allowed
from latent_ebm.artefacts.describing import describe
from latent_ebm.selection import (
    All,
    Discriminative,
    FarthestPoint,
    Norm,
    Pooled,
    Random,
    TokenSelection,
)
from latent_ebm.selection.discriminative import scores

ALL = [All(), Discriminative(3), FarthestPoint(3), Norm(3), Pooled(), Random(3)]
COUNTED = [Discriminative, FarthestPoint, Norm, Random]
EACH = pytest.mark.parametrize("selection", ALL, ids=lambda s: type(s).__name__)


def draws(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def looped(tokens: list[list[float]]) -> list[float]:
    """Scores of one picture, by the formulas as they are printed."""
    norms = [math.sqrt(sum(a * a for a in t)) for t in tokens]
    gets = [0.0] * len(tokens)
    for i, t in enumerate(tokens):
        d = [
            sum(a * b for a, b in zip(t, u, strict=True)) / (norms[i] * norms[j])
            for j, u in enumerate(tokens)
        ]
        total = sum(math.exp(v) for v in d)
        for j, v in enumerate(d):
            gets[j] += math.exp(v) / total
    return gets


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_equations_3_and_4(shift: float) -> None:
    """Also on features that are not centred, as those of networks, with a cosine near 1."""
    features = draws(3, 20, 6) + shift
    tokens, indices = Discriminative(7)(features)
    for row in range(3):
        expected = looped(features[row].tolist())
        torch.testing.assert_close(scores(features)[row], torch.tensor(expected).double())
        order = sorted(range(20), key=expected.__getitem__)[:7]
        assert indices[row].tolist() == order
        assert torch.equal(tokens[row], features[row, order])


def test_the_distinct_token_is_the_first() -> None:
    features = torch.ones(2, 12, 4) + 0.01 * draws(2, 12, 4).float()
    features[0, 5], features[1, 9] = torch.tensor([[1.0, -1, 1, -1], [-1.0, -1, 1, 1]])
    assert Discriminative(1)(features)[1].flatten().tolist() == [5, 9]


def test_scores_are_shares_of_all_and_ties_keep_their_order() -> None:
    torch.testing.assert_close(scores(draws(3, 9, 4)).sum(1), torch.full((3,), 9.0).double())
    assert Discriminative(3)(torch.ones(1, 5, 2))[1].tolist() == [[0, 1, 2]]
    assert Norm(3)(torch.ones(1, 5, 2))[1].tolist() == [[0, 1, 2]]
    assert Discriminative(12)(torch.eye(12)[None])[1].tolist() == [[*range(12)]]


def test_length_does_not_matter_to_cosines() -> None:
    features = draws(2, 9, 4)
    longer = features * (1 + draws(2, 9, 1).abs())
    for scaled in (longer, features * 1e-100, features * 1e200):
        assert torch.equal(Discriminative(4)(features)[1], Discriminative(4)(scaled)[1])


def test_half_precision_keeps_the_order() -> None:
    features = draws(2, 30, 8).to(torch.bfloat16)
    _, indices = Discriminative(9)(features.double())
    tokens, found = Discriminative(9)(features)
    with torch.autocast("cpu", torch.bfloat16):
        _, cast = Discriminative(9)(features.float())
    assert tokens.dtype == torch.bfloat16
    assert torch.equal(found, indices)
    assert torch.equal(cast, indices)


def test_norms_and_scattered_points() -> None:
    features = torch.tensor([[[0.0, 0], [9, 0], [0, 1], [9, 2], [0, -5]]])
    assert Norm(2)(features)[1].tolist() == [[3, 1]]
    assert FarthestPoint(3)(features)[1].tolist() == [[3, 4, 2]]
    assert sorted(FarthestPoint(5)(torch.ones(1, 5, 2))[1][0].tolist()) == [0, 1, 2, 3, 4]


def test_random_tokens_are_different_and_follow_the_generator() -> None:
    features, seeded = draws(400, 5, 2), torch.Generator().manual_seed
    _, indices = Random(3)(features, generator=seeded(1))
    assert torch.equal(indices, Random(3)(features, generator=seeded(1))[1])
    assert not torch.equal(indices, Random(3)(features, generator=seeded(2))[1])
    assert all(len(set(row)) == 3 for row in indices.tolist())
    counts = indices.flatten().bincount(minlength=5)
    assert ((counts - 240).abs() < 50).all()


def test_pooled_is_the_mean_and_all_are_all() -> None:
    features = draws(2, 5, 3)
    tokens, indices = Pooled()(features)
    torch.testing.assert_close(tokens[:, 0], features.mean(1))
    assert indices.shape == (2, 0)
    tokens, indices = All()(features)
    assert torch.equal(tokens, features)
    assert indices.tolist() == [[0, 1, 2, 3, 4]] * 2


@EACH
def test_gradients_flow_to_what_is_selected_alone(selection: TokenSelection) -> None:
    features = draws(2, 9, 4).requires_grad_()
    tokens, indices = selection(features, generator=torch.Generator().manual_seed(0))
    (grad,) = torch.autograd.grad(tokens.sum(), features)
    if indices.shape[1]:
        expected = torch.zeros(2, 9).double().scatter(1, indices, 1.0)
        assert torch.equal(grad, expected[:, :, None].expand(2, 9, 4))
        assert torch.equal(tokens, features.take_along_dim(indices[:, :, None], 1))
    assert indices.dtype == torch.int64


@EACH
def test_on_meta_and_in_a_saved_object(selection: TokenSelection) -> None:
    tokens, indices = selection(torch.empty(2, 9, 4, device="meta"))
    assert tokens.device.type == indices.device.type == "meta"
    tree = json.loads(json.dumps(describe(selection, "x", {})))
    assert build(tree, TokenSelection, "x", Allowed(OURS)) == selection


@pytest.mark.parametrize("kind", COUNTED)
def test_refusals(kind: type) -> None:
    with pytest.raises(ValueError, match="num_tokens must be at most the number of features, 9"):
        kind(10)(draws(2, 9, 4))
    for wrong in (0, 1.5, "3", True):
        with pytest.raises(ValueError, match="num_tokens must be an integer >= 1"):
            kind(wrong)


@EACH
def test_features_of_another_kind_are_refused(selection: TokenSelection) -> None:
    for wrong in (torch.ones(9, 4), torch.ones(2, 9, 4).long(), torch.ones(2, 0, 4)):
        with pytest.raises(ValueError, match="features must be floating-point vectors"):
            selection(wrong)
    with pytest.raises(ValueError, match="features must be a Tensor"):
        selection([[1.0]])  # pyright: ignore[reportArgumentType]
    for wrong in (math.nan, math.inf):
        with pytest.raises(FloatingPointError, match="features must be finite: 1 of 2 are not"):
            selection(draws(2, 9, 4).index_fill(0, torch.tensor(1), wrong))
