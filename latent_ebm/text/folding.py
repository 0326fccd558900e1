r"""One spelling for texts that look the same, so that filters find a term however it is written.

A term can be hidden from a search by full-width letters, capitals, accents, invisible characters,
or letters of other alphabets that look like Latin ones (*homoglyphs*: Cyrillic ``а`` for ``a``).
Folding undoes these piece by piece, so that what is found in the folded text can be traced back to
the text as it was written.

Limits: the table holds some 80 letters of the 6,000 in Unicode's own (UTS 39). Spanish words that
differ by a tilde alone become the same, and a Russian word may look like a Latin term.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

# A letter of Greek, Cyrillic, Armenian or Latin, and the small letter that it looks like.
CAPITALS = "Αa Βb Εe Ζz Ηh Ιi Κk Μm Νn Οo Ρp Τt Υy Χx"
SMALL = (  # small letters, and those that a small letter stands for after folding capitals
    "αa βb γy εe ηn ιi κk νv οo ρp τt υu χx ωw "
    "аa вb сc ԁd еe ѕs һh нh іi јj кk ӏl мm пn оo ԛq рp гr тt уy ѵv ԝw хx ьb "
    "օo սu հh ոn ցg զq յj "
    "ıi ɑa ɡg ɩi ɪi øo đd łl ħh ŧt ƙk ƅb ʋv ᴀa ᴄc ᴇe ᴏo"
)
HOMOGLYPHS = [{ord(a): b for a, b in pairs.split()} for pairs in (CAPITALS, SMALL)]
ACCENTS = re.compile("[\u0300-\u036f]")
# Marks that choose among variants of the letter before them.
SELECTORS = re.compile("[\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")


@dataclass(frozen=True)
class Folded:
    """A folded text and where each of its characters comes from.

    Args:
        text: The folded text.
        origin: For each character of ``text``, the first and last position plus one in the
            original text of what it stands for.
    """

    text: str
    origin: tuple[tuple[int, int], ...]

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """Where ``text[start:stop]``, at least one character, lies in the original text."""
        return self.origin[start][0], self.origin[stop - 1][1]


def fold(text: str) -> Folded:
    """``text`` as it looks: in compatibility form (NFKC), without case, accents, invisible
    characters and homoglyphs, and with one plain space for spaces of any kind and number.

    Two texts that fold to the same string look alike. Texts that look alike may still differ, as
    digits that stand for letters stay.
    """
    characters, origin = list[str](), list[tuple[int, int]]()
    for start, piece in pieces(text):
        for character in fold_piece(piece):
            if character != " " or (characters and characters[-1] != " "):
                characters.append(character)
                origin.append((start, start + len(piece)))
    end = len(characters) - (characters[-1:] == [" "])
    return Folded("".join(characters[:end]), tuple(origin[:end]))


def pieces(text: str) -> Iterator[tuple[int, str]]:
    """Where each character of ``text`` starts, with the accents and invisible characters after
    it.
    """
    start = 0
    for i in range(1, len(text) + 1):
        if i == len(text) or not (unicodedata.combining(text[i]) or is_invisible(text[i])):
            yield start, text[start:i]
            start = i


def fold_piece(piece: str) -> str:
    """The folded form of one character and its accents."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", piece) if not is_invisible(c))
    plain = ACCENTS.sub("", plain).translate(HOMOGLYPHS[0]).casefold()
    plain = ACCENTS.sub("", unicodedata.normalize("NFKD", plain)).translate(HOMOGLYPHS[1])
    plain = unicodedata.normalize("NFKC", plain)
    return "".join(" " if c.isspace() else c for c in plain)


def is_invisible(character: str) -> bool:
    """Whether nothing is drawn for ``character``: joiners, controls, selectors of variants, but no
    spaces.
    """
    hidden = unicodedata.category(character) in ("Cf", "Cc") and not character.isspace()
    return hidden or SELECTORS.match(character) is not None
