r"""Unsafe terms in captions, also in disguise.

Captions and terms are *folded* before they are compared, by ``latent_ebm.text.fold``: no capitals,
accents, invisible characters and letters that only look like Latin ones. A term is also found with
digits and signs in place of letters ("b0mb"), and with signs or spaces between all its letters
("b.o.m.b").

Limits: folding knows some 80 look-alikes of the 6,000 in Unicode's own table (UTS 39). Words that
differ by an accent alone become the same, and a Russian word may look like a Latin term. Spelling
mistakes, synonyms and other languages are not found.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from latent_ebm.data.curation.base import Filter, Row, drop_where
from latent_ebm.text.terms import TermSearch


@dataclass(frozen=True)
class Terms(Filter):
    """Drops rows whose folded caption holds one of your terms, or matches one of your patterns.

    Args:
        terms: Words or phrases, found as whole words, also in disguise. Give plurals and other
            forms too.
        patterns: Regular expressions, searched in the folded caption: write them in small
            letters without accents.

    Raises:
        ValueError: If there is neither, a term has no letter or digit, or a pattern is not valid
            or matches the empty text.
    """

    terms: Sequence[str] = ()
    patterns: Sequence[str] = ()

    def __post_init__(self) -> None:
        _ = self.search

    @cached_property
    def search(self) -> TermSearch:
        """What finds the terms and patterns."""
        return TermSearch(self.terms, self.patterns)

    def __call__(self, rows: Sequence[Row]) -> list[Row | str]:
        found = [self.search(row.caption) for row in rows]
        return drop_where(rows, ["" if match is None else match.name for match in found])
