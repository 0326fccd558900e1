"""Drawn shapes in colours: glyphs that need no file and no font.

Twelve shapes, filled or hollow, in eight colours: 192 glyphs such as "red circle" and "hollow blue
star". A shape is a polygon in the unit square, drawn four times too large and averaged. Its base
is the shape, filled or hollow; its tone is the colour.
"""

from math import cos, pi, sin

from PIL import Image, ImageDraw

from latent_ebm.data.glyphs import Glyphs, as_images, check_side, to_side

STYLE = "drawn"
OVERSAMPLING = 4
COLOURS = {
    "red": (222, 45, 38),
    "orange": (247, 140, 30),
    "yellow": (250, 214, 40),
    "green": (49, 163, 84),
    "blue": (49, 110, 220),
    "purple": (128, 62, 160),
    "brown": (140, 86, 50),
    "grey": (120, 124, 130),
}
Polygon = list[tuple[float, float]]


def polygon(corners: int, turn: float = -0.25, inner: float = 1.0) -> Polygon:
    """A regular polygon, its first corner at ``turn`` of a circle; a star if every other corner is
    at ``inner`` of the radius.
    """
    num = corners if inner == 1 else 2 * corners
    angles = [2 * pi * (turn + k / num) for k in range(num)]
    radii = [0.5 * (inner if k % 2 else 1.0) for k in range(num)]
    return [(0.5 + r * cos(a), 0.5 + r * sin(a)) for r, a in zip(radii, angles, strict=True)]


def heart() -> Polygon:
    """The curve x = 16 sin(a)^3, y = 13 cos(a) - 5 cos(2a) - 2 cos(3a) - cos(4a)."""
    angles = [2 * pi * k / 60 for k in range(60)]
    heights = [13 * cos(a) - 5 * cos(2 * a) - 2 * cos(3 * a) - cos(4 * a) for a in angles]
    return [(0.5 + sin(a) ** 3 / 2, 0.46 - h / 32) for a, h in zip(angles, heights, strict=True)]


def moon() -> Polygon:
    """A half circle whose straight side is pushed in."""
    outer = [2 * pi * (0.25 + k / 60) for k in range(31)]
    curve = [(0.7 + 0.5 * cos(a), 0.5 + 0.5 * sin(a)) for a in outer]
    return curve + [(0.7 + 0.25 * cos(a), 0.5 + 0.5 * sin(a)) for a in reversed(outer)]


def arrow() -> Polygon:
    return [(0, 0.35), (0.5, 0.35), (0.5, 0.1), (1, 0.5), (0.5, 0.9), (0.5, 0.65), (0, 0.65)]


def cross() -> Polygon:
    low, high = 0.33, 0.67
    turns = [(low, 0), (high, 0), (high, low), (1, low), (1, high), (high, high)]
    return [*turns, (high, 1), (low, 1), (low, high), (0, high), (0, low), (low, low)]


SHAPES: dict[str, tuple[str, tuple[str, ...], Polygon]] = {  # group, keywords, corners
    "circle": ("round", ("ball", "disc"), polygon(60)),
    "heart": ("round", ("love",), heart()),
    "moon": ("round", ("crescent", "night"), moon()),
    "triangle": ("angular", ("three sides",), polygon(3)),
    "square": ("angular", ("box", "four sides"), polygon(4, 0.125)),
    "diamond": ("angular", ("rhombus", "four sides"), polygon(4)),
    "pentagon": ("angular", ("five sides",), polygon(5)),
    "hexagon": ("angular", ("six sides",), polygon(6)),
    "star": ("pointed", ("night", "five points"), polygon(5, inner=0.45)),
    "sparkle": ("pointed", ("four points",), polygon(4, inner=0.35)),
    "cross": ("pointed", ("plus",), cross()),
    "arrow": ("pointed", ("right",), arrow()),
}


def draw_shapes(side: int = 64) -> Glyphs:
    """All 192 drawn shapes at ``side`` x ``side`` pixels. Raises ``ValueError`` for a side outside
    4 to 256.
    """
    check_side("draw_shapes", side)
    cells = [(s, c, hollow) for s in SHAPES for hollow in (False, True) for c in COLOURS]
    bases = [f"hollow {shape}" if hollow else shape for shape, _, hollow in cells]
    words = [SHAPES[shape][1] for shape, _, _ in cells]
    return Glyphs(
        as_images([draw(SHAPES[s][2], COLOURS[c], hollow, side) for s, c, hollow in cells]),
        names=[f"{'hollow ' * hollow}{colour} {shape}" for shape, colour, hollow in cells],
        keywords=[
            (colour, "outline" if hollow else "solid", *more)
            for (_, colour, hollow), more in zip(cells, words, strict=True)
        ],
        group=[SHAPES[shape][0] for shape, _, _ in cells],
        subgroup=[f"{SHAPES[shape][0]}-{shape}" for shape, _, _ in cells],
        tone=[colour for _, colour, _ in cells],
        gender=[""] * len(cells),
        base=bases,
        hexcode=[
            f"{base} {c}".replace(" ", "-") for base, (_, c, _) in zip(bases, cells, strict=True)
        ],
        style=[STYLE] * len(cells),
    )


def draw(corners: Polygon, colour: tuple[int, int, int], hollow: bool, side: int) -> Image.Image:
    """One shape with a margin of a sixteenth; a hollow one has a line of a seventh of the side."""
    large = OVERSAMPLING * side
    scale, margin = large * 7 / 8, large / 16
    points = [(margin + scale * x, margin + scale * y) for x, y in corners]
    mask = Image.new("L", (large, large))
    ImageDraw.Draw(mask).polygon(points, fill=255)
    if hollow:
        centre = [sum(axis) / len(points) for axis in zip(*points, strict=True)]
        inner = [tuple(m + 0.55 * (p - m) for p, m in zip(q, centre, strict=True)) for q in points]
        ImageDraw.Draw(mask).polygon([(x, y) for x, y in inner], fill=0)
    picture = Image.new("RGBA", (large, large), (*colour, 0))
    picture.putalpha(mask)
    return to_side(picture, side)
