r"""Prompts as token ids: words of a vocabulary that was counted in captions.

A prompt becomes one row of integers: a start token, its words, and padding up to a fixed length,
so that rows of different prompts can be stacked. The empty prompt is the start token alone; it
means "nothing is known". Nothing is cut off or passed over: a prompt that is too long or cannot be
read is refused, and words that are not in the vocabulary are named.
"""

import json
import os
import reprlib
import unicodedata
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from latent_ebm.foreign import read_json
from latent_ebm.writing import atomic_path
from samplers.checks import check_counts

PADDING, START, UNKNOWN = 0, 1, 2  # ids below those of words
FORMAT = 1  # of the file
NAMED = 10  # unknown words that a message names


class Tokenizer(nn.Module, ABC):
    """Maps prompts to ids (n, max_tokens), int64; rows of short prompts end in ``padding``.

    A leaf says how one prompt is split. ``num_marks`` counts the tokens of a row that stand for no
    part of the prompt, such as the start token; ``unit`` is what the others stand for. It is a
    module, though without parameters, so that it is saved with the encoder that it belongs to.
    """

    max_tokens: int
    padding: int = PADDING
    num_marks: int = 1
    unit: str = "tokens"

    @property
    @abstractmethod
    def num_tokens(self) -> int:
        """Number of different ids."""

    @abstractmethod
    def split(self, prompt: str) -> tuple[list[int], list[str]]:
        """Ids of ``prompt`` with marks and without padding, and the words that are not known."""

    def forward(self, prompts: Sequence[str], *, strict: bool = False) -> Tensor:
        """Ids (n, max_tokens) of ``prompts``, int64.

        Words that are not known become the unknown token, and a ``UserWarning`` names them.

        Args:
            prompts: A list of strings.
            strict: Whether unknown words are refused.

        Raises:
            ValueError: If ``prompts`` is no list of strings, or a prompt is too long, holds
                control characters, or consists of punctuation alone; with ``strict`` for unknown
                words.
        """
        check_list("prompts", prompts)
        rows, unknown = [], {}
        for i, prompt in enumerate(prompts):
            check_prompt(f"prompts[{i}]", prompt)
            ids, words = self.split(prompt)
            self.check_length(f"prompts[{i}]", prompt, ids)
            rows.append(ids + [self.padding] * (self.max_tokens - len(ids)))
            unknown |= dict.fromkeys(words)
        if unknown:
            report_unknown(list(unknown), strict)
        return torch.tensor(rows, dtype=torch.int64).view(-1, self.max_tokens)

    def shown(self, tokens: Tensor) -> Tensor:
        """Mask (n, m) of ``tokens`` (n, m) that are no padding."""
        return tokens != self.padding

    def check_length(self, name: str, prompt: str, ids: Sequence[int]) -> None:
        """Raise ``ValueError`` unless ``ids`` of a prompt fit into a row, and stand for a part of
        it if it is not blank.
        """
        num, most = len(ids) - self.num_marks, self.max_tokens - self.num_marks
        if num > most:
            raise ValueError(
                f"{name} must have at most {most:,} {self.unit}, got {num:,}: "
                f"{reprlib.repr(prompt)}"
            )
        if num == 0 and prompt.strip():
            raise ValueError(f"{name} must hold a word or be empty, got {reprlib.repr(prompt)}")


