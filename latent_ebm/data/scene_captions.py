"""Captions of scenes, in the seven prompt types of GeckoNum.

GeckoNum (Kajić et al. 2024, arXiv:2406.14774) asks text-to-image models for exact numbers: of one
kind of thing ("4 cats"), in a sentence, with a colour, of two or three kinds, and with a relation
in space. Here the colour is that of the background. A number is a digit or a word by chance.
"""

from collections import Counter
from collections.abc import Sequence

from torch import Generator

from latent_ebm.data.scene import PALETTE, TEXTURES, Placed, Scene, chance

PROMPTS = {  # what is said, by the number of kinds in the scene
    1: ("numeric-simple", "numeric-sentence", "attribute-color"),
    2: ("2-additive", "2-additive-color", "attribute-spatial"),
    3: ("3-additive",),
}
ALL_PROMPTS = tuple(prompt for prompts in PROMPTS.values() for prompt in prompts)
WORDS = ("no", "one", "two", "three", "four", "five")
SENTENCES = ("There {be} {things}.", "A picture of {things}.")
IRREGULAR = {
    "person": "people",
    "man": "men",
    "woman": "women",
    "child": "children",
    "foot": "feet",
    "tooth": "teeth",
    "mouse": "mice",
    "goose": "geese",
    "leaf": "leaves",
    "potato": "potatoes",
    "tomato": "tomatoes",
    "wolf": "wolves",
    "knife": "knives",
}
SAME = ("sheep", "fish", "deer", "squid")
PEOPLE = ("man", "woman", "person")
JOINTS = (" with ", " of ", " in ", " on ", " for ", ":")


def prompts_of(scene: Scene) -> list[str]:
    """The prompt types that fit ``scene``."""
    kinds = PROMPTS[len({placed.glyph for placed in scene.objects})]
    return [p for p in kinds if p != "attribute-spatial" or relation(scene)]


def describe(scene: Scene, names: Sequence[str], prompt: str, generator: Generator) -> str:
    """A caption of ``scene``; ``names`` are those of all glyphs.

    Raises ``ValueError`` for a ``prompt`` that does not fit the scene.
    """
    if prompt not in (fitting := prompts_of(scene)):
        raise ValueError(f"prompt must be one of {', '.join(fitting)} here, got {prompt!r}")
    if prompt == "attribute-spatial":
        return _spatial(scene, names, generator)
    counts = Counter(placed.glyph for placed in scene.objects)
    parts = [counted(names[glyph], num, generator) for glyph, num in counts.items()]
    things = " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
    if prompt == "numeric-sentence":
        sentence = SENTENCES[chance(len(SENTENCES), generator)]
        return sentence.format(be="is" if len(scene.objects) == 1 else "are", things=things)
    behind = ground(scene.background, scene.texture)
    return f"{things} on {behind}" if prompt.endswith("color") else things


def ground(background: int, texture: int = 0) -> str:
    """A background of ``PALETTE`` and ``TEXTURES`` in words."""
    pattern = "" if texture == 0 else f"{TEXTURES[texture]} "
    return f"a {pattern}{list(PALETTE)[background]} background"


def relation(scene: Scene) -> tuple[int, str, int] | None:
    """``(a, words, b)`` if all of glyph a is left of, or above, all of glyph b; None if neither
    holds, or there are not two glyphs.
    """
    kinds = list(dict.fromkeys(placed.glyph for placed in scene.objects))
    if len(kinds) != 2:
        return None
    groups = [[p for p in scene.objects if p.glyph == kind] for kind in kinds]
    for (a, b), (first, second) in zip(((0, 1), (1, 0)), (groups, groups[::-1]), strict=True):
        if before(first, second, "left"):
            return kinds[a], "left of", kinds[b]
        if before(first, second, "top"):
            return kinds[a], "above", kinds[b]
    return None


def before(first: Sequence[Placed], second: Sequence[Placed], axis: str) -> bool:
    """Whether every box of ``first`` ends where those of ``second`` begin, or before."""
    end = max(getattr(placed, axis) + placed.size for placed in first)
    return end <= min(getattr(placed, axis) for placed in second)


def _spatial(scene: Scene, names: Sequence[str], generator: Generator) -> str:
    found = relation(scene)
    if found is None:
        raise ValueError("scene must have a relation between two kinds")
    first, words, second = found
    if chance(2, generator):
        opposite = {"left of": "right of", "above": "below"}
        first, words, second = second, opposite[words], first
    counts = Counter(placed.glyph for placed in scene.objects)
    a, b = (counted(names[glyph], counts[glyph], generator) for glyph in (first, second))
    return f"There {'is' if counts[first] == 1 else 'are'} {a} {words} {b}."


def counted(name: str, num: int, generator: Generator) -> str:
    """``name`` with its number: a digit, a word, or the article of a single thing."""
    single = num == 1 and plural(name) != name
    options = [str(num), WORDS[num], *([article(name)] if single else [])]
    number = options[chance(len(options), generator)]
    return f"{number} {name if num == 1 else plural(name)}"


def article(name: str) -> str:
    return "an" if name[:1].lower() in "aeiou" else "a"


def plural(name: str) -> str:
    """``name`` for several: "red apples", "slices of pizza", "women running"."""
    cut = min((name.index(joint) for joint in JOINTS if joint in name), default=len(name))
    first, _, rest = name[:cut].partition(" ")
    if first in PEOPLE and rest.split(" ")[0].endswith("ing"):
        cut = len(first)
    start, _, word = name[:cut].rpartition(" ")
    return " ".join(filter(None, [start, plural_word(word)])) + name[cut:]


def plural_word(word: str) -> str:
    if word in SAME:
        return word
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word  # "books" is plural already
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"
