"""Folding: texts that look the same get the same spelling, and matches lead back to the source."""

import pytest

from latent_ebm.text import TermSearch, fold
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
    for table in HOMOGLYPHS:
        assert not any(chr(point).isascii() for point in table)
        assert all(len(latin) == 1 and latin.isascii() for latin in table.values())


def test_letters_of_other_scripts_stay_apart() -> None:
    assert fold("が").text == fold("か\u3099").text != fold("か").text
    assert fold("каша").text == fold("Каша").text


DISGUISES = ["BOMB!", "a b0mb", "b.o.m.b", "b\u043emb", "the bo\u0301mb", "ｂｏｍｂ"]
DISGUISES += ["a_bomb", "_bomb_", "bo\ufe0fmb", "b\ufe00omb"]  # tokenizers read "bomb" in these


@pytest.mark.parametrize("text", DISGUISES)
def test_a_term_is_found_in_disguise_and_where_it_was_written(text: str) -> None:
    found = TermSearch(["bomb"])(text)
    assert found is not None
    assert found.name == "term 'bomb'"
    written = text[slice(*found.span)]
    assert written in text
    assert TermSearch(["bomb"])(written) is not None
    assert TermSearch(["bomb"])(text.replace(written, "")) is None


@pytest.mark.parametrize("text", ["bombastic", "a bo mbo", "8086", "", "b o m"])
def test_a_term_is_not_found_in_other_words(text: str) -> None:
    assert TermSearch(["bomb", "bob"])(text) is None


def test_phrases_and_patterns_are_found() -> None:
    assert TermSearch(["no entry"])("No,  ENTRY") == ("term 'no entry'", (0, 10))
    assert TermSearch(patterns=[r"\d{3}"])("é 123") == (r"pattern '\\d{3}'", (2, 5))
    assert TermSearch(["\u80a1"])("a\u80a1b") is not None  # scripts without spaces


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "must hold an entry, got none"),
        ({"terms": "bomb"}, "terms must be a list"),
        ({"terms": ["!"]}, "letters or digits, got '!'"),
        ({"patterns": ["("]}, "patterns must be regular expressions"),
        ({"patterns": ["a*"]}, "must not match the empty text"),
    ],
)
def test_other_terms_are_refused(arguments: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TermSearch(**arguments)
