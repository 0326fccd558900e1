"""The claims of MobileDiffusion (arXiv:2311.16567) that the report decides."""

from collections.abc import Callable
from typing import Any

from experiments.claims import HEAD, Claim, by_seed, decided, difference
from experiments.tables import table
from experiments.text_to_image.switches import SWITCHES, stem

Found = dict[str, Any]
EQUAL = -0.02  # what a share may lose and still count as equal
PLAIN = "plain"
SORTS = ("other R@1", "people R@1", "held out R@1")
FREE = tuple(name for name in SWITCHES if name != PLAIN and "text map" not in name)
KINDS = {"kinds right": "right", "kinds coverage": "coverage"}  # titles in the table


def names(first: str, second: str) -> Callable[[dict[str, Found]], float]:
    """How much larger the mean R@1 over three sorts of names is of the arm ``first``."""
    return lambda arms: sum(difference(key, first, second)(arms) for key in SORTS) / len(SORTS)


SWITCHED = (  # claims, and the two networks that each compares
    *((f"{name}: as good as plain", name, PLAIN, EQUAL) for name in FREE),
    (
        "without cross-attention worse, if there is no text map",
        "no text map",
        "no text map, no cross-attention",
        0.0,
    ),
    ("tuned with ReLU: as good as with softmax", "relu", "softmax", EQUAL),
)
NETWORKS = {name: f"switch-{stem(name)}-{{}}" for name in SWITCHES} | {
    weights: f"tuned-{weights}-{{}}" for weights in ("softmax", "relu")
}
FEW = (
    Claim(
        "right: the teacher better in 50 steps than in one", difference("kinds right", "50", "1")
    ),
    *(
        Claim(
            f"{title}: progressive in 8 steps as good as the teacher in 50",
            difference(key, "progressive", "50"),
            EQUAL,
        )
        for key, title in KINDS.items()
    ),
    *(
        Claim(
            f"{title}: {name} better than the teacher, both in one step",
            difference(key, name, "1"),
        )
        for name in ("UFOGen", "EMD", "DMD")
        for key, title in KINDS.items()
    ),
)
STUDENTS = {
    "1": "open-base-{}-1",
    "50": "open-base-{}-50",
    "progressive": "progressive-8-seconds-{}",
    "UFOGen": "ufogen-seconds-{}-1",
    "EMD": "emd-1-seconds-{}",
    "DMD": "dmd-seconds-{}",
}


def switched(stored: Found) -> str:
    """Claims on changes of the network, of mean R@1 over three sorts of names."""
    rows = []
    for text, first, second, least in SWITCHED:
        seeds = by_seed(stored, {arm: NETWORKS[arm] for arm in (first, second)})
        if seeds:
            rows.append(Claim(text, names(first, second), least).row(seeds))
    return table(HEAD, rows)


def few_steps(stored: Found) -> str:
    """Claims on few steps for kinds of things, students at equal time."""
    found = by_seed(stored, STUDENTS)
    return decided(FEW, found) if found else ""
