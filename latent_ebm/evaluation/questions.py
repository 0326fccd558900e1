"""Alignment by questions: what a prompt asks for, as yes/no questions about what a picture shows.

A *parse* is what is known of a picture: the scene that an exact parser reads, the glyph that it is
nearest to, or the picture itself if a model answers. A question may need others: whether apples
are left of pears means something only if there are apples and pears. As in the Davidsonian scene
graph (Cho et al. 2023, arXiv:2310.18235), the answer is "no" if one that it needs is "no".
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from torch import Tensor

from latent_ebm.data.glyphs import Glyphs
from latent_ebm.data.scene import PALETTE, TEXTURES, Placed, Scene
from latent_ebm.data.scene_captions import before, plural, prompts_of, relation
from latent_ebm.metrics import Share, share_of

T = TypeVar("T")
YES = 0.5  # an answer of at least this means yes
AXES = {"left of": "left", "above": "top"}


@dataclass(frozen=True)
class Question(Generic[T]):
    """A question with an answer in [0, 1] for every parse; 1 is yes and 0 is no.

    ``needs`` are the places, in the list of all questions, of earlier ones that must be "yes".
    """

    text: str
    answer: Callable[[T], float]
    needs: tuple[int, ...] = ()


class Alignment(NamedTuple):
    """``strict`` is 1 if every answer is yes, else 0; ``soft`` is the mean of ``answers``, with 0
    where another question that is needed is "no".
    """

    strict: float
    soft: float
    answers: tuple[float, ...]


def align_by_questions(questions: Sequence[Question[T]], parse: T) -> Alignment:
    """Ask all ``questions`` about ``parse``.

    Raises ``ValueError`` if there is no question, one needs another that is not before it, or an
    answer is not in [0, 1].
    """
    if not len(questions):
        raise ValueError("questions must hold at least one question, got none")
    answers = list[float]()
    for place, question in enumerate(questions):
        if not all(0 <= other < place for other in question.needs):
            raise ValueError(
                f"a question must need earlier ones alone, but number {place} needs "
                f"{question.needs}"
            )
        asked = all(answers[other] >= YES for other in question.needs)
        answer = float(question.answer(parse)) if asked else 0.0
        if not 0 <= answer <= 1:
            raise ValueError(f"an answer must lie in [0, 1], got {answer} to {question.text!r}")
        answers.append(answer)
    strict = float(all(answer >= YES for answer in answers))
    return Alignment(strict, sum(answers) / len(answers), tuple(answers))


def scene_questions(
    scene: Scene, names: Sequence[str], art: Tensor, prompt: str
) -> list[Question[Scene]]:
    """What a caption of type ``prompt`` says about ``scene``: whether each kind of thing is there
    and how many, the background, and the relation of the two kinds.

    Args:
        scene: What is asked for.
        names: Names of all glyphs.
        art: The number (n,) of the picture of every glyph; equal pictures are the same thing.
        prompt: One of the seven prompt types.

    Raises:
        ValueError: For a prompt type that does not fit the scene.
    """
    if prompt not in (fitting := prompts_of(scene)):
        raise ValueError(f"prompt must be one of {', '.join(fitting)} here, got {prompt!r}")
    questions, exists = list[Question[Scene]](), dict[int, int]()
    for glyph, num in Counter(placed.glyph for placed in scene.objects).items():
        exists[glyph] = len(questions)
        name = names[glyph]
        questions += [
            Question[Scene](f"Is there any {name}?", lambda s, g=glyph: bool(those(s, g, art))),
            Question[Scene](
                f"Is the number of {plural(name)} {num}?",
                lambda s, g=glyph, n=num: len(those(s, g, art)) == n,
                (exists[glyph],),
            ),
        ]
    if prompt.endswith("color"):
        questions += ground_questions(scene)
    if prompt == "attribute-spatial" and (found := relation(scene)):
        first, words, second = found
        questions.append(
            Question(
                f"Is every {names[first]} {words} every {names[second]}?",
                lambda s: before(those(s, first, art), those(s, second, art), AXES[words]),
                (exists[first], exists[second]),
            )
        )
    return questions


def ground_questions(scene: Scene) -> list[Question[Scene]]:
    """About the colour of the background, and about its texture if it has one."""
    colour, texture = list(PALETTE)[scene.background], TEXTURES[scene.texture]
    questions = [
        Question[Scene](f"Is the background {colour}?", lambda s: s.background == scene.background)
    ]
    if scene.texture:
        text = f"Is the background {texture}?"
        questions.append(Question(text, lambda s: s.texture == scene.texture))
    return questions


def glyph_questions(glyphs: Glyphs, row: int) -> list[Question[int]]:
    """What the name of the glyph at ``row`` says: the subject, and its gender and tone if it has
    them. The parse is the row of the glyph that a picture shows; others that look the same count.
    """

    def ask(column: Sequence[str]) -> Callable[[int], float]:
        return lambda found: any(column[i] == column[row] for i in alike(glyphs, found))

    questions = [Question(f"Is it {glyphs.base[row]}?", ask(glyphs.base))]
    for column, kind in ((glyphs.gender, "gender"), (glyphs.tone, "tone")):
        if column[row]:
            questions.append(Question(f"Is its {kind} {column[row]}?", ask(column), (0,)))
    return questions


def alike(glyphs: Glyphs, row: int) -> list[int]:
    """The rows of glyphs that look like the one at ``row``."""
    return (glyphs.art == glyphs.art[row]).nonzero()[:, 0].tolist()


def those(scene: Scene, glyph: int, art: Tensor) -> list[Placed]:
    """The objects of ``scene`` that look like ``glyph``."""
    return [placed for placed in scene.objects if art[placed.glyph] == art[glyph]]


def counting_accuracy(
    asked: Sequence[Scene],
    read: Sequence[Scene],
    keys: Sequence[str],
    art: Tensor,
    *,
    confidence: float = 0.99,
) -> dict[str, Share]:
    """For each of ``keys``, how often a picture shows every kind of thing in the number that was
    asked for, with the Wilson interval; GeckoNum (Kajić et al. 2024, arXiv:2406.14774).

    Other things in the picture, places and backgrounds do not count.

    Args:
        asked: The scenes that the prompts describe.
        read: What the parser reads in the pictures.
        keys: What the accuracies are for: the prompt type of each row, or its number of things.
        art: The number (n,) of the picture of every glyph.
        confidence: Coverage of the intervals, in (0, 1).

    Raises:
        ValueError: If the lists differ in length or are empty, or ``confidence`` is out of range.
    """
    if not len(asked) == len(read) == len(keys) or not len(asked):
        raise ValueError(
            "asked, read and keys must have one entry per picture, one at least, got "
            f"{len(asked)}, {len(read)} and {len(keys)}"
        )
    right, num = Counter[str](), Counter[str](keys)
    for wanted, found, key in zip(asked, read, keys, strict=True):
        counts = Counter(placed.glyph for placed in wanted.objects)
        right[key] += all(len(those(found, g, art)) == n for g, n in counts.items())
    return {key: share_of(right[key], num[key], confidence) for key in sorted(num)}
