"""The claims of Imagen 3 (arXiv:2408.07009) that the report decides."""

from itertools import pairwise
from typing import Any

from experiments.claims import EQUAL, Claim, difference, estimate

Found = dict[str, Any]
NUMBERS = ("1", "2", "3", "4", "5")


def counted(arms: dict[str, Found], name: str, part: str = "counts") -> float:
    """The accuracy of a number or prompt type."""
    return estimate(arms["counting"][part][name])


def ordered(run: Found, what: str, first: str, second: str) -> float:
    """How much more often one metric orders as the oracle does than another."""
    return estimate(run[what][first]) - estimate(run[what][second])


ORDERS = (
    Claim(
        "questions beat contrast, pairs of models",
        lambda arms: ordered(arms["meta"], "pairs", "questions", "contrast"),
    ),
    Claim(
        "questions beat contrast, pairs on a prompt",
        lambda arms: ordered(arms["meta"], "prompts", "questions", "contrast"),
    ),
    Claim(
        "two distances disagree on some pair",
        lambda arms: max(arms["meta"]["disagree"].values()),
    ),
)
ROUND = (
    Claim(
        "fewer near copies, own prompt (10 and 100 copies)",
        lambda arms: (
            sum(
                arms["raw"][key] - arms["curated"][key]
                for key in ("near, own prompt, 10", "near, own prompt, 100")
            )
            / 2
        ),
    ),
    Claim("fewer near copies, open prompt", difference("near, open prompt", "raw", "curated")),
    Claim("fewer near copies, no prompt", difference("near, no prompt", "raw", "curated")),
    Claim("equal R@1 of things", difference("other R@1", "curated", "raw"), EQUAL),
    Claim("equal R@1 of people", difference("people R@1", "curated", "raw"), EQUAL),
)
MIXED = (
    Claim("mixed captions beat noisy ones, names", difference("R@1", "mixed", "noisy")),
    Claim(
        "mixed captions beat noisy ones, long sentences", difference("R@1, long", "mixed", "noisy")
    ),
    Claim(
        "their gain is larger for long sentences than for names",
        lambda arms: (
            difference("R@1, long", "mixed", "noisy")(arms)
            - difference("R@1", "mixed", "noisy")(arms)
        ),
    ),
)
EVEN = (
    Claim(
        "fewer prompts with pictures of one gender alone",
        difference("gender one category", "skewed", "even"),
    ),
    Claim(
        "fewer prompts with pictures of one tone alone",
        difference("tone one category", "skewed", "even"),
    ),
    Claim("equal alignment with the base", difference("base", "even", "skewed"), EQUAL),
    Claim("equal R@1 of full names", difference("R@1", "even", "skewed"), EQUAL),
)
FALLS = (
    Claim("one is counted better than five", lambda arms: counted(arms, "1") - counted(arms, "5")),
    Claim(
        "accuracy falls with every number",
        lambda arms: min(counted(arms, a) - counted(arms, b) for a, b in pairwise(NUMBERS)),
    ),
)
