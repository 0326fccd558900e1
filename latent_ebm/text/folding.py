r"""One spelling for texts that look the same, so that filters find a term however it is written.

A term can be hidden from a search by full-width letters, capitals, accents, invisible characters,
or letters of other alphabets that look like Latin ones (*homoglyphs*: Cyrillic ``а`` for ``a``).
Folding undoes these, one character at a time, so that a match in the folded text can be traced
back to the text as it was written.
"""

import unicodedata
from dataclasses import dataclass

# Cyrillic, Greek, Armenian and Latin letters that are drawn like a letter of a to z.
HOMOGLYPHS = {
    ord(foreign): latin
    for latin, letters in {
        "a": "аαɑ", "b": "Ьʙ", "c": "сϲᴄ", "d": "ԁɗ", "e": "еєɛҽ", "f": "ϝẝ", "g": "ɡց",
        "h": "һհ", "i": "іɩιıӏ", "j": "јϳ", "k": "кκҝ", "l": "ⅼʟ", "m": "мᴍ", "n": "пηոռ",
        "o": "оοσօ", "p": "рρ", "q": "ԛզ", "r": "гᴦ", "s": "ѕꜱ", "t": "тτᴛ", "u": "υսᴜ",
        "v": "ѵνᴠ", "w": "ԝաᴡѡ", "x": "хχ", "y": "уүγ", "z": "ᴢʐ",
    }.items()
    for foreign in letters
}  # fmt: skip


@dataclass(frozen=True)
class Folded:
    """A folded text and where each of its characters comes from.

    Args:
        text: The folded text.
        origin: For each character of ``text``, the position in the original text of the character
            that it stands for.
    """

    text: str
    origin: tuple[int, ...]

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """Where ``text[start:stop]``, at least one character, lies in the original text."""
        return self.origin[start], self.origin[stop - 1] + 1


def fold_character(character: str) -> str:
    """``character`` in form NFKD without case, accents and invisible characters; lookalikes of
    Latin letters become these.
    """
    parts = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    seen = (part for part in parts if unicodedata.category(part) not in ("Mn", "Me", "Cf", "Cc"))
    return " " if character.isspace() else "".join(seen).translate(HOMOGLYPHS)


def fold(text: str) -> Folded:
    """``text`` as it looks: in compatibility form (NFKD), without case, accents, invisible
    characters and homoglyphs.

    Every character is folded by itself, and every kind of space becomes a plain one. Two texts
    that fold to the same string look alike, but texts that look alike may fold to different
    strings: the table of homoglyphs holds common ones only, and digits that stand for letters
    stay.
    """
    pairs = [(part, i) for i, character in enumerate(text) for part in fold_character(character)]
    return Folded("".join(part for part, _ in pairs), tuple(i for _, i in pairs))
