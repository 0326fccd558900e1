"""DreamInpainter on emoji: which vectors of a reference the network sees, and what that does to
identity and to obedience.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from experiments.common import file_name
from experiments.subjects.judging import CPU, GUIDANCE, Asked, Judge
from experiments.text_to_image.judging import draw_all
from experiments.training import Run
from latent_ebm.conditions import Condition
from latent_ebm.data.portrait import Portrait, Studio, describe_portrait
from latent_ebm.denoisers import Preconditioned
from latent_ebm.learning import SubjectInpainting
from latent_ebm.networks import SubjectUNet
from latent_ebm.networks.subject_unet import subject_network
from latent_ebm.selection import (
    All,
    Discriminative,
    FarthestPoint,
    Norm,
    Pooled,
    Random,
    TokenSelection,
)

NUM, SWEEP = 8, (2, 32)  # tokens of 64
LR = 1e-3
START = "-of-inpainting"  # behind the name of the text-to-image model that the networks start from


@dataclass(frozen=True)
class Blank(TokenSelection):
    """One token of zeros, which says nothing."""

    def select(
        self, features: Tensor, *, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        tokens, indices = Pooled().select(features)
        return torch.zeros_like(tokens), indices


@dataclass(frozen=True)
class AnyOf(TokenSelection):
    """One of several selections, drawn for every batch, so that a network learns all of them."""

    selections: tuple[TokenSelection, ...]

    def select(
        self, features: Tensor, *, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        drawn = int(torch.randint(len(self.selections), (), generator=generator))
        return self.selections[drawn].select(features, generator=generator)


SELECTIONS: dict[str, TokenSelection] = {
    "text alone": Blank(),
    "pooled": Pooled(),
    "all": All(),
    "selected": Discriminative(NUM),
    "random": Random(NUM),
    "norm": Norm(NUM),
    "farthest": FarthestPoint(NUM),
    **{f"selected {num}": Discriminative(num) for num in SWEEP},
}
NETWORKS = {"decoupled": 1.0, "coupled": 0.0}  # weights of the regularisation
VARIANTS = {name: ("decoupled", name) for name in SELECTIONS} | {
    "selected, coupled": ("coupled", "selected")
}  # network and selection
KEYS = {  # names of results, with {} for the seed
    name: f"{network}-{{}}-{file_name(tokens)}" for name, (network, tokens) in VARIANTS.items()
}


@dataclass(frozen=True)
class Inpainting(Run):
    """The training of a network from a text-to-image model. All selections of tokens take turns by
    chance.
    """

    regularisation: float = 1.0

    @property
    def settings(self) -> dict[str, Any]:
        told = {"selection": repr(tuple(SELECTIONS.values())), "lr": LR}
        return {**super().settings, **told, "regularisation": self.regularisation}

    def make(self) -> Any:
        base = self.origin.rule()  # seeds the random state by its own seed, and so comes first
        cli = super().make()
        old, optimizer = base.denoiser, partial(torch.optim.AdamW, lr=LR, betas=(0.9, 0.99))
        selection = AnyOf(tuple(SELECTIONS.values()))
        clean_level = -old.schedule.log_snr_range[1] / 8
        network = SubjectUNet.from_text_to_image(old.network, selection, clean_level=clean_level)
        nn.init.ones_(network.gate)  # from 0, it would open by a learning rate an update
        cli.model = SubjectInpainting(
            Preconditioned(network, old.schedule, old.prediction, old.data_scale),
            base.reverse,
            base.shape,
            optimizer,
            base.conditioner,
            self.regularisation,
            log_snr=base.log_snr,
        )
        return cli

    def begin(self, rule: Any) -> None:
        """Do nothing: ``make`` has given it the weights of the text-to-image model."""


def choose(rule: SubjectInpainting, tokens: str) -> SubjectInpainting:
    """``rule``, whose network sees the selection called ``tokens`` from now on."""
    subject_network(rule.denoiser.network).selection = SELECTIONS[tokens]
    return rule


def judge_all(rule: SubjectInpainting, judge: Judge) -> dict[str, Any]:
    """What the network draws into boxes that do not tell the pose, asked for the pose of the
    reference and for another one; and into holes of the shape of the subject in another pose, for
    the class word alone.
    """
    same, turned = judge.asked(turned=False), judge.asked(turned=True)
    found = {
        "same": judge(pictures(rule, judge, same), same),
        "turned": judge(pictures(rule, judge, turned), turned),
        "shape": judge(pictures(rule, judge, turned, "alpha"), turned),
    }
    return {f"{part} {name}": value for part, d in found.items() for name, value in d.items()}


def pictures(
    rule: SubjectInpainting, judge: Judge, asked: list[Asked], mask: str = "box"
) -> Tensor:
    """One picture of every portrait that is ``asked`` for, drawn into a hole in its background."""

    def draw(part: list[Asked], generator: Generator) -> Tensor:
        given = conditions(rule, judge.studio, part, mask)
        return rule.generate(len(part), given, guidance=GUIDANCE, generator=generator)["x"]

    return draw_all(draw, asked, CPU)


def blanked(rule: SubjectInpainting, studio: Studio, asked: list[Asked]) -> list[Tensor]:
    """The references, and the pictures with grey boxes for holes."""
    given = conditions(rule, studio, asked, "box")
    return [given["reference"], given["image"] * (1 - given["mask"])]


def conditions(
    rule: SubjectInpainting, studio: Studio, asked: list[Asked], mask: str
) -> Condition:
    """What the network is asked to do: by a full caption, or into a hole that is the subject's own
    shape, by the class word.
    """
    whole = [one.portrait for one in asked]
    texts = [caption(studio, portrait, mask) for portrait in whole]
    told = rule.conditioner.tokens(texts)
    shown = [one.portrait._replace(pose=one.shown) for one in asked]
    entries = {
        "image": torch.stack([studio.render(portrait) for portrait in whole]),
        "mask": torch.stack([studio.mask(portrait, mask) for portrait in whole]),
        "reference": torch.stack([studio.reference(portrait) for portrait in shown]),
    }
    return Condition({**told, **entries}, told.null)


def caption(studio: Studio, portrait: Portrait, mask: str) -> str:
    """The text that goes with a hole."""
    kind = studio.kind(portrait)
    if mask == "alpha":
        return kind
    return describe_portrait(kind, portrait.pose, portrait.background, portrait.texture)
