"""Personal data in captions: addresses of e-mail, phone numbers, numbers of payment cards.

The rules are patterns. They find data that are written in common forms. They do not find names,
postal addresses, and local phone numbers of seven digits. Reasons say what was found and never
repeat it.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from latent_ebm.data.curation.base import Filter, Row, drop_where

AT, DOT = r"(?:@|\s*[\[({]\s*at\s*[\])}]\s*)", r"(?:\.|\s*[\[({]\s*dot\s*[\])}]\s*)"
EMAIL = re.compile(
    rf"(?<![\w.+-])[\w.+-]*\w{AT}\w[\w-]*(?:{DOT}[\w-]+)*{DOT}[a-z]{{2,}}\b", re.IGNORECASE
)
RUN = re.compile(r"(?<!\w)(?<!\d[.,])\d+(?:[ -]\d+)*(?!\w)")
LAYOUTS = {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), *((num,) for num in range(13, 20))}
CODE = 3  # digits of what may stand beside a card number
GAP = r"[ ./-]{1,2}"
PHONE = re.compile(
    rf"(?<!\w)(?<!\d[.,/-])(?:"
    rf"(?:\+|00)[1-9]\d{{0,3}}(?:(?:{GAP})?\(?\d{{1,5}}\)?){{2,6}}"  # international
    rf"|\(0?\d{{2,4}}\)(?:(?:{GAP})?\d{{2,8}}){{1,4}}"  # an area code in brackets
    rf"|0\d{{1,5}}(?:{GAP}\d{{2,8}}){{1,4}}"  # an area code with its zero
    rf"|0[1-9]\d{{8,9}}"  # the same without gaps
    rf"|(?:1{GAP})?[2-9]\d{{2}}([ .-])[2-9]\d{{2}}\1\d{{4}}"  # North America
    rf")(?![\w%]|[.,]\d)"
)
DATE = re.compile(  # also a range of times
    r"\d{1,2}([./ -])\d{1,2}\1\d{2,4}|\d{4}([./ -])\d{1,2}\2\d{1,2}"
    r"|\d{1,2}\.\d{2} ?- ?\d{1,2}\.\d{2}"
)
HYPHENS = re.compile("[\u2010\u2011\u2212]")
DIGITS = (8, 15)  # of a phone number, by ITU-T E.164


def luhn(digits: str) -> bool:
    """Whether the checksum of a card number holds (ISO/IEC 7812): the sum of its digits, every
    second one from the right doubled and its digits added, is a multiple of ten.
    """
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + sum(sum(divmod(2 * v, 10)) for v in values[1::2])) % 10 == 0


def only_digits(text: str) -> str:
    return "".join(filter(str.isdecimal, text))


def has_email(text: str) -> bool:
    """Whether ``text`` holds an address of e-mail, also with "(at)" and "[dot]"."""
    return EMAIL.search(text) is not None


def has_card(text: str) -> bool:
    """Whether ``text`` holds the number of a payment card: 13 to 19 digits, the first 2 to 6, with
    a valid checksum. One in ten of other numbers of this length has one too.
    """
    return any(luhn(digits) for run in RUN.finditer(text) for digits in card_readings(run[0]))


def card_readings(run: str) -> Iterator[str]:
    """Digits in ``run``, a number that may have gaps, that are as many as those of a card: all, or
    a part that is written as cards are, beside a date and a code of at most three digits.
    """
    parts = re.split("[ -]", run)
    readings = [parts]
    for start, length in product(range(len(parts)), (1, 3, 4)):
        rest = parts[:start] + parts[start + length :]
        some = parts[start : start + length]
        if max(map(len, rest), default=0) <= CODE and tuple(map(len, some)) in LAYOUTS:
            readings.append(some)
    for digits in map("".join, readings):
        if 13 <= len(digits) <= 19 and digits[0] in "23456":
            yield digits


def has_phone(text: str) -> bool:
    """Whether ``text`` holds a phone number: with a country code, or in a common national form. A
    date is none, and a number as long as that of a card is none.
    """
    rest = RUN.sub(lambda run: "card" if any(card_readings(run[0])) else run[0], text)
    found = (match[0] for match in PHONE.finditer(rest))
    return any(
        DIGITS[0] <= len(only_digits(number)) <= DIGITS[1] and not DATE.fullmatch(number)
        for number in found
    )


CHECKS = {"an e-mail address": has_email, "a card number": has_card, "a phone number": has_phone}


@dataclass(frozen=True)
class PersonalData(Filter):
    """Drops rows whose caption holds an address of e-mail, a card number or a phone number."""

    def __call__(self, rows: Sequence[Row]) -> list[Row | str]:
        return drop_where(rows, [self.reason(row.caption) for row in rows])

    def reason(self, caption: str) -> str:
        """What ``caption`` holds, or nothing."""
        text = HYPHENS.sub("-", unicodedata.normalize("NFKC", caption))
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")
        return ", ".join(what for what, holds in CHECKS.items() if holds(text))
