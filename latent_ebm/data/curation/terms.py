r"""Unsafe terms in captions, also in disguise.

Captions and terms are *folded* before they are compared: Unicode compatibility (NFKC: wide,
mathematical and circled letters), no capitals, no accents, no invisible characters, and letters of
other alphabets that look like Latin ones become these (``HOMOGLYPHS``). A term is also found with
digits and signs in place of letters ("b0mb"), and with signs or spaces between all its letters
("b.o.m.b").

Limits: the table holds some 80 letters of the 6,000 in Unicode's own (UTS 39). Spanish words that
differ by a tilde alone become the same, and a Russian word may look like a Latin term. Spelling
mistakes, synonyms and other languages are not found.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from latent_ebm.data.curation.base import Filter, Row, drop_where
from latent_ebm.text.tokenizer import check_list

# A letter of Greek, Cyrillic, Armenian or Latin, and the small letter that it looks like.
CAPITALS = "Αa Βb Εe Ζz Ηh Ιi Κk Μm Νn Οo Ρp Τt Υy Χx"
SMALL = (  # small letters, and those that a small letter stands for after folding capitals
    "αa βb γy εe ηn ιi κk νv οo ρp τt υu χx ωw "
    "аa вb сc ԁd еe ѕs һh нh іi јj кk ӏl мm пn оo ԛq рp гr тt уy ѵv ԝw хx ьb "
    "օo սu հh ոn ցg զq յj "
    "ıi ɑa ɡg ɩi ɪi øo đd łl ħh ŧt ƙk ƅb ʋv ᴀa ᴄc ᴇe ᴏo"
)
HOMOGLYPHS = [{ord(a): b for a, b in pairs.split()} for pairs in (CAPITALS, SMALL)]
STAND_INS = {"a": "4@", "b": "8", "e": "3", "g": "9", "i": "1!|", "l": "1|", "o": "0", "s": "5$",
             "t": "7+", "z": "2"}  # fmt: skip
ACCENTS = re.compile("[\u0300-\u036f]")
SPELLED = 3  # letters of a term that is also found with signs between them


def fold(text: str) -> str:
    """``text`` in the form in which captions and terms are compared; see the module."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in plain if unicodedata.category(c) != "Cf")
    plain = ACCENTS.sub("", plain).translate(HOMOGLYPHS[0]).casefold()
    plain = ACCENTS.sub("", unicodedata.normalize("NFKD", plain)).translate(HOMOGLYPHS[1])
    return " ".join(unicodedata.normalize("NFKC", plain).split())


def disguised(word: str) -> str:
    """A pattern for one folded word, with stand-ins for its letters, and signs between them."""
    letters = [f"[{re.escape(c + STAND_INS.get(c, ''))}]" for c in word]
    spelled = r"[\W_]+".join(letters)
    return f"(?:{''.join(letters)}|{spelled})" if len(word) >= SPELLED else "".join(letters)


def term_pattern(term: str) -> str:
    """A pattern for a folded term. Where it starts or ends in an alphabet that has capitals or in
    a digit, it must be a whole word.
    """
    start, end = (c.islower() or c.isdigit() for c in (term[0], term[-1]))
    body = r"[\W_]+".join(map(disguised, term.split()))
    return r"(?<!\w)" * start + body + r"(?!\w)" * end


@dataclass(frozen=True)
class Terms(Filter):
    """Drops rows whose folded caption holds one of your terms, or matches one of your patterns.

    Args:
        terms: Words or phrases, found as whole words, also in disguise. Give plurals and other
            forms too.
        patterns: Regular expressions, searched in the folded caption: write them in small
            letters without accents.

    Raises:
        ValueError: If a term has no letter or digit, or a pattern is not valid.
    """

    terms: Sequence[str] = ()
    patterns: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_list("Terms: terms", self.terms)
        check_list("Terms: patterns", self.patterns)
        if not (self.terms or self.patterns):
            raise ValueError("Terms: terms or patterns must hold an entry, got none")
        for term in self.terms:
            if not isinstance(term, str) or not any(map(str.isalnum, term)):
                raise ValueError(f"Terms: terms must hold letters or digits, got {term!r}")
        _ = self.rules

    @cached_property
    def rules(self) -> list[tuple[str, re.Pattern[str], bool]]:
        """What each term and pattern is called, the compiled expression, and whether a match must
        hold a letter: "45" is not "as".
        """
        terms = [(t, fold(t)) for t in self.terms]
        named = [(f"term {t!r}", term_pattern(f), any(map(str.isalpha, f))) for t, f in terms]
        named += [(f"pattern {p!r}", p, False) for p in self.patterns]
        try:
            return [(name, re.compile(pattern), letter) for name, pattern, letter in named]
        except (re.error, TypeError) as error:
            raise ValueError(
                f"Terms: patterns must be regular expressions, got one with: {error}"
            ) from error

    def __call__(self, rows: Sequence[Row]) -> list[Row | str]:
        return drop_where(rows, [self.reason(fold(row.caption)) for row in rows])

    def reason(self, text: str) -> str:
        """The first term or pattern that is found in folded ``text``, or nothing."""
        for name, rule, letter in self.rules:
            found = (match[0] for match in rule.finditer(text))
            if any(not letter or any(map(str.isalpha, match)) for match in found):
                return name
        return ""
