"""What a curation has decided so far, in a file that survives a killed run.

Each line is an object of JSON that ends in a digest of itself and of the line before it. The first
line describes the chain of filters, and each of the others holds a chunk of rows. Lines are only
appended. A last line without its end was being written when the run was killed: it is cut off.
Anything else that is not as it was written is an error.
"""

import json
import os
import reprlib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from pathlib import Path
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


def describe(value: object) -> str:
    """``value`` in words that are the same in the next run: a dataclass by its fields, another
    callable by its name.
    """
    if is_dataclass(value) and not isinstance(value, type):
        parts = [f"{f.name}={describe(getattr(value, f.name))}" for f in fields(value)]
        return f"{type(value).__qualname__}({', '.join(parts)})"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(describe, value))}]"
    if callable(value):
        return str(getattr(value, "__qualname__", type(value).__qualname__))
    return repr(value)


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
            path.write_bytes(whole)
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
        text = self.digest + json.dumps(content)
        return blake2b(text.encode(), digest_size=16).hexdigest()

    def write(self, content: Sequence[object]) -> None:
        """Append a line. It is on the disk when this returns."""
        self.digest = self.sign(content)
        with self.path.open("ab") as file:
            file.write(json.dumps({"content": content, "digest": self.digest}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
