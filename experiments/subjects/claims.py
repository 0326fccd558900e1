"""The claims of DreamInpainter (arXiv:2312.03771) and HiFi Tuner (arXiv:2312.00079) that the
report decides.
"""

from experiments.claims import EQUAL, Claim, Found, difference
from experiments.subjects.editing import ANEW, KEPT, STEPS, WITH_NULLS

KEEP, OWN = KEPT

KNOWN, OBEYED, COPIED = "turned R@1", "turned pose", "turned copied"
FILLED = (
    Claim(
        "identity: all tokens at least as good as selected ones",
        difference(KNOWN, "all", "selected"),
        EQUAL,
    ),
    Claim("identity: selected beat their mean", difference(KNOWN, "selected", "pooled")),
    Claim("identity: the mean beats text alone", difference(KNOWN, "pooled", "text alone")),
    Claim("identity: selected beat random ones", difference(KNOWN, "selected", "random")),
    Claim("obedience: selected beat all, pose in words", difference(OBEYED, "selected", "all")),
    Claim(
        "obedience: selected beat all, shape of the hole",
        difference("shape pose", "selected", "all"),
    ),
    Claim("all copy more than selected", difference(COPIED, "all", "selected")),
    Claim("decoupled obey more than coupled", difference(OBEYED, "selected", "selected, coupled")),
    Claim(
        "identity: decoupled at least as good as coupled",
        difference(KNOWN, "selected", "selected, coupled"),
        EQUAL,
    ),
)
TUNED = (
    Claim("identity: the mask helps", difference("identity", "+ mask", "rows")),
    Claim("the mask lowers the leak", difference("leak", "rows", "+ mask")),
    Claim("identity: regularisation helps", difference("identity", "+ regularisation", "+ mask")),
    Claim(
        "identity: rows for each step at least as good as one set for all",
        difference("identity", "+ step-wise", "+ regularisation"),
        EQUAL,
    ),
    Claim("identity: the reference helps", difference("identity", "+ reference", "+ step-wise")),
    Claim(
        "identity: mask and regularisation help DreamBooth",
        difference("identity", "DreamBooth, mask and regularisation", "DreamBooth"),
    ),
    *(
        Claim(f"{key}: {name} as good as rows alone", difference(key, name, "rows"), EQUAL)
        for name in ("+ step-wise", "+ reference")
        for key in ("background", "pose")
    ),
)


def more_new_than_old(arms: dict[str, Found]) -> float:
    """By how much the share in which no subject is nearer than the new one exceeds the share in
    which the old one is nearer.
    """
    return arms[KEEP]["R@1"] - arms[KEEP]["old"]


INVERTED = (
    *(
        Claim(
            f"trained nulls lower the error of guided sampling, {steps}",
            difference(steps, "guided", WITH_NULLS),
        )
        for steps in (f"{num} steps" for num in STEPS)
    ),
    Claim(
        "more steps invert better without guidance, 50 against 5",
        lambda arms: arms["no guidance"]["5 steps"] - arms["no guidance"]["50 steps"],
    ),
)
REPLACED = (
    Claim("the new subject is drawn more often than the old one is left", more_new_than_old),
    Claim("around it, less changes than if all is drawn anew", difference("change", ANEW, KEEP)),
    Claim("around it, less changes than with maps of its own", difference("change", OWN, KEEP)),
    Claim("identity: as good as drawn anew", difference("identity", KEEP, ANEW), EQUAL),
    Claim("background: as good as drawn anew", difference("background", KEEP, ANEW), EQUAL),
    Claim("pose: as good as drawn anew", difference("pose", KEEP, ANEW), EQUAL),
)
