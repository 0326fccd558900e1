"""The 8x8 handwritten digits of scikit-learn: a data set of real images that needs no download.

1,797 images of 43 writers (UCI, Alpaydin and Kaynak 1998), counts 0 to 16 scaled to [-1, 1], split
1297 / 200 / 300 with the same proportion of every digit.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Generator, Tensor

from latent_ebm.data.base import DataModule, Pair, TensorSet, make_generator
from samplers.checks import check_counts

NUM_VAL = 200
NUM_TEST = 300


class Digits(DataModule):
    """Images (1, 8, 8) in [-1, 1], labels 0 to 9; ``seed`` decides the split."""

    def __init__(self, batch_size: int = 100, seed: int = 0) -> None:
        super().__init__(batch_size, seed)

    def load(self) -> tuple[Pair, Pair, Pair]:
        images, digits = load_digits(return_X_y=True)
        x = torch.as_tensor(images / 8 - 1, dtype=torch.float32).view(-1, 1, 8, 8)
        label = torch.as_tensor(digits)
        rest, test = train_test_split(
            range(len(x)), test_size=NUM_TEST, stratify=digits, random_state=self.seed
        )
        train, val = train_test_split(
            rest, test_size=NUM_VAL, stratify=digits[rest], random_state=self.seed
        )
        return (x[train], label[train]), (x[val], label[val]), (x[test], label[test])


class StackedDigits(DataModule):
    """Three digits as the channels of an image (3, 8, 8) in [-1, 1]: a test of how many of the
    1,000 classes, labels 0 to 999, a model covers.

    There are ``num`` training rows, and a fifth of that number each for validation and test. Each
    part draws uniformly from the digits of its own split. Source: Metz et al. 2017,
    arXiv:1611.02163, with MNIST.
    """

    def __init__(self, num: int = 50_000, batch_size: int = 100, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        check_counts(self, num=num)
        self.num = num

    def load(self) -> tuple[Pair, Pair, Pair]:
        digits, num_held = Digits(seed=self.seed), max(1, self.num // 5)
        digits.setup()
        parts = ((digits.train, self.num), (digits.val, num_held), (digits.test, num_held))
        train, val, test = (
            stack(*part, make_generator(self.seed, stream)) for stream, part in enumerate(parts)
        )
        return train, val, test


def stack(rows: TensorSet, num: int, generator: Generator) -> tuple[Tensor, Tensor]:
    r"""``num`` triples of images (1, \*pixels): (num, 3, \*pixels), and the number (num,) that
    their labels spell.
    """
    index = torch.randint(len(rows), (num, 3), generator=generator)
    return rows.x[index].squeeze(2), rows.label[index] @ torch.tensor([100, 10, 1])
