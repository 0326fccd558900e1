"""Rows with captions that are drawn anew in every epoch.

What a row is in an epoch is a function of the seed, the epoch and the row. A run that was killed
therefore goes on with exactly the rows and captions that it would have seen.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from latent_ebm.conditions import Batch, Condition
from latent_ebm.data.base import TensorSet
from latent_ebm.text import Tokenizer, WordTokenizer
from latent_ebm.text.tokenizer import split_words


class CaptionedSet(TensorSet):
    """Rows whose batches carry ``tokens`` (n, L) of a caption; the null is the empty caption.

    ``epoch`` is that of the training loader. Without a tokenizer batches carry labels.
    """

    epoch = 0
    tokenizer: Tokenizer | None = None

    @abstractmethod
    def captions(self, index: Sequence[int]) -> list[str]:
        """Captions of the rows at ``index`` in this epoch."""

    def tell(self, index: Sequence[int]) -> Condition:
        """What is known of the rows at ``index`` in this epoch."""
        if self.tokenizer is None:
            return self.condition.rows(torch.as_tensor(index))
        ids = self.tokenizer([*self.captions(index), ""])
        return Condition({"tokens": ids[:-1]}, {"tokens": ids[-1]})

    def __getitem__(self, index: int) -> Batch:
        batch = self.__getitems__([range(len(self))[index]])
        return Batch(batch.x[0], batch.condition.rows(0), torch.tensor(range(len(self))[index]))

    def __getitems__(self, indices: list[int]) -> Batch:
        index = torch.as_tensor(indices)
        return Batch(self.x[index], self.tell(indices), index)


class EpochOrder(DistributedSampler[Batch]):
    """The order of the rows in an epoch, which tells the rows what epoch it is.

    Args:
        rows: The training rows.
        processes: Number of processes that share an epoch.
        rank: Which of them this is.
        seed: Decides the order, together with the epoch.
        weights: Probabilities (n,) by which rows are drawn with replacement; None: every row once.
    """

    def __init__(
        self, rows: CaptionedSet, processes: int, rank: int, seed: int, weights: Tensor | None
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


def vocabulary(captions: Sequence[str]) -> WordTokenizer:
    """The tokenizer of all words of ``captions``, as long as the longest of these."""
    return WordTokenizer.count(captions, max_words=max(len(split_words(c)) for c in captions))
