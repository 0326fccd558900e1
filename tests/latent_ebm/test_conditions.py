"""Conditions and batches: rows stay together, the null takes the place of what is dropped."""

import pickle

import pytest
import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor

from latent_ebm.conditions import (
    Batch,
    ClassLabels,
    Condition,
    Unconditional,
    as_batch,
    conditioner_or_none,
    label_condition,
)


def text(num: int) -> Condition:
    """Row i holds a sequence of three vectors, all i + 1, whose last i mod 3 are masked."""
    row = torch.arange(num)
    tokens = (row + 1.0)[:, None, None].expand(num, 3, 2)
    mask = torch.arange(3) < 3 - row[:, None] % 3
    null = {"tokens": torch.zeros(3, 2), "mask": torch.tensor([True, False, False])}
    return Condition({"tokens": tokens, "mask": mask}, null)


def test_a_condition_is_handed_on_as_keywords():
    def network(x: Tensor, *, tokens: Tensor, mask: Tensor) -> Tensor:
        return x + (tokens * mask[..., None]).sum((1, 2))

    assert network(torch.zeros(3), **text(3)).tolist() == [6, 8, 6]
    assert dict(**Condition()) == {}
    assert not Condition()
    assert list(text(2)) == ["tokens", "mask"]


@pytest.mark.parametrize("index", [torch.tensor([4, 0, 4]), slice(1, 3), torch.arange(5) > 2])
def test_rows_stay_together(index):
    whole, some = text(5), text(5).rows(index)
    for name, value in some.items():
        torch.testing.assert_close(value, whole[name][index])
        assert torch.equal(some.null[name], whole.null[name])
    assert Condition().rows(index) == {}


def test_copies_are_ordered_as_those_of_rows():
    x = torch.arange(4.0)[:, None]
    copied = text(4).repeat(3)["tokens"][:, 0, 0] - 1
    torch.testing.assert_close(copied, x.repeat(3, 1)[:, 0])


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_the_dropped_share_is_the_probability_and_takes_all_names_of_a_row(p):
    num = 20_000
    kept = text(num).drop(p, generator=torch.Generator().manual_seed(0))
    gone = kept["tokens"].eq(0).flatten(1)
    assert torch.equal(gone.all(1), gone.any(1))
    gone = gone.all(1)
    assert gone.float().mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / num) ** 0.5)
    assert kept["mask"][gone].eq(kept.null["mask"]).all()
    for name, value in kept.items():
        assert torch.equal(value[~gone], text(num)[name][~gone])


def test_the_same_generator_drops_the_same_rows():
    first, second = (
        text(50).drop(0.5, generator=torch.Generator().manual_seed(k)) for k in (1, 1)
    )
    assert torch.equal(first["tokens"], second["tokens"])
    assert not torch.equal(first["tokens"], text(50).drop(0.5)["tokens"])


def test_of_unknown_rows_nothing_is_known():
    unknown = text(4).unknown()
    assert unknown["tokens"].shape == (4, 3, 2)
    assert unknown["tokens"].eq(0).all()
    assert label_condition(torch.arange(3)).unknown()["label"].tolist() == [-1] * 3
    assert Condition().unknown() == {}


def test_a_device_is_reached_by_way_of_lightning():
    moved = move_data_to_device(
        Batch(torch.zeros(4, 1), text(4), torch.arange(4)), torch.device("meta")
    )
    assert isinstance(moved, Batch)
    assert isinstance(moved.condition, Condition)
    assert {
        v.device.type for v in (*moved.condition.values(), *moved.condition.null.values())
    } == {"meta"}
    assert moved.condition.drop(0.5)["tokens"].shape == (4, 3, 2)


def test_a_condition_survives_a_worker_process():
    again = pickle.loads(pickle.dumps(text(3)))  # noqa: S301
    assert torch.equal(again.unknown()["mask"], text(3).unknown()["mask"])


def test_a_batch_is_what_a_loader_yields():
    x, label, index = (
        torch.zeros(3, 2),
        torch.tensor([2, 0, 1], dtype=torch.uint8),
        torch.arange(3),
    )
    for alone in (x, (x,), [x]):
        batch = as_batch(alone)
        assert (batch.x is x, dict(batch.condition), batch.index) == (True, {}, None)
    for pair in ((x, label), [x, label, index]):
        batch = as_batch(pair)
        assert batch.condition["label"].tolist() == [2, 0, 1]
        assert batch.condition.unknown()["label"].tolist() == [-1] * 3
    assert as_batch((x, label, index)).index is index
    assert as_batch(batch) is batch
    assert as_batch((x, torch.zeros(3))).condition == {}, "what is no label is passed over"


def test_class_labels_are_told_and_checked():
    labels, known = ClassLabels(3), label_condition(torch.tensor([0, 2, -1]))
    assert labels(known)["label"].tolist() == [0, 2, -1]
    assert labels.unknown(2)["label"].tolist() == [-1, -1]
    assert labels.request(3, known)["label"].tolist() == [0, 2, -1]
    assert labels.to("meta").unknown(2)["label"].is_meta
    assert Unconditional()(known) == {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Condition({"a": torch.zeros(3), "b": torch.zeros(2)}),
            r"one entry per row for every name, got a \(3,\), b \(2,\)",
        ),
        (lambda: Condition({"a": torch.tensor(1.0)}), "one entry per row for every name"),
        (
            lambda: Condition({"a": torch.zeros(3, 2)}, {"a": torch.zeros(3)}),
            r"null a must be \(2,\), got shape \(3,\)",
        ),
        (lambda: Condition({}, {"a": torch.zeros(3)}), "null a must be one of"),
        (lambda: text(3).check_rows(4), "condition tokens must have 4 rows, got 3"),
        (lambda: text(3).drop(1.5), r"p must be in \[0, 1\], got 1\.5"),
        (lambda: Condition({"a": torch.zeros(3)}).drop(0.5), "must have a null for a"),
        (lambda: ClassLabels(0), "num_classes must be an integer >= 1, got 0"),
        (lambda: ClassLabels(2)(label_condition(torch.tensor([0, 2]))), "lie in -1 to 1"),
        (lambda: ClassLabels()(text(2)), r"batch must be \(x, label, \.\.\.\).*got tokens, mask"),
        (lambda: ClassLabels()(Condition()), "got x alone"),
        (lambda: ClassLabels().request(2, text(3)), "condition tokens must have 2 rows, got 3"),
        (lambda: Unconditional().request(2, text(2)), "condition must be left out"),
        (lambda: Unconditional().request(2, torch.ones(2)), "condition must be left out"),
        (lambda: ClassLabels().request(-1, None), "num must be an integer >= 0, got -1"),
        (lambda: Unconditional().request(2.5, None), r"num must be an integer >= 0, got 2\.5"),
        (lambda: ClassLabels().request(2, torch.ones(2)), "must be a Condition, got tensor"),
        (lambda: ClassLabels()(label_condition(torch.tensor([0, -2]))), "lie in -1 or more, got"),
        (lambda: conditioner_or_none("labels"), "must be a Conditioner, got 'labels'"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_nothing_is_dropped_with_probability_0():
    condition = Condition({"a": torch.zeros(3)})  # has no null
    assert condition.drop(0) is condition
