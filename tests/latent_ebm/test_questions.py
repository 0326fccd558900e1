"""Alignment by questions and counting: answers by hand on planted faults, and a real parser."""

from dataclasses import replace

import pytest
import torch

from latent_ebm.data import draw_shapes
from latent_ebm.data.scene import Placed, Scene, Scenery
from latent_ebm.data.scene_captions import ALL_PROMPTS, prompts_of
from latent_ebm.data.scene_parser import SceneParser
from latent_ebm.evaluation import (
    Question,
    align_by_questions,
    counting_accuracy,
    glyph_questions,
    scene_questions,
)

NAMES = ["cat", "dog", "owl", "other cat"]
ART = torch.tensor([0, 1, 2, 0])


def scene(*objects: tuple[int, int, int], background: int = 0, texture: int = 0) -> Scene:
    """Objects (glyph, left, top) of 12 pixels."""
    return Scene(tuple(Placed(g, 12, left, top) for g, left, top in objects), background, texture)


TWO = scene((0, 0, 0), (0, 0, 14), (1, 16, 0))  # two cats left of a dog
SAME = scene((3, 1, 1), (0, 1, 14), (1, 15, 3), background=4)


def answers(prompt: str, wanted: Scene, found: Scene) -> tuple[float, ...]:
    return align_by_questions(scene_questions(wanted, NAMES, ART, prompt), found).answers


FOUND = [
    (SAME, (1, 1, 1, 1, 1)),
    (scene((0, 0, 0), (1, 16, 0)), (1, 0, 1, 1, 1)),  # one cat too few
    (scene((0, 0, 0), (0, 0, 14), (1, 8, 0)), (1, 1, 1, 1, 0)),  # not left of the dog
    (scene((0, 0, 0), (0, 0, 14)), (1, 1, 0, 0, 0)),  # no dog: no number, no relation
    (scene((0, 0, 0), (0, 0, 14), (1, 16, 0), (2, 16, 14)), (1, 1, 1, 1, 1)),  # an owl besides
    (scene(), (0, 0, 0, 0, 0)),
]


@pytest.mark.parametrize(("found", "expected"), FOUND)
def test_answers_by_hand(found: Scene, expected: tuple[int, ...]) -> None:
    assert answers("attribute-spatial", TWO, found) == expected
    made = align_by_questions(scene_questions(TWO, NAMES, ART, "attribute-spatial"), found)
    assert made.strict == all(expected)
    assert made.soft == sum(expected) / 5


def test_above_is_above() -> None:
    wanted = scene((0, 0, 0), (1, 3, 14))
    assert answers("attribute-spatial", wanted, scene((0, 9, 1), (1, 0, 13)))[-1] == 1
    assert answers("attribute-spatial", wanted, scene((0, 9, 13), (1, 0, 1)))[-1] == 0


def test_only_what_is_said_is_asked() -> None:
    wanted = scene((2, 0, 0), (1, 3, 14), background=3, texture=1)
    texts = [q.text for q in scene_questions(wanted, NAMES, ART, "2-additive-color")]
    assert texts == [
        "Is there any owl?",
        "Is the number of owls 1?",
        "Is there any dog?",
        "Is the number of dogs 1?",
        "Is the background blue?",
        "Is the background striped?",
    ]
    plain, other = wanted._replace(texture=0), wanted._replace(texture=2)
    for found in (plain, other):
        assert answers("2-additive-color", wanted, found)[-2:] == (1, 0)
    more = scene((2, 0, 0), (2, 9, 0), (1, 3, 14), background=3, texture=1)
    assert answers("2-additive-color", wanted, more) == (1, 0, 1, 1, 1, 1)
    assert answers("2-additive-color", plain, plain._replace(background=2)) == (1, 1, 1, 1, 0)
    assert len(scene_questions(wanted, NAMES, ART, "2-additive")) == 4


