r"""Which images are alike: exact copies, near copies, and images with like features.

A likeness keeps a few bytes of each image, its *print*, and compares these. The perceptual print
is a hash of 64 bits, as in pHash: the grey image at 32 x 32 pixels, its discrete cosine transform,
and one bit for each of the 8 x 8 lowest frequencies. Usually the bit is the sign of a coefficient.
The coefficients of simple images are often zero but for rounding, and JPEG then flips their signs:
here the bit says whether a coefficient is above a twentieth of the largest. The hash is blind to
colour, so 8 x 8 pixels of colour are compared as well: a red circle is no copy of a blue one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations_with_replacement

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from latent_ebm.data.curation.base import Row, pixel_bytes
from latent_ebm.data.curation.quality import grey
from samplers.checks import check_count, check_fields

SIDE, LOW, SMALLEST = 32, 8, 0.05  # pixels, frequencies, least coefficient relative to the largest
BLOCK = 1024  # prints that are compared with as many others at once
PART = 2**15  # pairs whose colours are compared at once

Prints = NDArray[np.uint8]  # (n, bytes)
Pairs = NDArray[np.int64]  # (k, 2)


class Likeness(ABC):
    """Keeps a print of each image, and says which prints are alike. Equal prints are always
    alike.
    """

    @abstractmethod
    def prints(self, rows: Sequence[Row]) -> Prints:
        """The print (n, bytes) of each image."""

    @abstractmethod
    def pairs(self, prints: Prints) -> Iterator[Pairs]:
        """Positions (k, 2) of ``prints`` that are alike, among prints that all differ. They come
        in parts, so that not all of them need be held.
        """


@dataclass(frozen=True)
class Pixels(Likeness):
    """Images with the same size and the same pixels, of 8 bits."""

    def prints(self, rows: Sequence[Row]) -> Prints:
        digests = b"".join(sha256(pixel_bytes(row.image)).digest() for row in rows)
        return np.frombuffer(digests, np.uint8).reshape(len(rows), -1)

    def pairs(self, prints: Prints) -> Iterator[Pairs]:
        return iter(())


@dataclass(frozen=True)
class Perceptual(Likeness):
    """Images whose perceptual hashes differ by few bits, and whose colours are close.

    Finds copies after JPEG, resizing, light noise and blur. It does not find copies that were
    mirrored, turned, or cropped by more than about 2 % of a side: take ``Features`` for those.
    All pairs are compared, so that time grows with the square of the number of images.

    Args:
        distance: Bits of 64 that may differ.
        colour: Largest difference of a colour of 8 x 8 pixels, in units of 1 of 255.
    """

    distance: int = 4
    colour: int = 30

    def __post_init__(self) -> None:
        for name in ("distance", "colour"):
            check_count(self, name, 0, getattr(self, name))

    def prints(self, rows: Sequence[Row]) -> Prints:
        return np.stack([np.concatenate([hash_bits(r.image), colours(r.image)]) for r in rows])

    def pairs(self, prints: Prints) -> Iterator[Pairs]:
        size = LOW * LOW // 8
        bits = torch.from_numpy(np.unpackbits(prints[:, :size], axis=1)).float() * 2 - 1
        close = LOW * LOW - 2 * self.distance  # the product of two hashes that are near
        for block in pairs_above(bits, close - 0.5):
            for pair in np.array_split(block, 1 + len(block) // PART):
                first, second = (prints[pair[:, k], size:].astype(np.int16) for k in range(2))
                yield pair[np.abs(first - second).max(1) <= self.colour]


@dataclass(frozen=True)
class Features(Likeness):
    """Images whose features, by your network, have a cosine of at least ``cosine``.

    Args:
        function: Takes a list of images (3, H, W) in [-1, 1], of any sizes, and returns their
            features (n, D). These are kept in 16 bits.
        cosine: The limit.

    Raises:
        ValueError: If ``function`` does not return finite features, none of them zero.
    """

    function: Callable[[list[Tensor]], Tensor]
    cosine: float = 0.95

    def __post_init__(self) -> None:
        check_fields(self, cosine="in (0, 1]")

    def prints(self, rows: Sequence[Row]) -> Prints:
        values = torch.as_tensor(self.function([row.image for row in rows])).detach().cpu().float()
        size = values.norm(dim=-1, keepdim=True) if values.ndim == 2 else values
        if (
            len(values) != len(rows)
            or values.ndim != 2
            or not bool((size > 0).all())
            or not bool(values.isfinite().all())
        ):
            raise ValueError(
                f"Features: function must return finite features ({len(rows)}, D) that are not "
                f"zero, got shape {tuple(values.shape)}"
            )
        return (values / size).half().numpy().view(np.uint8)

    def pairs(self, prints: Prints) -> Iterator[Pairs]:
        values = torch.from_numpy(prints.view(np.float16).astype(np.float32))
        return pairs_above(values / values.norm(dim=1, keepdim=True), self.cosine)


def hash_bits(image: Tensor) -> Prints:
    """The perceptual hash (8,) of an image (3, H, W): 64 bits in bytes."""
    small = interpolate(grey(image)[None, None], (SIDE, SIDE), mode="bilinear", antialias=True)
    waves = np.asarray(dctn(small[0, 0].cpu().numpy(), norm="ortho"))[:LOW, :LOW].ravel()
    waves[0] = 0  # the mean brightness, which the colours tell
    return np.packbits(waves > SMALLEST * np.abs(waves).max())


def colours(image: Tensor) -> Prints:
    """Colours of an image (3, H, W) at 8 x 8 pixels, (192,)."""
    return (
        adaptive_avg_pool2d(image, LOW)
        .add(1)
        .mul(127.5)
        .round()
        .clamp(0, 255)
        .byte()
        .flatten()
        .cpu()
        .numpy()
    )


def pairs_above(vectors: Tensor, least: float) -> Iterator[Pairs]:
    """Pairs of rows of ``vectors`` (n, D) with a product of at least ``least``, in parts: those of
    two blocks of rows.
    """
    blocks = vectors.split(BLOCK)
    for i, j in combinations_with_replacement(range(len(blocks)), 2):
        near = (blocks[i] @ blocks[j].T >= least).triu(1 - (j - i) * BLOCK)
        yield near.nonzero().numpy() + np.array([i, j]) * BLOCK


def clusters(likenesses: Sequence[Likeness], prints: Sequence[Prints]) -> NDArray[np.int64]:
    """The cluster (n,) of each row, from 0: rows that a chain of like rows connects.

    Args:
        likenesses: Ways of being alike; one is enough for two rows.
        prints: For each of these, the prints (n, bytes) of all rows.
    """
    rows = np.arange(len(prints[0]))
    label = rows
    for likeness, content in zip(likenesses, prints, strict=True):
        _, first, inverse = np.unique(content, axis=0, return_index=True, return_inverse=True)
        label = joined(label, np.stack([rows, first[inverse.reshape(-1)]], 1))
        for pairs in likeness.pairs(content[first]):
            label = joined(label, first[pairs])
    return label


def joined(label: NDArray[np.int64], pairs: Pairs) -> NDArray[np.int64]:
    """Clusters (n,) after ``pairs`` (k, 2) of rows have joined those of ``label`` (n,). Both count
    from 0, in the order of their first rows.
    """
    ends = label[pairs]
    ends = ends[ends[:, 0] != ends[:, 1]]
    if not len(ends):
        return label
    num = int(label.max()) + 1
    graph = coo_array((np.ones(len(ends), bool), tuple(ends.T)), shape=(num, num))
    return connected_components(graph, directed=False)[1].astype(np.int64)[label]
