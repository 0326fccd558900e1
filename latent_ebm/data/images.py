"""Colour images in files: folders of them, or CIFAR-10 packed into one file of JPEGs.

A folder holds ``train/CLASS/*`` and ``test/CLASS/*``, or ``CLASS/*``, or only images; the last two
are split at random. Images outside the folder of a class have the label -1, and classes are
numbered in alphabetical order. A packed file is an ``.npz`` with the bytes of all JPEGs end to end
(``jpg_train``), the n + 1 offsets between them (``off_train``), the labels (``y_train``), and the
same for ``test``. JPEG changes the pixels, so that results on such a file are of "CIFAR-10 (jpeg)"
and not of CIFAR-10. Only images that are needed are decoded.
"""

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latent_ebm.data.base import DataModule, Pair, make_generator
from latent_ebm.files import images as pictures
from latent_ebm.files.arrays import array_names, load_array
from latent_ebm.files.images import Encoded
from latent_ebm.files.limits import MAX_ENTRIES
from samplers.checks import check_counts

ENVIRONMENT = "LATENT_EBM_DATA"
PACKED = "cifar10_jpgbytes_60k.npz"
PARTS = ("train", "test")
TEST_FRACTION = 0.2  # of a folder without parts
VAL_FRACTION, MAX_VAL = 0.1, 500  # of the training images
MAX_BYTES = 2**30  # of packed JPEGs


def find_images(path: str | None) -> Path:
    """``path``, else the packed file in the folder that ``LATENT_EBM_DATA`` names or in its
    ``cifar10``.

    Raises ``FileNotFoundError`` if that is neither an ``.npz`` file nor a folder with images.
    """
    named = Path(path or os.environ.get(ENVIRONMENT, "")).expanduser()
    places = [named] if path else [named / PACKED, named / "cifar10" / PACKED, named]
    for place in places if named != Path() else []:
        packed = place.suffix == ".npz" and place.is_file()
        if packed or has_parts(place) or (path and place.is_dir() and pictures.find_images(place)):
            return place
    rule = "path must name an .npz of packed JPEGs or a folder with images"
    other = "" if path else f", or the environment variable {ENVIRONMENT} a folder with {PACKED}"
    raise FileNotFoundError(f"{rule}{other}, got {str(named)!r}")


def has_parts(source: Path) -> bool:
    """Whether ``source`` separates images for training from images for testing."""
    return source.suffix == ".npz" or all((source / part).is_dir() for part in PARTS)


def list_images(source: Path, part: str) -> tuple[list[Encoded], Tensor]:
    """The encoded images of ``part`` (train or test) and their labels (n,). A folder without parts
    gives all its images.
    """
    if source.suffix == ".npz":
        return _list_packed(source, part)
    roots = [source / name for name in PARTS] if has_parts(source) else [source]
    classes = sorted(
        {folder.name for root in roots for folder in root.iterdir() if folder.is_dir()}
    )
    root = source / part if has_parts(source) else source
    paths = pictures.find_images(root)
    names = [path.relative_to(root).parts for path in paths]
    label = [classes.index(name[0]) if len(name) > 1 else -1 for name in names]
    return list(paths), torch.tensor(label, dtype=torch.int64)


def _list_packed(source: Path, part: str) -> tuple[list[Encoded], Tensor]:
    known = array_names(source) or []
    missing = [name for stem in ("jpg", "off", "y") if (name := f"{stem}_{part}") not in known]
    if missing:
        raise ValueError(
            f"{source} must hold the arrays jpg, off and y of {part}, got no {', '.join(missing)}"
        )
    content, offsets, label = (
        load_array(source, f"{stem}_{part}", MAX_BYTES) for stem in ("jpg", "off", "y")
    )
    if offsets.dtype.kind not in "iu" or label.dtype.kind not in "iu" or content.dtype != np.uint8:
        types = f"{content.dtype}, {offsets.dtype} and {label.dtype}"
        raise ValueError(
            f"jpg, off and y of {source} must be bytes, integers and integers, got {types}"
        )
    if len(offsets) != len(label) + 1 or offsets[-1] != len(content):
        raise ValueError(
            f"off_{part} of {source} must be {len(label) + 1} offsets that end at {len(content)}, "
            f"got {len(offsets)} that end at {offsets[-1]}"
        )
    return [content[a:b].tobytes() for a, b in pairwise(offsets)], torch.from_numpy(label).long()


