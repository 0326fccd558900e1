"""Emoji drawn from an installed colour font, such as Noto Color Emoji.

Pillow draws the font's own pictures, which are bitmaps of one size. Names are those of Unicode, as
Python knows them; people are also drawn in the five skin tones where the font has them (Pillow
needs raqm for that). The groups are ranges of code points.
"""

import os
import unicodedata
from collections.abc import Iterator, Mapping

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from latent_ebm.data.emoji_pack import Row, glyphs_of
from latent_ebm.data.glyphs import Glyphs, check_side, to_side
from latent_ebm.foreign import check_file, reading

FONT, STYLE = "NotoColorEmoji.ttf", "font"
SIZE, CANVAS = 109, 136  # pixels of the bitmaps of Noto Color Emoji, as Pillow names them
MIN_SHARE = 0.2  # least share of pictures with colours in a colour font
BLANK = "\U0010ffff"  # no font has a picture of it
TONES = {
    "\U0001f3fb": "light",
    "\U0001f3fc": "medium-light",
    "\U0001f3fd": "medium",
    "\U0001f3fe": "medium-dark",
    "\U0001f3ff": "dark",
}
RANGES = [  # first and last code point, group; the first that fits counts
    (0x1F466, 0x1F487, "people-body"),
    (0x1F574, 0x1F57A, "people-body"),
    (0x1F590, 0x1F596, "people-body"),
    (0x1F645, 0x1F64F, "people-body"),
    (0x1F90C, 0x1F93E, "people-body"),
    (0x1F9CD, 0x1F9E6, "people-body"),
    (0x1F442, 0x1F465, "people-body"),
    (0x1F600, 0x1F644, "smileys-emotion"),
    (0x1F32D, 0x1F32F, "food-drink"),
    (0x1F345, 0x1F37F, "food-drink"),
    (0x1F950, 0x1F96F, "food-drink"),
    (0x1F330, 0x1F344, "animals-nature"),
    (0x1F400, 0x1F441, "animals-nature"),
    (0x1F980, 0x1F9AE, "animals-nature"),
    (0x1F300, 0x1F32C, "travel-places"),
    (0x1F3D4, 0x1F3F0, "travel-places"),
    (0x1F680, 0x1F6FF, "travel-places"),
    (0x1F380, 0x1F3D3, "activities"),
    (0x1F488, 0x1F5FF, "objects"),
    (0x1F9C0, 0x1FAFF, "objects"),
    (0x2300, 0x1FFFF, "symbols"),
]


def find_font(font: str | None = None) -> str:
    """The file ``font``, else Noto Color Emoji where the system keeps its fonts.

    Raises ``FileNotFoundError`` if there is none.
    """
    if font is not None:
        return str(check_file(font, "a colour font"))
    installed = font_manager.findSystemFonts()
    found = next((path for path in installed if os.path.basename(path) == FONT), None)
    if found is None:
        raise FileNotFoundError(f"font must name a colour font, as {FONT} is not installed")
    return found


def draw_font(
    font: str | None = None, side: int = 64, names: Mapping[str, str] | None = None
) -> Glyphs:
    """All emoji that a colour font has, at ``side`` x ``side`` pixels.

    Args:
        font: The file of the font; null: Noto Color Emoji, if it is installed.
        side: Pixels of a side, 4 to 256.
        names: Characters to draw and their names, such as ``{"🦊": "fox"}``; null: single
            characters, and people in five tones, with their names in Unicode.

    Raises:
        FileNotFoundError: If there is no font.
        ValueError: If the file is no font, or has no colour glyphs.
    """
    check_side("draw_font", side)
    path = find_font(font)
    with reading(path, "a colour font with bitmaps"):
        face = ImageFont.truetype(path, SIZE)
    blank = _draw(face, BLANK).tobytes()
    wanted = dict(unicode_names()) if names is None else names
    drawn = [(text, _draw(face, text)) for text in wanted if _is_one(face, text)]
    kept = [(text, picture) for text, picture in drawn if picture.tobytes() != blank]
    coloured = sum(has_colour(picture) for _, picture in kept)
    if coloured <= MIN_SHARE * len(kept):
        raise ValueError(
            f"font must have colour glyphs, got {path} with colours in {coloured} of {len(kept)}"
        )
    rows = [describe(text, wanted[text]) for text, _ in kept]
    return glyphs_of([to_side(picture, side) for _, picture in kept], rows, STYLE)


def unicode_names() -> Iterator[tuple[str, str]]:
    """Characters that may be emoji, alone and with a skin tone, and their names."""
    for point in (*range(0x2300, 0x2400), *range(0x25A0, 0x2800), *range(0x2B00, 0x2C00),
                  *range(0x1F000, 0x1FB00)):  # fmt: skip
        name = unicodedata.name(chr(point), "").lower()
        if not name or chr(point) in TONES:
            continue
        yield chr(point), name
        if group_of(point) == "people-body":
            for modifier, tone in TONES.items():
                yield chr(point) + modifier, f"{name}: {tone} skin tone"


def group_of(point: int) -> str:
    """The group of a code point; "symbols" if it is in no range."""
    return next((g for low, high, g in RANGES if low <= point <= high), "symbols")


def describe(text: str, name: str) -> Row:
    """The entries that the characters and the name of an emoji determine."""
    untoned, _, _ = name.partition(":")
    gender = next((g for g in ("woman", "man", "person") if g in untoned.split()), "")
    rest = " ".join(word for word in untoned.split() if word != gender)
    return {
        "hexcode": "-".join(f"{ord(character):04X}" for character in text),
        "name": name,
        "tags": "|".join(dict.fromkeys(untoned.replace("-", " ").split())),
        "group": group_of(ord(text[0])),
        "subgroup": group_of(ord(text[0])),
        "tone": next((tone for modifier, tone in TONES.items() if modifier in text), ""),
        "gender": gender,
        "base": rest or untoned,
    }


def _is_one(face: ImageFont.FreeTypeFont, text: str) -> bool:
    """Whether the font draws ``text`` as one picture, not as several side by side."""
    return face.getlength(text) <= face.getlength(text[0]) + 1


def _draw(face: ImageFont.FreeTypeFont, text: str) -> Image.Image:
    picture = Image.new("RGBA", (CANVAS, CANVAS))
    middle = CANVAS / 2
    ImageDraw.Draw(picture).text(
        (middle, middle), text, "black", face, anchor="mm", embedded_color=True
    )
    return picture


def has_colour(picture: Image.Image) -> bool:
    """Whether a pixel of an RGBA picture is not grey."""
    pixels = np.asarray(picture.resize((8, 8)))[..., :3]
    return bool((np.ptp(pixels, -1) > 8).any())
