r"""Unsafe terms in captions, also in disguise.

Captions and terms are *folded* before they are compared, by ``latent_ebm.text.fold``: no capitals,
accents, invisible characters and letters that only look like Latin ones. A term is also found with
digits and signs in place of letters ("b0mb"), and with signs or spaces between all its letters
("b.o.m.b").

Limits: folding knows some 80 look-alikes of the 6,000 in Unicode's own table (UTS 39). Words that
differ by an accent alone become the same, and a Russian word may look like a Latin term. Spelling
mistakes, synonyms and other languages are not found.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from latent_ebm.data.curation.base import Filter, Row, drop_where
from latent_ebm.text import fold
from latent_ebm.text.terms import term_pattern
from latent_ebm.text.tokenizer import check_list


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
        terms = [(t, any(map(str.isalpha, fold(t).text))) for t in self.terms]
        named = [(f"term {t!r}", term_pattern(t), letter) for t, letter in terms]
        named += [(f"pattern {p!r}", p, False) for p in self.patterns]
        try:
            return [(name, re.compile(pattern), letter) for name, pattern, letter in named]
        except (re.error, TypeError) as error:
            raise ValueError(
                f"Terms: patterns must be regular expressions, got one with: {error}"
            ) from error

    def __call__(self, rows: Sequence[Row]) -> list[Row | str]:
        return drop_where(rows, [self.reason(fold(row.caption).text) for row in rows])

    def reason(self, text: str) -> str:
        """The first term or pattern that is found in folded ``text``, or nothing."""
        for name, rule, letter in self.rules:
            found = (match[0] for match in rule.finditer(text))
            if any(not letter or any(map(str.isalpha, match)) for match in found):
                return name
        return ""