def decode(
    images: Sequence[Encoded], size: int | None = None, max_entries: int = MAX_ENTRIES
) -> Tensor:
    """Images (n, 3, H, W) in [-1, 1]; see ``latent_ebm.files.images``. Raises ``ValueError``
    unless all are of one size.
    """
    headers = [
        pictures.read_header(image, pictures.called(image, i)) for i, image in enumerate(images)
    ]
    x = torch.from_numpy(pictures.decode(images, headers, True, size, max_entries))
    return x.float().div_(127.5).sub_(1)


class Images(DataModule):
    """Images (3, H, W) in [-1, 1] and the number of their class.

    Of a folder without ``train`` and ``test``, a fifth is for testing.

    Args:
        path: the folder or packed file. None: found by ``LATENT_EBM_DATA``, see ``find_images``.
        batch_size: rows of a batch.
        classes: numbers of the classes to keep in all parts; None: all.
        num_train: number of training images; None: all that are left by ``num_val``.
        num_val: number of training images that are kept for validation; None: a tenth, at most
            500.
        seed: seed of the random order of training images.
        size: side in pixels to which every image is resized, see ``latent_ebm.files.images``.
        max_entries: largest number of pixel values that are decoded at once.
    """

    def __init__(
        self,
        path: str | None = None,
        batch_size: int = 100,
        classes: Sequence[int] | None = None,
        num_train: int | None = None,
        num_val: int | None = None,
        seed: int = 0,
        size: int | None = None,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        super().__init__(batch_size, seed)
        given = {"num_val": num_val, "num_train": num_train, "size": size}
        check_counts(
            self,
            **{name: value for name, value in given.items() if value is not None},
            max_entries=max_entries,
        )
        self.path, self.classes, self.num_train, self.num_val = path, classes, num_train, num_val
        self.size, self.max_entries = size, max_entries

    @property
    def files(self) -> list[Path]:
        return [] if self.path is None else [Path(self.path).expanduser()]

    def load(self) -> tuple[Pair, Pair, Pair]:
        source = find_images(self.path)
        images, label = list_images(source, "train")
        index = self._pick(label)
        index = index[torch.randperm(len(index), generator=make_generator(self.seed))]
        if has_parts(source):
            test_images, test_label = list_images(source, "test")
            test = self._pick(test_label)
        else:
            test_images, test_label = images, label
            test, index = index.tensor_split([round(TEST_FRACTION * len(index))])
        val, train = self._split(index)
        parts = [(train, images, label), (val, images, label), (test, test_images, test_label)]
        trained, validated, tested = (
            (
                decode([images[i] for i in index.tolist()], self.size, self.max_entries),
                label[index],
            )
            for index, images, label in parts
        )
        return trained, validated, tested

    def _split(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The training images at ``index``, split into those for validation and for training."""
        num_val = (
            min(MAX_VAL, max(1, round(VAL_FRACTION * len(index))))
            if self.num_val is None
            else self.num_val
        )
        num_train = len(index) - num_val if self.num_train is None else self.num_train
        if not 1 <= num_train <= len(index) - num_val:
            raise ValueError(
                f"num_train + num_val must be at most the {len(index)} training images, and "
                "num_train at least 1, "
                f"got {num_train} + {num_val}"
            )
        return index[:num_val], index[num_val:][:num_train]

    def _pick(self, label: Tensor) -> Tensor:
        """Positions (k,) of the images of the chosen classes."""
        if self.classes is None:
            return torch.arange(len(label))
        absent = set(self.classes) - set(label.tolist())
        if absent or not self.classes:
            raise ValueError(
                f"classes must be some of {sorted(set(label.tolist()))}, got {list(self.classes)}"
            )
        return torch.isin(label, torch.tensor(list(self.classes))).nonzero().flatten()
