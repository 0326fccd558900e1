"""What tests of the experiment on curation share: drawn shapes in place of emoji, a folder of
their own, and people with random pictures.
"""

from functools import cache
from pathlib import Path

import pytest
import torch

from experiments import common, training
from experiments.imagen import balance, corpora
from experiments.text_to_image.judging import Gallery
from latent_ebm.data import Emoji
from latent_ebm.data.glyphs import Glyphs


@cache
def shapes(side: int) -> Emoji:
    return Emoji("shapes", side=side, num_val=8)


def stage(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the experiment read shapes, and keep its files in ``folder``."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(corpora, "emoji", shapes)
    monkeypatch.setattr(common, "OUTPUTS", folder / "outputs")
    monkeypatch.setattr(training, "OUTPUTS", folder / "outputs")
    monkeypatch.setattr(common, "RESULTS", folder / "results")


def people() -> Gallery:
    """Random pictures of three bases in all cells."""
    cells = [
        (base, gender, tone)
        for base in ("judge", "pilot", "cook")
        for gender in balance.GENDERS
        for tone in balance.TONES
    ]
    base, gender, tone = zip(*cells, strict=True)
    names = [" ".join(filter(None, cell)) for cell in cells]
    generator, blank = torch.Generator().manual_seed(0), [""] * len(cells)
    glyphs = Glyphs(
        torch.rand(len(cells), 4, 8, 8, generator=generator),
        names,
        [("work",)] * len(cells),
        blank,
        blank,
        tone,
        gender,
        base,
        names,
        blank,
    )
    gallery = Gallery.__new__(Gallery)
    gallery.glyphs, gallery.x = glyphs, glyphs.on(torch.ones(3))
    gallery.art = glyphs.art
    return gallery
