"""The claims of DreamInpainter (arXiv:2312.03771) and HiFi Tuner (arXiv:2312.00079) that the
report decides.
"""

from experiments.claims import EQUAL, Claim, difference

KNOWN, OBEYED, COPIED = "turned R@1", "turned pose", "turned copied"
FILLED = (
    Claim(
        "identity: all tokens at least as selected ones",
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
    Claim("and know as much", difference(KNOWN, "selected", "selected, coupled"), EQUAL),
)
TUNED = (
    Claim("identity: the mask helps", difference("identity", "+ mask", "rows")),
    Claim("the mask ends the leak", difference("leak", "rows", "+ mask")),
    Claim("identity: regularisation helps", difference("identity", "+ regularisation", "+ mask")),
    Claim(
        "identity: steps of their own at least as one for all",
        difference("identity", "+ step-wise", "+ regularisation"),
        EQUAL,
    ),
    Claim("identity: the reference helps", difference("identity", "+ reference", "+ step-wise")),
    Claim(
        "identity: mask and regularisation help DreamBooth",
        difference("identity", "DreamBooth, mask and regularisation", "DreamBooth"),
    ),
    *(
        Claim(f"{name}: {key} as good as of rows alone", difference(key, name, "rows"), EQUAL)
        for name in ("+ step-wise", "+ reference")
        for key in ("background", "pose")
    ),
)
