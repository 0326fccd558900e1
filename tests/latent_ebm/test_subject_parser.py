"""The parser of portraits reads what was drawn, and its scores are those of a plain loop."""

import pytest
import torch
from torch import Tensor

from latent_ebm.data import Portrait, Studio, SubjectParser, draw_shapes
from latent_ebm.data.base import make_generator
from latent_ebm.data.glyphs import compose
from latent_ebm.data.portrait import POSES
from latent_ebm.data.scene import PALETTE, backdrop

GLYPHS = draw_shapes(64).take(range(0, 192, 3))
STUDIO, TEXTURED = Studio(GLYPHS), Studio(GLYPHS, textured=0.7)
PARSER = SubjectParser(STUDIO)
ARROWS = [i for i, base in enumerate(GLYPHS.base) if "arrow" in base]


def drawn(num: int, studio: Studio = STUDIO) -> list[Portrait]:
    return [studio.draw(make_generator(1, i), i % len(GLYPHS)) for i in range(num)]


def pictures(portraits: list[Portrait], studio: Studio = STUDIO) -> Tensor:
    """As they come back from a PNG file."""
    x = torch.stack([studio.render(portrait) for portrait in portraits])
    return ((x + 1) * 127.5).round() / 127.5 - 1


def is_right(found: Portrait | None, portrait: Portrait) -> bool:
    """Glyphs that look the same when they are turned count as the same."""
    if found is None:
        return False
    looks = [int(STUDIO.looks[p.glyph, p.pose]) for p in (found, portrait)]
    return looks[0] == looks[1] and found[2:] == portrait[2:]


def ncc(box: Tensor, template: Tensor) -> float:
    """The correlation of two pictures (3, H, W), the mean of every colour taken away."""
    box, template = (v.double() - v.double().mean((1, 2), keepdim=True) for v in (box, template))
    return float((box * template).sum() / (box.norm() * template.norm()))


@pytest.mark.parametrize("studio", [STUDIO, TEXTURED])
def test_clean_portraits_are_read_exactly(studio: Studio) -> None:
    portraits = drawn(160, studio)
    found = SubjectParser(studio)(pictures(portraits, studio))
    wrong = [pair for pair in zip(portraits, found, strict=True) if not is_right(pair[1], pair[0])]
    assert len(wrong) <= 1, wrong


def test_noisy_portraits_are_still_read() -> None:
    portraits = drawn(40)
    x = pictures(portraits)
    found = PARSER(x + 0.05 * torch.randn(x.shape, generator=make_generator(2)))
    read = [
        f.glyph == p.glyph and f[2:] == p[2:] for f, p in zip(found, portraits, strict=True) if f
    ]
    assert sum(read) >= 38


def test_a_background_alone_holds_no_subject() -> None:
    x = 2 * torch.stack([backdrop(b, t, 32) for b in range(len(PALETTE)) for t in range(4)]) - 1
    assert SubjectParser(TEXTURED)(x) == [None] * 32
    assert (SubjectParser(TEXTURED).correlations(x) == 0).all()


def test_correlations_are_those_of_a_plain_loop() -> None:
    """Over all places, on textured backgrounds, for pictures that show something else."""
    few = Studio(GLYPHS.take([0, 11, 45]), side=16, size=10, textured=1.0)
    shown = Studio(GLYPHS.take([20, 33, 50]), side=16, size=12, textured=1.0)
    portraits = [shown.draw(make_generator(4, i), i) for i in range(3)]
    x = torch.stack([shown.render(portrait) for portrait in portraits])
    found = SubjectParser(few).correlations(x)
    for row, p in enumerate(portraits):
        ground = backdrop(p.background, p.texture, 16)
        for glyph in range(3):
            for pose in range(len(POSES)):
                scores = []
                for top in range(7):
                    for left in range(7):
                        rows, columns = slice(top, top + 10), slice(left, left + 10)
                        behind = ground[:, rows, columns]
                        box = (x[row, :, rows, columns] + 1) / 2
                        template = compose(few.pictures[glyph, pose], behind)
                        scores.append(ncc(box - behind, template - behind))
                assert float(found[row, glyph, pose]) == pytest.approx(max(scores), abs=1e-4)


def test_correlations_tell_identity_and_pose() -> None:
    portraits = [p for p in drawn(128) if p.glyph in ARROWS]
    scores = PARSER.correlations(pictures(portraits))
    rows, glyphs = range(len(portraits)), [p.glyph for p in portraits]
    poses = torch.tensor([p.pose for p in portraits])
    own = scores[rows, glyphs]
    assert torch.allclose(own[rows, poses], torch.ones(len(rows)), atol=1e-3)
    assert torch.equal(own.argmax(1), poses)
    assert bool((own[rows, (poses + 1) % 4] < 0.95).all())
    assert torch.equal(scores.amax(2).argmax(1), torch.tensor(glyphs))


def test_correlations_do_not_depend_on_brightness_of_the_subject() -> None:
    """Half of the contrast is the same correlation, but too little to be read."""
    portrait = Portrait(ARROWS[0], 1, 4, 9, 0)
    x, white = STUDIO.render(portrait)[None], torch.ones(1, 3, 32, 32)
    faint = white + 0.2 * (x - white)
    best = PARSER.correlations(faint)[0, portrait.glyph, portrait.pose]
    assert float(best) == pytest.approx(1.0, abs=1e-3)
    assert PARSER(faint) == [None]


def test_references_are_read_too() -> None:
    portraits = [p for p in drawn(128) if p.glyph in ARROWS]
    found = PARSER(torch.stack([STUDIO.reference(p) for p in portraits]))
    assert found == [Portrait(p.glyph, p.pose, 6, 6, 0) for p in portraits]


def test_what_is_no_picture_is_not_read() -> None:
    for read in (PARSER, PARSER.correlations):
        with pytest.raises(ValueError, match=r"x must have shape \(n, 3, 32, 32\), got \(1, 3, 8"):
            read(torch.zeros(1, 3, 8, 8))
        with pytest.raises(FloatingPointError, match="x must be finite: 1 of 1 are not"):
            read(torch.full((1, 3, 32, 32), torch.nan))
        with pytest.raises(ValueError, match="x must be floating-point pictures"):
            read(torch.zeros(1, 3, 32, 32).byte())
        with pytest.raises(ValueError, match="x must be a Tensor"):
            read("x")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"min_score must be in \(0, 1\], got 0"):
        SubjectParser(STUDIO, min_score=0)
    with pytest.raises(ValueError, match="studio must be a Studio"):
        SubjectParser(GLYPHS)  # pyright: ignore[reportArgumentType]
