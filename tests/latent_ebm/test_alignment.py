"""Alignment of masks: known similarities are recovered, equal masks stay where they are."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from latent_ebm.data import Studio, draw_shapes
from latent_ebm.data.base import make_generator
from latent_ebm.guidance import Similarity, align
from latent_ebm.guidance.alignment import fit, points_of

CENTRE = complex(31.5, 31.5)


def flag(pixels: Tensor) -> Tensor:
    """Whether points (..., 2) of the plane lie in a flag on a pole, which has no symmetry."""
    x, y = pixels[..., 0], pixels[..., 1]
    pole = (x.abs() < 0.08) & (y.abs() < 0.9)
    cloth = (x > 0) & (x < 0.7) & (y > -0.9) & (y < -0.2 - 0.4 * x)
    return pole | cloth | ((x + 0.3).square() + (y - 0.7).square() < 0.04)


def mask_of(similarity: Similarity, size: float = 18.0, side: int = 64) -> Tensor:
    """The flag at the centre, moved by a similarity, as a mask of 0 and 1."""
    y, x = np.mgrid[:side, :side]
    there = ((x + 1j * y - similarity.shift) / similarity.turn - CENTRE) / size
    points = torch.from_numpy(np.stack([there.real, there.imag], -1))
    return flag(points).float()[None, None]


def about_centre(scale: float, degrees: float, move: complex = 0) -> Similarity:
    """Scale and rotate about the centre of the picture, and then shift."""
    turn = scale * complex(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    return Similarity(turn, CENTRE - turn * CENTRE + move)


SOURCE = mask_of(about_centre(1, 0))
CASES = [(1.0, 0, 6 - 4j), (1.0, 90, 0j), (1.0, 180, 3 + 3j), (0.7, 30, 0j), (1.5, -75, 0j),
         (1.3, 135, -2 + 1j), (0.8, -160, 5j)]  # fmt: skip


@pytest.mark.parametrize(("scale", "degrees", "move"), CASES)
def test_known_similarities_are_recovered(scale: float, degrees: float, move: complex) -> None:
    """Within 4 % of the scale, 2 degrees, and 0.6 pixels at the centre."""
    known = about_centre(scale, degrees, move)
    found = align(SOURCE, mask_of(known))
    assert found.scale == pytest.approx(scale, rel=0.04)
    off = math.degrees(np.angle(found.turn / known.turn))
    assert abs(off) < 2
    centre = np.array([CENTRE])
    assert abs(found(centre) - known(centre))[0] < 0.6


def test_equal_masks_stay_where_they_are() -> None:
    """Also if other rotations would do as well."""
    y, x = np.mgrid[:32, :32]
    disc = torch.from_numpy((x - 12) ** 2 + (y - 20) ** 2 < 50).float()[None, None]
    for mask in (SOURCE, disc):
        found = align(mask, mask)
        assert found.turn == pytest.approx(1, abs=1e-12)
        assert found.shift == pytest.approx(0, abs=1e-10)
        assert torch.equal(Similarity(1, 0).warp_mask(mask), mask)


def test_a_mirror_image_is_not_reached_by_a_reflection() -> None:
    """The remaining mismatch is large, whereas a rotated mask is laid on almost exactly."""

    def overlap(target: Tensor) -> float:
        laid = align(SOURCE, target).warp_mask(SOURCE)
        return float((laid * target).sum() / (laid + target).clamp(max=1).sum())

    assert overlap(SOURCE.flip(3)) < 0.7
    assert overlap(SOURCE.flip(2)) < 0.7
    assert overlap(SOURCE.rot90(1, (2, 3))) > 0.9


def test_masks_of_any_precision_are_laid() -> None:
    target = SOURCE.roll(3, 3)
    assert align(SOURCE.bfloat16(), target.bfloat16()) == align(SOURCE, target)


def test_alignment_and_its_inverse_agree() -> None:
    target = mask_of(about_centre(1.2, 50, 3j))
    there, back = align(SOURCE, target), align(target, SOURCE)
    assert there.turn * back.turn == pytest.approx(1, abs=0.03)
    points = points_of(SOURCE)
    assert np.abs(back(there(points)) - points).max() < 1


def test_the_fit_of_pairs_is_least_squares() -> None:
    """That of numpy, for the four real unknowns."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=20) + 1j * rng.normal(size=20) for _ in range(2))
    weight = rng.uniform(0.1, 1, 20)
    rows = np.concatenate(
        [
            np.stack([a.real, -a.imag, np.ones(20), np.zeros(20)], 1),
            np.stack([a.imag, a.real, np.zeros(20), np.ones(20)], 1),
        ]
    )
    root = np.sqrt(np.tile(weight, 2))
    u, v, x, y = np.linalg.lstsq(
        root[:, None] * rows, root * np.concatenate([b.real, b.imag]), rcond=None
    )[0]
    found = fit(a, b, weight)
    assert found.turn == pytest.approx(complex(u, v))
    assert found.shift == pytest.approx(complex(x, y))


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_images_are_carried_with_their_masks(k: int) -> None:
    """An exact quarter turn about the centre is that of torch; a shift moves pixels."""
    x = torch.randn(2, 3, 64, 64, generator=make_generator(0))
    turned = about_centre(1, -90 * k).warp(x)
    assert torch.allclose(turned, x.rot90(k, (2, 3)), atol=1e-4)
    mask = about_centre(1, -90 * k).warp_mask(SOURCE)
    assert torch.equal(mask, SOURCE.rot90(k, (2, 3)))
    moved = Similarity(1, complex(k, 2 * k)).warp(x)
    assert torch.allclose(moved[..., 2 * k :, k:], x[..., : 64 - 2 * k, : 64 - k], atol=1e-4)


@pytest.mark.cpu
def test_one_portrait_is_laid_onto_another() -> None:
    """Masks of arrows in 32 pixels, all poses: what is laid on covers the target."""
    studio = Studio(draw_shapes(64))
    arrow = studio.glyphs.names.index("red arrow")
    portraits = [studio.draw(make_generator(i), arrow, pose=i % 4) for i in range(8)]
    masks = [studio.mask(portrait)[None] for portrait in portraits]
    for source, target in zip(masks, masks[3:], strict=False):
        laid = align(source, target).warp_mask(source)
        assert (laid * target).sum() / (laid + target).clamp(max=1).sum() > 0.95


def test_masks_that_show_no_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape \(1, 1, H, W\), got \(1, 1, 64, 64\) and"):
        align(SOURCE, SOURCE[..., :32])
    with pytest.raises(ValueError, match=r"got \(64, 64\) and \(64, 64\)"):
        align(SOURCE[0, 0], SOURCE[0, 0])
    with pytest.raises(ValueError, match="mask must be 1 somewhere in every row"):
        align(SOURCE, 0 * SOURCE)
    with pytest.raises(ValueError, match="mask must be 0 somewhere in every row"):
        align(0 * SOURCE + 1, SOURCE)
    with pytest.raises(ValueError, match="mask must hold 0 and 1 alone"):
        align(SOURCE / 2, SOURCE)
    point = torch.zeros_like(SOURCE)
    point[0, 0, 5, 5] = 1
    with pytest.raises(ValueError, match="at least two pixels of 1"):
        align(point, SOURCE)
    with pytest.raises(ValueError, match="num_starts must be an integer >= 1, got 0"):
        align(SOURCE, SOURCE, num_starts=0)
    with pytest.raises(ValueError, match="source must be a Tensor"):
        align("x", SOURCE)  # pyright: ignore[reportArgumentType]
