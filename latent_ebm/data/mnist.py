"""MNIST, whole or with one digit held out as the anomaly.

The four IDX files, gzipped or not, are read from a directory, or else the same images come from
OpenML through scikit-learn. The content is checked by SHA-256 of the values after the header, so
that a file may be compressed again.

Two protocols hold a digit out. Results can only be compared under the same protocol.
``standard`` trains on the training set without the digit, and tests on all 10,000 test images;
about a tenth of them are anomalies. ``pooled`` joins all 70,000 images, trains on 80 % of the
other digits, and tests on the remaining 20 % together with *every* image of the held-out digit. A
third of this test set or more are anomalies, so that the AUPRC of chance is far higher. Validation
images are always taken from the training images: nothing is selected on test data.
"""

import gzip
import hashlib
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import fetch_openml
from torch import Tensor

from latent_ebm.data.base import DataModule, Pair, make_generator
from samplers.checks import check_counts

Bytes = NDArray[np.uint8]

ENVIRONMENT = "LATENT_EBM_DATA"
NUM_TRAIN = 60_000
MAX_BYTES = 2**27  # of an IDX file, unpacked
TEST_FRACTION = 0.2  # of the normals, under the pooled protocol
DIGESTS = {  # SHA-256 of the values, without the header
    "train-images-idx3-ubyte": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "train-labels-idx1-ubyte": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "t10k-images-idx3-ubyte": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "t10k-labels-idx1-ubyte": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
}


def read_idx(path: Path) -> Bytes:
    """Array of unsigned bytes in an IDX file, gzipped if its name ends in ``.gz``.

    Raises ``ValueError`` unless the file is two zero bytes, the type 8, the number of axes, their
    sizes as big-endian 32-bit integers and then exactly the values.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            content = file.read(MAX_BYTES + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} must be a whole gzip file: {error}") from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} must hold at most {MAX_BYTES:,} bytes when unpacked")
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(
            f"{path} must start with the IDX magic 00 00 08, got "
            f"{content[:3].hex(' ') or 'nothing'}"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(f"{path} must hold a header of {start} bytes, got {len(content)}")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) != start + math.prod(shape):
        raise ValueError(
            f"{path} must hold {start + math.prod(shape)} bytes for shape {shape}, got "
            f"{len(content)}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def find_directory(directory: str | None) -> Path | None:
    """``directory``, else the folder named by ``LATENT_EBM_DATA`` or its ``mnist``, else
    ``None``.
    """
    named = directory or os.environ.get(ENVIRONMENT)
    if not named:
        return None
    folder = Path(named).expanduser()
    candidates = [folder, folder / "mnist"]
    for candidate in candidates:
        if all(_find(candidate, name) for name in DIGESTS):
            return candidate
    source = "directory" if directory else f"the environment variable {ENVIRONMENT}"
    raise FileNotFoundError(
        f"{source} must name a folder with {', '.join(DIGESTS)}, each plain or .gz, got "
        f"{named!r}; "
        f"leave it unset to fetch mnist_784 from OpenML"
    )


def _find(directory: Path, name: str) -> Path | None:
    return next(
        (path for path in (directory / name, directory / f"{name}.gz") if path.is_file()), None
    )


def read_openml() -> list[Bytes]:
    """The four arrays, in the order of ``DIGESTS``, from OpenML or scikit-learn's cache of it."""
    try:
        images, labels = fetch_openml(
            "mnist_784", version=1, as_frame=False, parser="liac-arff", return_X_y=True
        )
    except OSError as error:
        raise RuntimeError(
            f"MNIST could not be fetched from OpenML ({error}); without a network, put the four "
            "IDX files into a "
            "folder and name it by the argument directory or the environment variable "
            f"{ENVIRONMENT}"
        ) from error
    arrays = np.asarray(images, np.uint8).reshape(-1, 28, 28), np.asarray(labels).astype(np.uint8)
    return [
        part for first in (0, NUM_TRAIN) for part in (a[first : first + NUM_TRAIN] for a in arrays)
    ]


