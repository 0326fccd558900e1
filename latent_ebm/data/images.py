"""Colour images in files: a folder with a subfolder a class, or CIFAR-10 packed into one file of JPEGs.

A folder holds ``train/CLASS/*`` and ``test/CLASS/*``, and classes are numbered in the order of their names. A packed file is
an ``.npz`` with the bytes of all JPEGs end to end (``jpg_train``), the n + 1 offsets between them (``off_train``), the
labels (``y_train``), and the same for ``test``. JPEG has changed the pixels, so that figures on such a file are of
"CIFAR-10 (jpeg)" and not of CIFAR-10. Only images that are asked for are decoded.
"""

import io
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latent_ebm.data.base import DataModule, Pair, make_generator
from samplers.checks import check_counts

ENVIRONMENT = "LATENT_EBM_DATA"
PACKED = "cifar10_jpgbytes_60k.npz"
PARTS = ("train", "test")

Encoded = Path | bytes  # an image as a file, or as the content of one


def find_images(path: str | None) -> Path:
    """``path``, else the packed file in the folder that ``LATENT_EBM_DATA`` names or in its ``cifar10``.

    Raises ``FileNotFoundError`` if that is neither an ``.npz`` file nor a folder with ``train`` and ``test``.
    """
    named = path or os.environ.get(ENVIRONMENT, "")
    places = [Path(named)] if path else [Path(named) / PACKED, Path(named) / "cifar10" / PACKED]
    for place in places if named else []:
        if (place.suffix == ".npz" and place.is_file()) or all((place / part).is_dir() for part in PARTS):
            return place
    rule = "path must name an .npz of packed JPEGs or a folder with train and test"
    other = "" if path else f", or the environment variable {ENVIRONMENT} a folder with {PACKED}"
    raise FileNotFoundError(f"{rule}{other}, got {named!r}")


def list_images(source: Path, part: str) -> tuple[list[Encoded], Tensor]:
    """The encoded images of ``part`` (train or test) and their labels (n,)."""
    if source.suffix == ".npz":
        return _list_packed(source, part)
    classes = sorted(folder for folder in (source / part).iterdir() if folder.is_dir())
    files = [(path, label) for label, folder in enumerate(classes) for path in sorted(folder.iterdir())]
    return [path for path, _ in files], torch.tensor([label for _, label in files], dtype=torch.int64)


def _list_packed(source: Path, part: str) -> tuple[list[Encoded], Tensor]:
    with np.load(source, allow_pickle=False) as data:
        missing = [name for stem in ("jpg", "off", "y") if (name := f"{stem}_{part}") not in data]
        if missing:
            raise ValueError(f"{source} must hold the arrays jpg, off and y of {part}, got no {', '.join(missing)}")
        content, offsets, label = (data[f"{stem}_{part}"] for stem in ("jpg", "off", "y"))
    if len(offsets) != len(label) + 1 or offsets[-1] != len(content):
        raise ValueError(
            f"off_{part} of {source} must be {len(label) + 1} offsets that end at {len(content)}, "
            f"got {len(offsets)} that end at {offsets[-1]}"
        )
    return [content[a:b].tobytes() for a, b in pairwise(offsets)], torch.from_numpy(label).long()


def decode(images: Sequence[Encoded]) -> Tensor:
    """Images (n, 3, H, W) in [-1, 1]. Raises ``ValueError`` unless all are of one size."""
    from PIL import Image

    arrays = []
    for encoded in images:
        with Image.open(encoded if isinstance(encoded, Path) else io.BytesIO(encoded)) as image:
            arrays.append(np.asarray(image.convert("RGB")))
    shapes = {array.shape[:2] for array in arrays}
    if len(shapes) != 1:
        raise ValueError(f"images must be of one size, got {', '.join(map(str, sorted(shapes))) or 'none'}")
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


class Images(DataModule):
    """Images (3, H, W) in [-1, 1] and the number of their class.

    Arguments: ``path`` of the folder or packed file (else the environment variable ``LATENT_EBM_DATA``, see
    ``find_images``); ``classes`` to keep, in all parts, all by default; of the training images, in an order drawn by
    ``seed``, ``num_val`` validate and ``num_train`` of the others train, all by default.
    """

    def __init__(
        self,
        path: str | None = None,
        batch_size: int = 100,
        classes: Sequence[int] | None = None,
        num_train: int | None = None,
        num_val: int = 500,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        check_counts(self, num_val=num_val)
        if num_train is not None:
            check_counts(self, num_train=num_train)
        self.path, self.classes, self.num_train, self.num_val = path, classes, num_train, num_val

    def load(self) -> tuple[Pair, Pair, Pair]:
        source = find_images(self.path)
        images, label = list_images(source, "train")
        index = self._pick(label)
        index = index[torch.randperm(len(index), generator=make_generator(self.seed))]
        num_train = len(index) - self.num_val if self.num_train is None else self.num_train
        if not 1 <= num_train <= len(index) - self.num_val:
            raise ValueError(
                f"num_train + num_val must be at most the {len(index)} training images, and num_train at least 1, "
                f"got {num_train} + {self.num_val}"
            )
        parts = [(index[self.num_val :][:num_train], images, label), (index[: self.num_val], images, label)]
        images, label = list_images(source, "test")
        parts.append((self._pick(label), images, label))
        train, val, test = (
            (decode([images[i] for i in index.tolist()]), label[index]) for index, images, label in parts
        )
        return train, val, test

    def _pick(self, label: Tensor) -> Tensor:
        """Positions (k,) of the images of the chosen classes."""
        if self.classes is None:
            return torch.arange(len(label))
        absent = set(self.classes) - set(label.tolist())
        if absent or not self.classes:
            raise ValueError(f"classes must be some of {sorted(set(label.tolist()))}, got {list(self.classes)}")
        return torch.isin(label, torch.tensor(list(self.classes))).nonzero().flatten()
