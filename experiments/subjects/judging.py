"""What pictures of subjects show, as an exact parser reads them."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from experiments.text_to_image.judging import draw_all, drawing, share
from latent_ebm.data import Subjects
from latent_ebm.data.portrait import Portrait, Studio, describe_portrait
from latent_ebm.data.scene import PALETTE, chance
from latent_ebm.data.scene_parser import nearest
from latent_ebm.data.subject_parser import SubjectParser

CPU = torch.device("cpu")
ALIKE, COPIED = 0.9, 0.95  # correlations of poses that look alike; of copies
GUIDANCE = 1.5
SEED = 0  # of what is asked for, the same for every model


class Asked(NamedTuple):
    """What is asked for: a portrait, and the pose in which the reference shows its subject."""

    portrait: Portrait
    shown: int


class Judge:
    """Reads pictures of subjects that a data module holds out, or of those that are trained on."""

    def __init__(self, data: Subjects, held_out: bool = True) -> None:
        data.setup()
        part = data.test if held_out else data.train
        self.studio: Studio = part.studio
        self.parser = SubjectParser(self.studio)

    def asked(self, turned: bool, num: int = 1) -> list[Asked]:
        """``num`` portraits of every subject on plain backgrounds; the reference is ``turned`` or
        in the pose of the portrait.
        """
        generator, found = torch.Generator().manual_seed(SEED), list[Asked]()
        for glyph in range(len(self.studio.glyphs)):
            for _ in range(num):
                drawn = self.studio.draw(generator, glyph)._replace(texture=0)
                poses = [pose for pose in self.studio.poses if (pose != drawn.pose) == turned]
                found.append(Asked(drawn, poses[chance(len(poses), generator)]))
        return found

    def caption(self, portrait: Portrait, by_name: bool = False) -> str:
        """The full caption, with the kind of thing or its name."""
        word = self.studio.name(portrait) if by_name else self.studio.kind(portrait)
        return describe_portrait(word, portrait.pose, portrait.background, portrait.texture)

    def __call__(self, x: Tensor, asked: Sequence[Asked]) -> dict[str, float]:
        """Means over pictures x (n, 3, side, side) of what was ``asked``:

        - identity: the correlation with the asked subject, in whatever pose;
        - R@1: whether no other subject has a larger one; subjects that look the same are one;
        - pose: whether the asked subject has its largest correlation in the asked pose, among
          subjects that do not look alike in two poses;
        - background: whether the asked one is read;
        - copied: whether the correlation with the subject as the reference shows it is above .95
          although another pose was asked for, among the same subjects.
        """
        scores = self.parser.correlations(x)
        glyphs = torch.tensor([one.portrait.glyph for one in asked])
        poses = torch.tensor([one.portrait.pose for one in asked])
        shown = torch.tensor([one.shown for one in asked])
        own, row = scores[torch.arange(len(x)), glyphs], torch.arange(len(x))
        art = self.studio.glyphs.art
        distinct = self.distinct[glyphs]
        read = zip(self.grounds(x), asked, strict=True)
        right = [ground == one.portrait.background for ground, one in read]
        turned = distinct & (shown != poses)
        return {
            "identity": own.amax(1).mean().item(),
            "R@1": share(art[scores.amax(2).argmax(1)] == art[glyphs]),
            "pose": share((own.argmax(1) == poses)[distinct]),
            "background": share(torch.tensor(right)),
            "copied": share((own[row, shown] > COPIED)[turned]),
        }

    @cached_property
    def distinct(self) -> Tensor:
        """Whether a subject looks different in all poses (glyphs,): correlations below .9."""
        glyphs = range(len(self.studio.glyphs))
        x = torch.stack([self.studio.reference(Portrait(i, 0, 0, 0, 0)) for i in glyphs])
        own = self.parser.correlations(x)[glyphs, glyphs]
        return own[:, 1:].amax(1) < ALIKE

    def grounds(self, x: Tensor) -> list[int]:
        """The background of each picture (n, 3, side, side) that most of its pixels agree with."""
        drops = self.studio.grounds.flatten(0, 1)
        return (nearest((x + 1) / 2, drops) % len(PALETTE)).tolist()


def means(found: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """The mean of every metric by name, over what was ``found``."""
    return {
        name: {key: sum(run[key] for run in runs) / len(runs) for key in runs[0]}
        for name, runs in found.items()
    }


def by_name(rule: Any, judge: Judge) -> dict[str, float]:
    """How well a text-to-image model draws subjects that it has seen, by their names."""
    asked = judge.asked(turned=False)[::2]
    prompts = [judge.caption(one.portrait, by_name=True) for one in asked]
    return judge(draw_all(drawing(rule, guidance=GUIDANCE), prompts, CPU), asked)
