r"""Terms and regular expressions, searched in folded texts.

A term is found as whole words, with digits and signs in place of letters ("b0mb"), and with signs
or spaces between all its letters ("b.o.m.b"). Spelling mistakes, synonyms and other languages are
not found.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from latent_ebm.text.folding import fold
from latent_ebm.text.tokenizer import check_list

STAND_INS = {"a": "4@", "b": "8", "e": "3", "g": "9", "i": "1!|", "l": "1|", "o": "0", "s": "5$",
             "t": "7+", "z": "2"}  # fmt: skip
SPELLED = 3  # letters of a term that is also found with signs between them


class Match(NamedTuple):
    """Which rule was found, such as "term 'bomb'", and where in the original text."""

    name: str
    span: tuple[int, int]


class TermSearch:
    """Searches texts for terms and patterns.

    Args:
        terms: Words or phrases, found as whole words, also in disguise. Give plurals and other
            forms too.
        patterns: Regular expressions, searched in the folded text: write them in small letters
            without accents.

    Raises:
        ValueError: If there is neither, a term has no letter or digit, or a pattern is not valid
            or matches the empty text.
    """

    def __init__(self, terms: Sequence[str] = (), patterns: Sequence[str] = ()) -> None:
        check_list("terms", terms)
        check_list("patterns", patterns)
        if not (terms or patterns):
            raise ValueError("terms or patterns must hold an entry, got none")
        self.rules = [
            (f"term {term!r}", re.compile(term_pattern(term)), has_letter(fold(term).text))
            for term in terms
        ]
        self.rules += [(f"pattern {p!r}", compiled(p), False) for p in patterns]

    def __call__(self, text: str) -> Match | None:
        """The first rule that is found in ``text``; None if none is."""
        folded = fold(text)
        for name, rule, needs_letter in self.rules:
            for found in rule.finditer(folded.text):  # "45" is not "as"
                if found[0] and (not needs_letter or has_letter(found[0])):
                    return Match(name, folded.span(*found.span()))
        return None


def has_letter(text: str) -> bool:
    return any(map(str.isalpha, text))


def disguised(word: str) -> str:
    """A pattern for one folded word, with stand-ins for its letters, and signs between them."""
    forms = [c + STAND_INS.get(c, "") for c in word]
    letters = [f"[{re.escape(form)}]" for form in forms]
    if len(word) < SPELLED:
        return "".join(letters)
    return f"(?:{''.join(letters)}|{letters[0]}{''.join(map(after_signs, forms[1:]))})"


def after_signs(form: str) -> str:
    """A pattern for a letter in one of its ``form``s, behind signs.

    If a sign may stand for the letter, it is the first that does, since all later ones may stand
    between letters. So a run of signs is not read in all ways, whose number is a power of its
    length.
    """
    signs = re.escape("".join(c for c in form if not c.isalnum()))
    plain = re.escape("".join(filter(str.isalnum, form)))
    ways = [rf"[\W_](?:(?![{signs}])[\W_])*+[{signs}]"] if signs else []
    ways += [rf"[\W_]++[{plain}]"] if plain else []
    return f"(?:{'|'.join(ways)})"


def term_pattern(term: str) -> str:
    """A pattern for a term. Where it starts or ends in an alphabet that has capitals or in a
    digit, it must be a whole word.
    """
    if not isinstance(term, str) or not any(map(str.isalnum, fold(term).text)):
        raise ValueError(f"terms must hold letters or digits, got {term!r}")
    folded = fold(term).text
    start, end = (c.islower() or c.isdigit() for c in (folded[0], folded[-1]))
    body = r"[\W_]+".join(map(disguised, folded.split()))
    return r"(?<![^\W_])" * start + body + r"(?![^\W_])" * end  # "_" is a sign, as for tokenizers


def compiled(pattern: str) -> re.Pattern[str]:
    """``pattern``, ready for searching. Raises ``ValueError`` if it is none."""
    try:
        made = re.compile(pattern)
    except (re.error, TypeError) as error:
        text = f"patterns must be regular expressions, got {pattern!r}: {error}"
        raise ValueError(text) from None
    if made.search(""):
        raise ValueError(f"patterns must not match the empty text, got {pattern!r}")
    return made
