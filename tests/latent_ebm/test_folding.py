"""Folding: texts that look the same get the same spelling, and matches lead back to the source."""

import pytest

from latent_ebm.text import fold
from latent_ebm.text.folding import HOMOGLYPHS


@pytest.mark.parametrize(
    ("disguised", "plain"),
    [
        ("ＢＯＭＢ", "bomb"),
        ("bо\u200bmb", "bomb"),  # Cyrillic o, zero-width space
        ("b\u00f6mb", "bomb"),
        ("bo\u0308mb", "bomb"),
        ("ВОМВ".replace("В", "B"), "bomb"),
        ("ﬁre", "fire"),
        ("Straße\u00a0one\ttwo", "strasse one two"),
        ("ѕесrеt", "secret"),
        ("", ""),
    ],
)
def test_disguises_are_undone(disguised: str, plain: str) -> None:
    assert fold(disguised).text == plain
    assert fold(fold(disguised).text).text == plain


def test_a_match_leads_back_to_the_characters_that_were_written() -> None:
    text = "a ﬁ\u200bre x"
    folded = fold(text)
    start = folded.text.index("fire")
    low, high = folded.span(start, start + 4)
    assert text[low:high] == "ﬁ\u200bre"
    assert len(folded.text) == len(folded.origin)


def test_homoglyphs_are_letters_of_no_latin_word() -> None:
    assert not any(chr(point).isascii() for point in HOMOGLYPHS)
    assert all(len(latin) == 1 and latin.isascii() for latin in HOMOGLYPHS.values())
