"""Rows with captions that are drawn anew in every epoch.

The content of a row in an epoch is a function of the seed, the epoch and the row's number. A
resumed run therefore sees exactly the rows and captions that it would have seen without a break.
"""

import reprlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from latent_ebm.conditions import Batch, Condition
from latent_ebm.data.base import TensorSet
from latent_ebm.text import TextEncoder, Tokenizer, WordTokenizer
from latent_ebm.text.tokenizer import split_words

MAX_WORDS = 256  # of a caption, unless a tokenizer is given: a batch is as wide as the longest
NUM_COMPARED = 64  # captions that are split by two tokenizers


class CaptionedSet(TensorSet):
    """Rows whose batches carry the ``tokens`` (n, L) of a caption. The null condition is the empty
    caption. ``epoch`` is that of the training loader.
    """

    tokenizer: Tokenizer
    epoch = 0

    @abstractmethod
    def rows(self, index: Sequence[int]) -> tuple[Tensor, list[str]]:
        """Pictures (k, 3, side, side) and captions of the rows at ``index`` in this epoch."""

    def captions(self, index: Sequence[int]) -> list[str]:
        """Captions of the rows at ``index`` in this epoch."""
        return self.rows(index)[1]

    def __getitem__(self, index: int) -> Batch:
        row = range(len(self))[index]
        batch = self.__getitems__([row])
        return Batch(batch.x[0], batch.condition.rows(0), torch.tensor(row))

    def __getitems__(self, indices: list[int]) -> Batch:
        x, captions = self.rows(indices)
        tokens = self.tokenizer([*captions, ""])
        condition = Condition({"tokens": tokens[:-1]}, {"tokens": tokens[-1]})
        return Batch(x, condition, torch.as_tensor(indices))


class EpochOrder(DistributedSampler[int]):
    """The order of the rows in an epoch. It also sets the epoch of the rows.

    Args:
        rows: The training rows.
        processes: Number of processes that share an epoch.
        rank: Which of them this is.
        seed: Decides the order, together with the epoch.
        weights: Probabilities (n,) by which rows are drawn with replacement; None: every row once.
    """

    def __init__(
        self,
        rows: CaptionedSet,
        processes: int,
        rank: int,
        seed: int,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__(rows, processes, rank, seed=seed)
        self.rows, self.weights = rows, weights

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self.rows.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.weights is None:
            return super().__iter__()
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        drawn = torch.multinomial(self.weights, self.total_size, True, generator=generator)
        return iter(drawn[self.rank :: self.num_replicas].tolist())


def check_tokenizer(loader: object, part: object) -> None:
    """Raise ``ValueError`` if the captions of ``loader`` become other tokens by the tokenizer of
    ``part``. Other loaders than those of a ``CaptionedSet``, and other parts than a
    ``TextEncoder``, are not looked at.
    """
    rows = loader.dataset if isinstance(loader, DataLoader) else None
    if not (isinstance(rows, CaptionedSet) and isinstance(part, TextEncoder)):
        return
    texts = rows.captions(range(min(len(rows), NUM_COMPARED)))
    ids, expected = rows.tokenizer(texts), part.tokenizer(texts)
    if not torch.equal(ids, expected):
        raise ValueError(
            "tokenizer of the data must be that of the text encoder, but they split captions such "
            f"as {texts[0]!r} into other tokens"
        )


def vocabulary(texts: Sequence[str]) -> WordTokenizer:
    """The tokenizer of all words of ``texts``, as long as the longest of these.

    Raises ``ValueError`` if that has more than ``MAX_WORDS`` words.
    """
    longest = max(texts, key=lambda text: len(split_words(text)))
    if (num := len(split_words(longest))) > MAX_WORDS:
        raise ValueError(
            f"captions must have at most {MAX_WORDS} words, unless a tokenizer is given, got "
            f"{num:,}: {reprlib.repr(longest)}"
        )
    return WordTokenizer.count(texts, max_words=max(1, num))