def test_what_is_rendered_and_read_is_right_and_another_scene_is_not() -> None:
    scenery = Scenery(draw_shapes(24), side=32, max_num=2)
    parser, generator = SceneParser(scenery), torch.Generator().manual_seed(0)
    names, art = scenery.glyphs.names, scenery.glyphs.art
    scenes = [scenery.draw(generator) for _ in range(8)]
    read = parser(torch.stack([scenery.render(s) for s in scenes]))
    kinds = [prompts_of(s)[-1] for s in scenes]
    asked = [scene_questions(s, names, art, k) for s, k in zip(scenes, kinds, strict=True)]
    assert all(align_by_questions(q, s).strict for q, s in zip(asked, read, strict=True))
    shifted = zip(asked, [*read[1:], read[0]], strict=True)
    assert sum(align_by_questions(q, s).strict for q, s in shifted) < 2
    found = counting_accuracy(scenes, read, kinds, art)
    assert all(share.estimate == 1 for share in found.values())
    assert set(found) <= set(ALL_PROMPTS)


def test_counting_by_prompt_type() -> None:
    asked = [scene((0, 0, 0), (0, 0, 14)), scene((0, 0, 0), (0, 0, 14)), TWO, TWO]
    read = [
        scene((3, 5, 0), (0, 0, 14), (1, 16, 0)),  # two cats, and a dog that was not asked for
        scene((0, 0, 0), (0, 0, 14), (0, 16, 0)),
        SAME,
        scene((0, 0, 0), (0, 0, 14), (1, 16, 0), (1, 16, 14)),  # cats right, dogs wrong
    ]
    kinds = ["numeric-simple", "numeric-simple", "2-additive", "2-additive"]
    found = counting_accuracy(asked, read, kinds, ART)
    assert {k: (v.correct, v.num) for k, v in found.items()} == dict.fromkeys(kinds, (1, 2))
    numbers = counting_accuracy(asked, read, ["2", "2", "3", "3"], ART, confidence=0.9)
    assert list(numbers) == ["2", "3"]
    assert (
        numbers["2"].high - numbers["2"].low < found["2-additive"].high - found["2-additive"].low
    )
    with pytest.raises(ValueError, match=r"one entry per picture, one at least, got 4, 4 and 1"):
        counting_accuracy(asked, read, ["2"], ART)


def test_questions_about_a_glyph() -> None:
    glyphs = draw_shapes(24)
    questions = glyph_questions(glyphs, 0)
    assert [q.text for q in questions] == [
        f"Is it {glyphs.base[0]}?",
        f"Is its tone {glyphs.tone[0]}?",
    ]
    base, tone = glyphs.base[0], glyphs.tone[0]
    for found in range(len(glyphs)):
        made = align_by_questions(questions, found)
        same = glyphs.base[found] == base
        assert made.answers == (same, same and glyphs.tone[found] == tone)


def test_glyphs_that_look_the_same_are_right() -> None:
    glyphs = draw_shapes(24)
    twice = glyphs.take([0, 1, 0])
    changed = replace(twice, base=["x", "y", "z"])
    assert align_by_questions(glyph_questions(changed, 0), 2).answers[0] == 1
    assert align_by_questions(glyph_questions(changed, 0), 1).answers[0] == 0


def test_answers_of_a_model_are_soft() -> None:
    ask = [Question("a?", lambda p: p), Question("b?", lambda p: 0.9, (0,))]
    assert align_by_questions(ask, 0.5) == (1, pytest.approx(0.7), (0.5, 0.9))
    assert align_by_questions(ask, 0.4) == (0, pytest.approx(0.2), (0.4, 0))


def test_odd_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="questions must hold at least one question, got none"):
        align_by_questions([], 0)
    with pytest.raises(ValueError, match=r"number 0 needs \(0,\)"):
        align_by_questions([Question("a?", float, (0,))], 0)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got nan to 'a\?'"):
        align_by_questions([Question("a?", lambda p: float("nan"))], 0)
    with pytest.raises(ValueError, match=r"prompt must be one of .* here, got '3-additive'"):
        scene_questions(TWO, NAMES, ART, "3-additive")
