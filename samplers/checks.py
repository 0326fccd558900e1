"""Rules for the numbers that constructors and functions take, and one sentence for a number that
breaks its rule.

Scalars of numpy and tensors without axes count as numbers. Truth values do not, nor do strings
that read like a number.
"""

import reprlib
import sys
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import TypeGuard

RULES: dict[str, Callable[[float], bool]] = {
    "finite": lambda v: True,
    "finite and positive": lambda v: v > 0,
    "finite and non-negative": lambda v: v >= 0,
    "in (0, 1)": lambda v: 0 < v < 1,
    "in (0, 1]": lambda v: 0 < v <= 1,
    "in [0, 1]": lambda v: 0 <= v <= 1,
}
SHORT = {"positive": "finite and positive", "non-negative": "finite and non-negative"}


def check_numbers(owner: object, rule: str, /, **numbers: object) -> None:
    """Raise ``ValueError`` unless every one of ``numbers`` obeys ``rule``.

    The rules are "finite", "positive", "non-negative", "in (0, 1)", "in (0, 1]" and "in [0, 1]";
    all ask for a finite number. ``owner`` opens the sentence: the name of a function, or an
    object, whose class is named.
    """
    for name, value in numbers.items():
        check_number(owner, name, rule, value)


def check_counts(owner: object, /, least: int = 1, **counts: object) -> None:
    """Raise ``ValueError`` unless every one of ``counts`` is an integer of at least ``least``."""
    for name, value in counts.items():
        check_count(owner, name, least, value)


def check_fields(owner: object, /, **rules: str) -> None:
    """Check each of the named fields of a dataclass by its rule, such as "positive" or "count",
    and keep it as a plain Python number.
    """
    for name, rule in rules.items():
        value = getattr(owner, name)
        if rule == "count":
            check_count(owner, name, 1, value)
        else:
            check_number(owner, name, rule, value)
        object.__setattr__(owner, name, plain(value))


def as_shape(owner: object, /, **shapes: object) -> tuple[int, ...]:
    """The one shape given by name, an integer >= 1 or a sequence of these, as a tuple. Raises
    ``ValueError`` for others.
    """
    ((name, shape),) = shapes.items()
    sizes = shape if isinstance(shape, Sequence) and not isinstance(shape, str) else [shape]
    for size in sizes:
        check_count(owner, name, 1, size)
    return tuple(size for size in map(plain, sizes) if is_whole(size))


def check_kind(owner: object, kind: type, /, **values: object) -> None:
    """Raise ``ValueError`` unless every one of ``values`` is an instance of ``kind``."""
    for name, value in values.items():
        if not isinstance(value, kind):
            raise ValueError(sentence(owner, name, f"a {kind.__name__}", value))


def check_number(owner: object, name: str, rule: str, value: object) -> None:
    number, rule = plain(value), SHORT.get(rule, rule)
    if not (is_real(number) and abs(number) <= sys.float_info.max and RULES[rule](number)):
        raise ValueError(sentence(owner, name, rule, value))


def check_count(owner: object, name: str, least: int, value: object) -> None:
    number = plain(value)
    if not (is_whole(number) and number >= least):
        raise ValueError(sentence(owner, name, f"an integer >= {least}", value))


def is_real(number: object) -> TypeGuard[float]:
    """Whether ``number`` is a real number, and no truth value."""
    return isinstance(number, Real) and not isinstance(number, bool)


def is_whole(number: object) -> TypeGuard[int]:
    """Whether ``number`` is an integer, and no truth value."""
    return isinstance(number, Integral) and not isinstance(number, bool)


def plain(value: object) -> object:
    """``value`` as Python has it, if it is a number of numpy or a tensor without axes."""
    item = getattr(value, "item", None)
    known = getattr(value, "ndim", None) == 0 and not getattr(value, "is_meta", False)
    return item() if known and callable(item) else value


def sentence(owner: object, name: str, rule: str, value: object) -> str:
    """``Owner: name must be rule, got value``; a long value is cut."""
    title = owner if isinstance(owner, str) else type(owner).__name__
    return f"{title}: {name} must be {rule}, got {reprlib.repr(value)}"
