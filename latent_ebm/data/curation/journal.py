"""What a curation has decided so far, in a file that survives a killed run.

Each line is an object of JSON that ends in a digest of itself and of the line before it. The first
line describes the chain of filters, and each of the others holds a chunk of rows. Lines are only
appended. A last line without its end was being written when the run was killed: it is cut off.
Anything else that is not as it was written is an error.
"""

import json
import os
import re
import reprlib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from hashlib import blake2b
from inspect import getclosurevars
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import NamedTuple

from latent_ebm.foreign import reading

FORMAT = 1
START = b'{"content": ['  # of every line


class Judged(NamedTuple):
    """What the filters say of a row.

    Args:
        name: The name of the row.
        stamp: Its digest.
        caption: The caption that it goes on with; "" if it is dropped.
        step: Number of the step that drops it; -1 if none does.
        reason: Why.
        prints: For each likeness, the print in hexadecimal digits; none if it is dropped.
    """

    name: str
    stamp: str
    caption: str
    step: int
    reason: str
    prints: list[str]


@reprlib.recursive_repr()
def describe(value: object) -> str:
    """``value`` in words that are the same in the next run: a dataclass by its fields, another
    object by its name and a digest of its attributes, a function by its name and a digest of its
    code. What a function reads from its module is not described.
    """
    if is_dataclass(value) and not isinstance(value, type):
        parts = [f"{f.name}={describe(getattr(value, f.name))}" for f in fields(value)]
        return f"{type(value).__qualname__}({', '.join(parts)})"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(describe, value))}]"
    if isinstance(value, set | frozenset):  # in an order of its own in each run
        return f"{{{', '.join(sorted(map(describe, value)))}}}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{describe(k)}: {describe(v)}' for k, v in value.items())}}}"
    if callable(value) or type(value).__repr__ is object.__repr__:
        name, parts = anatomy(value)
        return f"{name} {short_digest(describe(parts))}" if parts else name
    return repr(value) if isinstance(value, str) else re.sub(" at 0x[0-9a-fA-F]+", "", repr(value))


def anatomy(value: object) -> tuple[str, object]:
    """The name of a function, a class or another object, and what it is made of."""
    name = str(getattr(value, "__qualname__", type(value).__qualname__))
    if isinstance(value, FunctionType):
        held = getclosurevars(value).nonlocals
        parts = [code_parts(value.__code__), value.__defaults__, value.__kwdefaults__, held]
        return f"{value.__module__}.{name}", parts
    if isinstance(value, MethodType):
        return name, [value.__func__, value.__self__]
    if isinstance(value, partial):
        return name, [value.func, value.args, value.keywords]
    state = {} if isinstance(value, type) else getattr(value, "__dict__", {})
    return name, dict(sorted(state.items()))


def code_parts(code: CodeType) -> list[object]:
    """The instructions, names and constants of ``code``, without its place in a file."""
    held = [code_parts(c) if isinstance(c, CodeType) else c for c in code.co_consts]
    return [code.co_code, code.co_names, held]


def short_digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


class Journal:
    """The journal in the file at ``path``.

    Args:
        path: The file. It is begun if there is none.
        chain: Describes the filters.

    Attributes:
        judged: The rows that were judged before.

    Raises:
        ValueError: If the journal was written by another chain, or changed.
    """

    def __init__(self, path: Path, chain: str) -> None:
        self.path, self.digest = path, ""
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        begun = content[len(whole) :]
        if begun[: len(START)] != START[: len(begun)]:
            raise ValueError(f"{path} must hold a journal of curation, as it was written")
        if begun or not whole:
            with path.open("ab") as file:  # in place, so that a kill loses no whole line
                file.truncate(len(whole))
        self.judged = self.read(whole.decode(errors="replace").splitlines(), chain)
        if not whole:
            self.write([FORMAT, chain])

    def read(self, lines: Sequence[str], chain: str) -> list[Judged]:
        judged = []
        for number, line in enumerate(lines):
            with reading(self.path, "a journal of curation, as it was written"):
                record = json.loads(line)
                content = record["content"]
                self.digest = self.sign(content)
                if record["digest"] != self.digest:
                    raise ValueError(f"line {number + 1} was changed")
            if number == 0 and content != [FORMAT, chain]:
                raise ValueError(
                    f"{self.path} must be of the same filters, got one of "
                    f"{reprlib.repr(content[-1])}; choose a new folder to start anew"
                )
            judged += [Judged(*row) for row in content] if number else []
        return judged

    def sign(self, content: Sequence[object]) -> str:
        """The digest of a line, given that of the line before it."""
        return short_digest(self.digest + json.dumps(content))

    def write(self, content: Sequence[object]) -> None:
        """Append a line. It is on the disk when this returns."""
        self.digest = self.sign(content)
        with self.path.open("ab") as file:
            file.write(json.dumps({"content": content, "digest": self.digest}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
