"""Rows of a set that is curated, and what a filter is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latent_ebm.files.images import called, read_header, read_pixels
from samplers.checks import check_kind


@dataclass(frozen=True, eq=False)
class Row:
    """An image and its caption.

    Args:
        name: What the row is called; no other row has this name.
        caption: The caption.
        source: The image (3, H, W) in [-1, 1], or its file, which is read when it is needed.

    Raises:
        ValueError: If the name or the caption is no text, or the source is something else.
    """

    name: str
    caption: str
    source: Tensor | Path

    def __post_init__(self) -> None:
        check_kind(self, str, name=self.name, caption=self.caption)
        if not isinstance(self.source, Path):
            check_kind(self, Tensor, source=self.source)

    @cached_property
    def image(self) -> Tensor:
        """The image (3, H, W) in [-1, 1].

        Raises ``ValueError`` if the file holds no image, or the tensor has another shape or is
        not finite.
        """
        if isinstance(self.source, Path):
            name = called(self.source, 0)
            read_header(self.source, name)
            pixels = np.array(read_pixels(self.source, name, True, None), order="C")
            return torch.from_numpy(pixels).float().div_(127.5).sub_(1)
        if self.source.ndim != 3 or len(self.source) != 3 or not self.source.numel():
            shape = tuple(self.source.shape)
            raise ValueError(f"the image of {self.name!r} must be (3, H, W), got {shape}")
        if not self.source.is_floating_point() or not bool(self.source.isfinite().all()):
            raise ValueError(f"the image of {self.name!r} must be finite floating numbers")
        return self.source

    def with_caption(self, caption: str) -> "Row":
        """This row with another caption. The image is not read again."""
        return replace(self, caption=caption, source=self.image)

    @property
    def stamp(self) -> str:
        """A digest of name, caption and image. For a file, its size and time of change stand for
        the image, so that a run that goes on need not read it again.
        """
        if isinstance(self.source, Path):
            status = self.source.stat()
            content = f"{status.st_size} {status.st_mtime_ns}".encode()
        else:
            content = pixel_bytes(self.source)
        parts = (self.name.encode(), self.caption.encode(), content)
        digests = b"".join(blake2b(part, digest_size=16).digest() for part in parts)
        return blake2b(digests, digest_size=16).hexdigest()


class Filter(ABC):
    """Decides for each row whether it goes on to the next filter."""

    @abstractmethod
    def __call__(self, rows: Sequence[Row]) -> list[Row | str]:
        """For each of ``rows``, the row that goes on, which may have another caption, or the
        reason for which it is dropped. A reason must not repeat what it hides, such as an address.
        """


def pixel_bytes(image: Tensor) -> bytes:
    """The shape of ``image`` in [-1, 1], and its values, rounded to 8 bits."""
    pixels = image.detach().add(1).mul(127.5).round().clamp(0, 255).byte().cpu().contiguous()
    return str(tuple(image.shape)).encode() + pixels.numpy().tobytes()


def drop_where(rows: Sequence[Row], reasons: Sequence[str]) -> list[Row | str]:
    """Each row whose reason is empty, else the reason."""
    return [reason or row for row, reason in zip(rows, reasons, strict=True)]