class WordTokenizer(Tokenizer):
    """Words of a fixed vocabulary: ids are 0 for padding, 1 for the start, 2 for an unknown word,
    and 3, 4, ... for ``words``.

    Args:
        words: The vocabulary, the most frequent word first, as ``split_words`` returns them.
        max_words: The greatest number of words in a prompt.

    Raises:
        ValueError: If ``words`` are not different words in normal form.
    """

    unit = "words"

    def __init__(self, words: Sequence[str], max_words: int = 16) -> None:
        super().__init__()
        check_counts(self, max_words=max_words)
        check_list("words", words)
        for word in words:
            if not isinstance(word, str) or split_words(word) != [word]:
                raise ValueError(f"words must be single words in normal form, got {word!r}")
        self.words, self.max_words = tuple(words), max_words
        self.max_tokens = max_words + 1
        self.ids = {word: i for i, word in enumerate(self.words, UNKNOWN + 1)}
        if len(self.ids) < len(self.words):
            twice = next(w for w, count in Counter(self.words).items() if count > 1)
            raise ValueError(f"words must be different from each other, got {twice!r} twice")

    @classmethod
    def count(
        cls, captions: Iterable[str], num_words: int | None = None, max_words: int = 16
    ) -> "WordTokenizer":
        """The tokenizer of the ``num_words`` words (None: all) that are most frequent in
        ``captions``; ties are in alphabetical order.

        With fewer words than the captions have, a network sees the unknown token in training.
        """
        check_counts("WordTokenizer", num_words=1 if num_words is None else num_words)
        check_list("captions", captions, Iterable)
        counts = Counter[str]()
        for i, caption in enumerate(captions):
            check_prompt(f"captions[{i}]", caption)
            counts.update(split_words(caption))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(tuple(islice(ranked, num_words)), max_words)

    @property
    def num_tokens(self) -> int:
        return UNKNOWN + 1 + len(self.words)

    def split(self, prompt: str) -> tuple[list[int], list[str]]:
        words = split_words(prompt)
        ids = [self.ids.get(word, UNKNOWN) for word in words]
        return [START, *ids], [word for word in words if word not in self.ids]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tokenizer to a JSON file."""
        content = {"format": FORMAT, "max_words": self.max_words, "words": self.words}
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "WordTokenizer":
        """The tokenizer that ``save`` wrote. Raises ``FileNotFoundError``, or ``ValueError`` for a
        file that holds none.
        """
        content = read_json(path, "the vocabulary of a WordTokenizer as JSON")
        if set(content) != {"format", "max_words", "words"} or content["format"] != FORMAT:
            raise ValueError(
                f"{path} must hold format {FORMAT}, max_words and words, got "
                f"{reprlib.repr(content)}"
            )
        if not isinstance(content["words"], list):
            raise ValueError(f"{path} must hold a list of words, got {content['words']!r:.100}")
        return cls(tuple(content["words"]), content["max_words"])


def normalise(text: str) -> str:
    """``text`` in Unicode's form NFKC without case, so that equal words are equal strings."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def split_words(text: str) -> list[str]:
    """The words of ``text`` in normal form.

    Letters, marks and digits of any script make words; a symbol (``+``, an emoji) is a word of its
    own; punctuation and spaces separate words; joiners and variation selectors are left out.
    """
    return "".join(map(spaced, normalise(text))).split()


def spaced(character: str) -> str:
    """``character`` as it enters a line of words between spaces."""
    kind = unicodedata.category(character)
    if kind == "Cf" or "\ufe00" <= character <= "\ufe0f":
        return ""
    return character if kind[0] in "LMN" else " " if kind[0] in "PZC" else f" {character} "


def check_list(name: str, texts: object, kind: type = Sequence) -> None:
    """Raise ``ValueError`` for a single string, or anything but a ``kind``."""
    if isinstance(texts, str) or not isinstance(texts, kind):
        raise ValueError(f"{name} must be a list of strings, got {reprlib.repr(texts)}")


def check_prompt(name: str, prompt: object) -> None:
    """Raise ``ValueError`` unless ``prompt`` is a string without control characters and halves of
    surrogate pairs.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"{name} must be a string, got {reprlib.repr(prompt)}")
    for character in prompt:
        if unicodedata.category(character) in ("Cc", "Cs") and not character.isspace():
            raise ValueError(
                f"{name} must hold no control characters, got {character!r} in "
                f"{reprlib.repr(prompt)}"
            )


def report_unknown(words: Sequence[str], strict: bool) -> None:
    """Warn that ``words`` are not in the vocabulary; with ``strict`` raise ``ValueError``."""
    named = ", ".join(map(reprlib.repr, words[:NAMED])) + (", ..." if len(words) > NAMED else "")
    if strict:
        raise ValueError(f"prompts must consist of known words, got {named}")
    warnings.warn(f"words that are not known become one token: {named}", stacklevel=3)
