"""One rule and one sentence for every number."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from latent_ebm.networks import MLP
from samplers import DDIM, HMC, VE, Langevin, PersistentChains
from samplers.checks import as_shape, check_counts, check_fields, check_numbers

NUMBERS = [
    1,
    0.5,
    np.float32(0.5),
    np.float64(1),
    np.int64(1),
    np.array(0.5),
    torch.tensor(0.5),
    torch.tensor(1),
]
NO_NUMBERS = [
    True,
    np.bool_(True),
    torch.tensor(True),
    "1",
    None,
    1j,
    [1.0],
    torch.ones(1),
    math.nan,
    math.inf,
]


@dataclass(frozen=True)
class Pair:
    count: Any = 1
    scale: Any = 1.0

    def __post_init__(self) -> None:
        check_fields(self, count="count", scale="positive")


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_numbers_of_all_libraries_are_welcome(value: Any) -> None:
    for rule in ("finite", "positive", "non-negative", "in (0, 1]", "in [0, 1]"):
        check_numbers("owner", rule, value=value)
    assert type(Pair(scale=value).scale) in (int, float)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=str)
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="owner: value must be finite, got "):
        check_numbers("owner", "finite", value=value)
    with pytest.raises(ValueError, match="owner: value must be an integer >= 1, got "):
        check_counts("owner", value=value)


@pytest.mark.parametrize(
    ("rule", "value", "sentence"),
    [
        ("finite", 10**400, "finite, got 1000"),
        ("positive", 0.0, "finite and positive, got 0.0"),
        ("non-negative", -1, "finite and non-negative, got -1"),
        ("in (0, 1)", 1, r"in \(0, 1\), got 1"),
        ("in (0, 1]", 0, r"in \(0, 1\], got 0"),
        ("in [0, 1]", 1.5, r"in \[0, 1\], got 1.5"),
    ],
)
def test_every_rule_has_its_sentence(rule: str, value: float, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"owner: value must be {sentence}"):
        check_numbers("owner", rule, value=value)


def test_counts() -> None:
    for value in (2, np.int32(2), np.uint8(2), torch.tensor(2)):
        check_counts("owner", least=2, value=value)
    for value in (1, 2.0, np.float64(2)):
        with pytest.raises(ValueError, match="Pair: value must be an integer >= 2, got"):
            check_counts(Pair(), least=2, value=value)


def test_fields_become_plain() -> None:
    pair = Pair(np.int64(3), torch.tensor(0.5))
    assert (type(pair.count), type(pair.scale)) == (int, float)
    with pytest.raises(
        ValueError, match=r"Pair: count must be an integer >= 1, got np.float64\(3.0\)"
    ):
        Pair(np.float64(3))


def test_shapes() -> None:
    assert as_shape("owner", shape=np.int64(3)) == (3,)
    assert as_shape("owner", shape=[3, np.int64(4)]) == (3, 4)
    wrongs: list[Any] = [0, 2.0, "12", (3, 0), (3, 1.5), None]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="owner: shape must be an integer >= 1, got"):
            as_shape("owner", shape=wrong)


def test_counts_of_numpy_reach_the_objects() -> None:
    three: Any = np.int64(3)
    assert Langevin(float(np.float32(0.5)), three) == Langevin(0.5, 3)
    assert HMC(0.1, three, three).num_leapfrog == 3
    assert DDIM(VE(), three, eta=1).times(torch.zeros(1)).shape == (4,)
    assert PersistentChains(three, three).particles.shape == (3, 3)
    assert MLP(three, three)(torch.zeros(2, 3)).shape == (2, 3)
    with pytest.raises(
        ValueError, match=r"PersistentChains: num_chains must be an integer >= 1, got 2.0"
    ):
        PersistentChains(2.0, 3)  # pyright: ignore[reportArgumentType]
