"""Noisy, synthetic and mixed captions, tested on short and long prompts."""

from collections.abc import Sequence
from typing import Any

import torch

from experiments.imagen.corpora import long_caption
from experiments.text_to_image.judging import Draw, Gallery, draw_all, names, share


def judge(draw: Draw, gallery: Gallery, device: torch.device) -> dict[str, Any]:
    """Shares of pictures whose nearest glyph is right, for names and for long prompts, and how
    well compositions are drawn that were held out.
    """
    found, rows = names(draw, gallery, device), gallery.rows()
    for part in ("other", "people"):
        prompts = [long_caption(gallery.glyphs, i, i % 5) for i in rows[part].tolist()]
        found[f"{part} R@1, long"] = retrieved(draw, prompts, rows[part], gallery, device)
    both = torch.cat([rows["other"], rows["people"]])
    for label in ("", ", long"):
        parts = [found[f"{part} R@1{label}"] * len(rows[part]) for part in ("other", "people")]
        found[f"R@1{label}"] = sum(parts) / len(both)
    return found


def retrieved(
    draw: Draw, prompts: Sequence[str], rows: torch.Tensor, gallery: Gallery, device: torch.device
) -> float:
    """The share of ``prompts`` whose pictures are nearest to the glyphs at ``rows``."""
    top, _ = gallery.nearest(draw_all(draw, prompts, device))
    return share(gallery.art[top[:, 0]] == gallery.art[rows])