def read_mnist(directory: str | None) -> tuple[Tensor, Tensor]:
    """All 70,000 images (n, 1, 28, 28) in [-1, 1], training set first, and their digits (n,).

    Raises ``ValueError`` if the content is not that of MNIST.
    """
    folder = find_directory(directory)
    arrays = (
        [read_idx(_find(folder, name) or folder / name) for name in DIGESTS]
        if folder
        else read_openml()
    )
    for (name, digest), array in zip(DIGESTS.items(), arrays, strict=True):
        found = hashlib.sha256(array.tobytes()).hexdigest()
        if found != digest:
            raise ValueError(
                f"{name} must have SHA-256 {digest} after its header, got {found}: damaged, or "
                "not MNIST"
            )
    images, labels = (torch.from_numpy(np.concatenate(arrays[part::2])) for part in (0, 1))
    return images.unsqueeze(1).float().div_(127.5).sub_(1), labels.long()


class MNIST(DataModule):
    """Images (1, 28, 28) in [-1, 1], labels 0 to 9.

    Args:
        directory: folder of the IDX files. None: the folder that ``LATENT_EBM_DATA`` names, or
            its subfolder ``mnist``; without this variable OpenML, cached by scikit-learn.
        batch_size: rows of a batch.
        heldout: a digit that is left out of ``train`` and ``val``, or None.
        split: "standard" or "pooled", see the module.
        num_train: number of training images; None: all that are left by ``num_val``.
        num_val: number of training images that are kept for validation.
        seed: seed of the split.
    """

    def __init__(
        self,
        directory: str | None = None,
        batch_size: int = 100,
        heldout: int | None = None,
        split: str = "standard",
        num_train: int | None = None,
        num_val: int = 5000,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        if heldout is not None and (isinstance(heldout, bool) or heldout not in range(10)):
            raise ValueError(f"heldout must be a digit 0 to 9 or None, got {heldout!r}")
        if split not in ("standard", "pooled"):
            raise ValueError(f"split must be standard or pooled, got {split!r}")
        check_counts(self, num_val=num_val)
        if num_train is not None:
            check_counts(self, num_train=num_train)
        self.directory, self.heldout, self.split = directory, heldout, split
        self.num_train, self.num_val = num_train, num_val

    def load(self) -> tuple[Pair, Pair, Pair]:
        x, label = read_mnist(self.directory)
        train, val, test = self.split_indices(label)
        return (x[train], label[train]), (x[val], label[val]), (x[test], label[test])

    def split_indices(self, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Disjoint positions of the training, validation and test images among all images with
        ``label`` (70000,).
        """
        generator = make_generator(self.seed)
        everything = torch.arange(len(label))
        candidates = everything if self.split == "pooled" else everything[:NUM_TRAIN]
        normals = candidates[label[candidates] != (-1 if self.heldout is None else self.heldout)]
        normals = normals[torch.randperm(len(normals), generator=generator)]
        if self.split == "pooled":
            num_test = round(TEST_FRACTION * len(normals))
            heldout = (
                everything[self.anomaly(label)] if self.heldout is not None else everything[:0]
            )
            test, normals = (
                torch.cat([normals[:num_test], heldout]).sort().values,
                normals[num_test:],
            )
        else:
            test = everything[NUM_TRAIN:]
        num_train = len(normals) - self.num_val if self.num_train is None else self.num_train
        if not 1 <= num_train <= len(normals) - self.num_val:
            raise ValueError(
                f"num_train + num_val must be at most the {len(normals)} training normals, and "
                "num_train at least 1, "
                f"got {num_train} + {self.num_val}"
            )
        return normals[self.num_val :][:num_train], normals[: self.num_val], test

    def anomaly(self, label: Tensor) -> Tensor:
        """Whether each ``label`` (n,) is the held-out digit, (n,) bool."""
        if self.heldout is None:
            raise ValueError("heldout must be a digit for an image to be an anomaly, got None")
        return label == self.heldout
