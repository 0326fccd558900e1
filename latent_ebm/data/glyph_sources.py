"""The three sources of glyphs by name: a pack of files, an installed colour font, drawn shapes."""

from collections.abc import Sequence
from pathlib import Path

from latent_ebm.data.emoji_font import draw_font, find_font
from latent_ebm.data.emoji_pack import find_pack, read_pack
from latent_ebm.data.glyphs import Glyphs
from latent_ebm.data.shapes import draw_shapes

SOURCES = ("pack", "font", "shapes")


def check_source(source: str, path: str | None) -> None:
    """Raise ``ValueError`` unless ``source`` is "pack", "font" or "shapes"; shapes, which are
    built in, have no ``path``.
    """
    if source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")
    if source == "shapes" and path is not None:
        raise ValueError(f"path must be left out for the built-in shapes, got {path!r}")


def read_glyphs(source: str, path: str | None, styles: Sequence[str], side: int) -> Glyphs:
    """The glyphs of a source; ``styles`` are those of a pack."""
    if source == "pack":
        return read_pack(path, styles, side)
    return draw_font(path, side) if source == "font" else draw_shapes(side)


def find_source(source: str, path: str | None) -> list[Path]:
    """The folder or file that a source reads, if it reads one."""
    if source == "shapes":
        return []
    return [find_pack(path) if source == "pack" else Path(find_font(path))]
