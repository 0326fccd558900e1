"""Filters of a curation, each against planted rows whose answer is known."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from latent_ebm.data import draw_shapes
from latent_ebm.data.curation import (
    CaptionScore,
    Filter,
    ImageScore,
    Mixture,
    Noise,
    PersonalData,
    Row,
    Sharpness,
    Size,
    Templates,
    Terms,
    luhn,
    noise_level,
    sharpness,
)

GREY = torch.zeros(3, 8, 8)
SAME = Templates(["{caption}"])


@pytest.fixture(scope="module")
def shapes() -> Tensor:
    """All drawn shapes (192, 3, 64, 64) on white."""
    return draw_shapes(64).on(torch.ones(3))


def picture(x: Tensor) -> Image.Image:
    pixels = ((x + 1) * 127.5).round().clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 127.5 - 1


def blurred(x: Tensor, radius: float) -> Tensor:
    return tensor(picture(x).filter(ImageFilter.GaussianBlur(radius)))


def jpeg(x: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    picture(x).save(file, "JPEG", quality=quality)
    return tensor(Image.open(file))


def noisy(x: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    return x + scale / 127.5 * torch.randn(x.shape, generator=generator)


def dropped(judge: Filter, images: Sequence[Tensor]) -> list[bool]:
    rows = [Row(str(i), "a shape", image) for i, image in enumerate(images)]
    return [isinstance(answer, str) for answer in judge(rows)]


def refused(judge: Filter, captions: Sequence[str]) -> list[str]:
    """The captions that are dropped."""
    answers = judge([Row(str(i), text, GREY) for i, text in enumerate(captions)])
    return [t for t, answer in zip(captions, answers, strict=True) if isinstance(answer, str)]


def test_blurred_shapes_are_dropped_and_sharp_ones_are_kept(shapes: Tensor) -> None:
    judge = Sharpness(0.05)
    assert not any(dropped(judge, list(shapes)))
    assert not any(dropped(judge, [jpeg(x, 30) for x in shapes[::4]]))
    assert not any(dropped(judge, list(0.1 * shapes)))  # of low contrast
    assert all(dropped(judge, [blurred(x, 2) for x in shapes[::4]]))
    assert dropped(judge, [torch.ones(3, 8, 8), torch.ones(3, 2, 8)]) == [True, True]


def test_sharpness_is_the_variance_of_the_laplacian(shapes: Tensor) -> None:
    wave = torch.cos(torch.arange(400) * 0.5).expand(3, 400, 400)
    # a wave of frequency w is an eigenvector of the Laplacian: 2 cos(w) - 2
    assert sharpness(wave) == pytest.approx((2 - 2 * np.cos(0.5)) ** 2, rel=0.01)
    assert sharpness(3 * shapes[0]) == pytest.approx(sharpness(shapes[0]), rel=1e-4)


@pytest.mark.parametrize("scale", [2.0, 10.0, 30.0])
def test_the_estimate_of_noise_is_that_which_was_added(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(-0.5, 0.5, 200).expand(3, 200, 200)
    assert noise_level(noisy(ramp, scale, generator)) == pytest.approx(scale, rel=0.03)
    assert noise_level(ramp) < 1e-3
    red = torch.cat([noisy(ramp, scale, generator)[:1], ramp[1:]])
    assert noise_level(red) == pytest.approx(scale / 3, rel=0.03)


def test_noisy_shapes_are_dropped_and_compressed_ones_are_kept(shapes: Tensor) -> None:
    generator, judge = torch.Generator().manual_seed(0), Noise(4)
    assert not any(dropped(judge, list(shapes)))
    assert not any(dropped(judge, [jpeg(x, 30) for x in shapes[::4]]))
    assert not any(dropped(judge, [noisy(x, 2, generator) for x in shapes[::4]]))
    added = [noisy(x, 10, generator).clamp(-1, 1) for x in shapes[::4]]
    assert all(dropped(judge, added))
    assert not any(dropped(judge, [torch.zeros(3, 2, 9)]))


def test_small_and_long_images_are_dropped() -> None:
    sides = [(8, 8), (7, 8), (8, 7), (8, 16), (16, 8), (8, 17), (17, 8)]
    images = [torch.zeros(3, *side) for side in sides]
    assert dropped(Size(8, 2), images) == [False, True, True, False, False, True, True]


def test_scores_above_the_limit_drop_a_row() -> None:
    seen = []

    def score(images: list[Tensor]) -> list[float]:
        seen.append(len(images))
        return [float(image.mean()) for image in images]

    images = [torch.full((3, 2, 2 + k), v) for k, v in enumerate((-1.0, 0.5, 0.6))]
    rows = [Row(str(i), "a", image) for i, image in enumerate(images)]
    assert ImageScore(score, 0.5, "generated")(rows) == [*rows[:2], "generated 0.6, above 0.5"]
    assert seen == [3]
    long = CaptionScore(lambda texts: torch.tensor([len(t) for t in texts]), 3)
    assert refused(long, ["abc", "abcd"]) == ["abcd"]


@pytest.mark.parametrize("scores", [[0.1], [0.1, float("nan")], [[0.1, 0.2]]])
def test_scores_must_be_one_finite_number_per_row(scores: object) -> None:
    rows = [Row("a", "a", GREY), Row("b", "b", GREY)]
    for judge in (ImageScore(lambda _: scores), CaptionScore(lambda _: scores)):
        with pytest.raises(ValueError, match=r"score must return 2 finite numbers, one per row"):
            judge(rows)


UNSAFE = [
    "a bomb on a table",
    "BOMB",
    "a b0mb",
    "a 8omb!",
    "\u0431\u043emb and b\u043emb",  # a Cyrillic o
    "b\u03bfmb",  # a Greek omicron
    "\uff42\uff4f\uff4d\uff42",  # wide letters
    "\U0001d41b\U0001d428\U0001d426\U0001d41b",  # mathematical bold
    "b\u200bo\u200bm\u200bb",  # zero-width spaces
    "b\u0308o\u0336mb",  # accents and strokes
    "b.o.m.b",
    "b o m b",
    "b-\u043e-m_b",
    "a hate   speech poster",
    "hate-speech",
    "h4te sp33ch",
    "K\u0130LL",  # a Turkish capital
    "k1||",
    "kill",
    "\u7206\u5f3e\u306e\u7d75",  # a word that no space ends
    "weapon7 and weapon12",
]
SAFE = [
    "a bombastic speech",
    "bombs",
    "an aplomb",
    "bo mb",
    "hates peech",
    "speech, then hate",
    "a skill",
    "a kiln",
    "a mail in a mall",
    "8 of them at 80",
    "b, o and m",
    "k 1 2 3",
    "2023 weapon",
    "",
]


def test_terms_are_found_in_disguise_and_nowhere_else() -> None:
    judge = Terms([" bomb ", "hate speech", "kill", "\u7206\u5f3e"], [r"\bweapon\d+"])
    assert refused(judge, UNSAFE) == UNSAFE
    assert refused(judge, SAFE) == []
    assert refused(Terms(["as"]), ["45 cats", "a5 cats", "a s"]) == ["a5 cats"]
    assert refused(Terms(["88"]), ["88 cats", "188 cats"]) == ["88 cats"]


def test_the_reason_names_the_term() -> None:
    row = Row("a", "a b0mb", GREY)
    assert Terms(["kill", "Bomb"])([row]) == ["term 'Bomb'"]


PRIVATE = {
    "an e-mail address": [
        "write to jane.doe+art@mail.example.org.",
        "jane(at)example.org",
        "jane [at] example [dot] co",
        "JANE@EXAMPLE.COM",
        "jane\uff20example.com",
        "ja\u200bne@exam\u00adple.com",  # with signs that are not seen
    ],
    "a card number": [
        "4111 1111 1111 1111 is on the card",
        "4111-1111-1111-1111",
        "card 5555555555554444",
        "nr.378282246310005",
        "6011 0009 9013 9424",
        "\uff14111111111111111",
        "4111\u200b111111111111",
        "4111 1111 1111 1111 12/26",
        "4111111111111111 123",
        "no 5 4111\u20111111\u20111111\u20111111",
    ],
    "a phone number": [
        "call +49 30 901820",
        "+1 (212) 555-0123",
        "tel.020 7946 0958",
        "06 12 34 56 78",
        "(212) 555-0123",
        "212-555-0123",
        "0041 44 268 66 66",
        "+442079460958",
        "03012345678",
        "0171/1234567",
        "+1\u2011202\u2011555\u20110143",
    ],
}
HARMLESS = [
    "4111 1111 1111 1112 is no card",
    "4111 1111 1111 1112 2",
    "1234567812345670",  # a valid checksum of no card
    "0000 0000 0000 0000",
    "a photo of 2023-01-15",
    "15.01.2023 and 01/02/2023",
    "open 08.30-09.45",
    "1920 x 1080 pixels, f/2.8, 1/250 s",
    "12 345 678 people in 1990-2000",
    "3.14159265358979",
    "a cat @ home",
    "look at example.com",
    "@jane",
    "ISBN 978-3-16-148410-0",
    "100 200 3000",
    "catalogue number 12345678",
    "the years 2001 2002 2003 2004 2005",
    "exhibition 05.06.\u201312.09.2021",
    "open 0900\u20131700",
]


def test_personal_data_are_found_and_nothing_else() -> None:
    for what, captions in PRIVATE.items():
        rows = [Row(str(i), text, GREY) for i, text in enumerate(captions)]
        assert PersonalData()(rows) == [what] * len(rows)
    assert refused(PersonalData(), HARMLESS) == []


def test_a_checksum_finds_every_wrong_digit_and_nine_in_ten_random_numbers() -> None:
    card = "4111111111111111"
    assert luhn(card)
    for place in range(len(card)):
        for digit in set("0123456789") - {card[place]}:
            assert not luhn(card[:place] + digit + card[place + 1 :])
    assert sum(luhn(f"{number:04d}") for number in range(10_000)) == 1000


def test_templates_and_mixtures_have_the_stated_shares() -> None:
    rows = [Row(f"{i}.png", f"cat {i}", GREY) for i in range(4000)]
    calls = []

    def model(some: Sequence[Row]) -> list[str]:
        calls.append(len(some))
        return [f"seen: {row.image.shape[0]}" for row in some]

    templates = Templates(["a drawing of {caption}", "{caption}, drawn"], seed=1)
    answers = Mixture([templates, model], [0.5, 0.2])(rows)
    texts = [answer.caption for answer in answers if isinstance(answer, Row)]
    assert len(texts) == len(rows)
    expected = {"a drawing of ": 0.25, ", drawn": 0.25, "seen: 3": 0.2}
    for part, share in expected.items():
        assert np.mean([part in text for text in texts]) == pytest.approx(share, abs=0.03)
    kept = np.mean([text == row.caption for text, row in zip(texts, rows, strict=True)])
    assert kept == pytest.approx(0.3, abs=0.03)
    assert len(calls) == 1
    parts = [a for k in range(0, 4000, 7) for a in Mixture([templates], [0.5])(rows[k : k + 7])]
    whole = Mixture([templates], [0.5])(rows)
    assert [a.caption for a in parts if isinstance(a, Row)] == [
        a.caption for a in whole if isinstance(a, Row)
    ]


def test_who_gets_a_template_says_nothing_about_which() -> None:
    """Although both have one seed."""
    rows = [Row(f"{i}.png", "cat", GREY) for i in range(2000)]
    mixture = Mixture([Templates(["a {caption}", "the {caption}"], 3)], [0.5], 3)
    texts = [answer.caption for answer in mixture(rows) if isinstance(answer, Row)]
    assert texts.count("a cat") == pytest.approx(500, abs=4 * (2000 * 3 / 16) ** 0.5)


def test_a_seed_decides_who_gets_which_caption() -> None:
    rows = [Row(f"{i}.png", "cat", GREY) for i in range(400)]
    texts = ["a {caption}", "the {caption}"]
    captions = [Templates(texts, seed)(rows) for seed in (0, 0, 1)]
    chosen = [[Mixture([SAME], [0.5], seed).choose(r.name) for r in rows] for seed in (0, 0, 1)]
    for again, first, other in (captions, chosen):
        assert first == again
        differ = np.mean([a != b for a, b in zip(first, other, strict=True)])
        assert differ == pytest.approx(0.5, abs=0.1)


def test_images_that_are_no_numbers_of_colours_are_not_read(tmp_path: Path) -> None:
    for image in (torch.full((3, 4, 4), torch.nan), torch.zeros(3, 4, 4, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"the image of 'a' must be finite floating numbers"):
            _ = Row("a", "a", image).image
    for size in ((1, 1), (1, 9), (9, 1)):  # without a warning, as all are
        Image.new("L", size, 51).save(tmp_path / "grey.png")
        image = Row("a", "a", tmp_path / "grey.png").image
        torch.testing.assert_close(image, torch.full((3, *size[::-1]), -0.6))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Row("a", None, GREY), r"Row: caption must be a str, got None"),  # pyright: ignore
        (lambda: Row(1, "a", GREY), r"Row: name must be a str, got 1"),  # pyright: ignore
        (lambda: Row("a", "a", "a.png"), r"Row: source must be a Tensor, got 'a.png'"),  # pyright: ignore
        (lambda: Sharpness(0), r"Sharpness: least must be finite and positive, got 0"),
        (lambda: Noise(float("nan")), r"Noise: most must be finite and positive, got nan"),
        (lambda: Size(0), r"Size: least must be an integer >= 1, got 0"),
        (lambda: ImageScore(len, float("inf")), r"ImageScore: most must be finite, got inf"),
        (lambda: Terms(), r"^terms or patterns must hold an entry"),
        (lambda: Terms("bomb"), r"^terms must be a list of strings, got 'bomb'"),
        (lambda: Terms(["--"]), r"^terms must hold letters or digits, got '--'"),
        (lambda: Terms([], ["("]), r"^patterns must be regular expressions, got '\('"),
        (lambda: Templates([]), r"Templates: templates must hold an entry"),
        (lambda: Templates(["a cat"]), r"must hold {caption} and no other field, got 'a cat'"),
        (lambda: Templates(["{caption} {x}"]), r"must hold {caption} and no other field"),
        (lambda: Mixture([SAME], [0.5, 0.5]), r"shares must be one per captioner .* 1 captioners"),
        (lambda: Mixture([SAME, SAME], [0.6, 0.6]), r"add up to at most 1, got 2 captioners"),
        (lambda: Mixture([SAME], [-0.1]), r"Mixture: shares must be in \[0, 1\], got -0.1"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ([], r"must return one caption per row, got 0 for 1 rows"),
        ("a", r"captions of a captioner must be a list of strings, got 'a'"),
        ([3], r"the new caption of 'a' must be a string, got 3"),
        ([" "], r"the new caption of 'a' must not be empty"),
        (["a\x00"], r"the new caption of 'a' must hold no control characters"),
    ],
)
def test_bad_captions_of_a_captioner_are_refused(captions: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mixture([lambda _: captions], [1])([Row("a", "b", GREY)])
