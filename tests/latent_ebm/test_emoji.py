"""Glyphs and their captions: sources agree on one type, held-out glyphs stay out, captions are a
function of seed, epoch and row, and damaged files are refused in one sentence.
"""

import csv
import io
import json
from collections import ChainMap, Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from latent_ebm.conditions import Batch
from latent_ebm.data import (
    CaptionedImages,
    Captions,
    Emoji,
    Glyphs,
    Scenes,
    draw_font,
    draw_shapes,
    read_pack,
)
from latent_ebm.data.base import make_generator
from latent_ebm.data.captioned import EpochOrder
from latent_ebm.data.captions import SORTS, open_captions, other_rows
from latent_ebm.data.emoji_font import describe, find_font
from latent_ebm.data.emoji_pack import ROWS, SPLITS, read_splits
from latent_ebm.data.glyphs import compose, join
from latent_ebm.text import WordTokenizer
from latent_ebm.text.tokenizer import split_words

TONES = ("light", "dark")
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def picture(number: int) -> np.ndarray:
    """A half transparent picture (64, 64, 4) that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 4), np.uint8)
    pixels[:32, :, 3] = 0
    return pixels


def write_pack(folder: Path) -> dict[str, list[bytes]]:
    """A pack of two styles: 3 jobs x 2 genders x 2 tones and 4 animals, of which two have the same
    art in style "one" and one is missing in style "two".
    """
    people = [
        {"name": f"{g} {job}: {t} skin tone", "base": job, "tone": t, "gender": g,
         "tags": f"{job}|work"}
        for job in ("cook", "judge", "pilot") for g in ("man", "woman") for t in TONES
    ]  # fmt: skip
    animals = [{"name": n, "base": n, "tags": "pet"} for n in ("cat", "dog", "fox", "owl")]
    rows = [{"tone": "", "gender": "", **row} for row in [*people, *animals]]
    for i, row in enumerate(rows):
        person = bool(row["gender"])
        row |= {
            "hexcode": f"1F{i:03X}",
            "group": "people-body" if person else "animals-nature",
            "subgroup": "person-role" if person else "animal-mammal",
        }
    with (folder / ROWS).open("w", newline="") as file:
        table = csv.DictWriter(file, sorted(rows[0]))
        table.writeheader()
        table.writerows(rows)
    pictures = [png(picture(i)) for i in range(len(rows))]
    pictures[13] = pictures[12]
    write_style(folder, "one", pictures, list(range(16)), rows)
    write_style(folder, "two", pictures[:15], list(range(15)), rows)
    held = {"composition_held_out": ["1F000", "1F005"], "subject_held_out": ["1F00E"]}
    (folder / SPLITS).write_text(json.dumps({**held, "full_grid_bases": ["cook"]}))
    return {"one": pictures}


def write_style(
    folder: Path, style: str, pictures: list[bytes], row: list[int], rows: list[dict[str, str]]
) -> None:
    np.savez(
        folder / f"emoji_{style}_64.npz",
        png=np.frombuffer(b"".join(pictures), np.uint8),
        offset=np.cumsum([0, *map(len, pictures)]),
        row=np.array(row, np.int32),
        hexcode=np.array([rows[i]["hexcode"] for i in row]),
    )


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    write_pack(tmp_path)
    return tmp_path


def shapes(**arguments: object) -> Emoji:
    data = Emoji(source="shapes", side=8, num_val=8, **arguments)  # pyright: ignore[reportArgumentType]
    data.setup()
    return data


# ---------------------------------------------------------------------------------
# glyphs


def test_pictures_are_composed_by_opacity() -> None:
    colour = torch.rand(2, 3, 5, 5, generator=make_generator(0))
    for alpha, expected in ((0.0, torch.full_like(colour, 0.25)), (1.0, colour)):
        images = torch.cat([colour, torch.full((2, 1, 5, 5), alpha)], 1)
        torch.testing.assert_close(compose(images, torch.tensor(0.25)), expected)


def test_resized_pictures_are_averages_of_what_is_seen() -> None:
    """Half transparent: the average on a background is the background's average of the pixels."""
    pixels = torch.from_numpy(picture(3)).permute(2, 0, 1)[None].float() / 255
    glyphs = Glyphs(pixels, ["a"], [("b",)], *[["c"]] * 7)
    for background in (torch.zeros(3), torch.ones(3)):
        large = glyphs.on(background)
        mean = large.view(1, 3, 16, 4, 16, 4).mean((3, 5))
        assert (glyphs.resize(16).on(background) - mean).abs().max() < 3 / 127.5


def test_drawn_shapes_are_all_different_and_have_their_colour() -> None:
    glyphs = draw_shapes(24)
    assert len(glyphs) == len(glyphs.art.unique()) == len(set(glyphs.names)) == 192
    red = glyphs.images[glyphs.names.index("red circle")]
    assert red[3, 12, 12] == 1
    assert red[:3, 12, 12].tolist() == pytest.approx([222 / 255, 45 / 255, 38 / 255])
    assert glyphs.images[glyphs.names.index("hollow red circle"), 3, 12, 12] == 0
    assert (glyphs.images[:, 3, 0, 0] == 0).all()


def test_equal_pictures_share_their_art_whatever_is_under_transparency() -> None:
    images = draw_shapes(8).take([0, 1, 0]).images.clone()
    images[2, :3, images[2, 3] == 0] = 0.3  # the colour where nothing is seen
    glyphs = join([draw_shapes(8).take([0, 1, 0])])
    glyphs = Glyphs(images, *[getattr(glyphs, n) for n in list(glyphs.__dataclass_fields__)[1:]])
    assert glyphs.art.tolist() == [0, 1, 0]


@pytest.mark.parametrize("power", [0.0, -0.75, -1.0])
def test_weights_are_powers_of_family_sizes(power: float) -> None:
    glyphs = draw_shapes(8).take([0, 1, 2, 3, 8, 9, 16])  # families of 4, 2 and 1
    sizes = torch.tensor([4.0, 4, 4, 4, 2, 2, 1]) ** power
    torch.testing.assert_close(glyphs.weights(power), sizes / sizes.sum())


# ---------------------------------------------------------------------------------
# a pack of files


def test_a_pack_is_read_as_it_was_written(pack: Path) -> None:
    glyphs = read_pack(str(pack), ["one", "two"], 64)
    assert len(glyphs) == 31
    assert glyphs.style == ["one"] * 16 + ["two"] * 15
    assert torch.equal((255 * glyphs.images[5]).round().byte().permute(1, 2, 0),
                       torch.from_numpy(picture(5)))  # fmt: skip
    assert (glyphs.names[5], glyphs.base[5], glyphs.tone[5]) == (
        "man judge: dark skin tone",
        "judge",
        "dark",
    )
    assert glyphs.keywords[5] == ("judge", "work")
    assert glyphs.art[12] == glyphs.art[13] == glyphs.art[16 + 12]
    assert len(glyphs.art.unique()) == 15


def test_a_pack_is_found_by_the_environment(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENT_EBM_DATA", str(pack))
    assert len(read_pack(None, ["one"], 8)) == 16
    (folder := pack / "above" / "emoji").parent.mkdir()
    folder.symlink_to(pack)
    monkeypatch.setenv("LATENT_EBM_DATA", str(folder.parent))
    assert len(read_pack(None, ["two"], 8)) == 15
    monkeypatch.delenv("LATENT_EBM_DATA")
    with pytest.raises(
        FileNotFoundError, match=r"LATENT_EBM_DATA must name a folder with emoji_r"
    ):
        read_pack()


def replace_array(folder: Path, **arrays: np.ndarray) -> None:
    path = folder / "emoji_one_64.npz"
    with np.load(path) as content:
        kept = {**content, **arrays}
    np.savez(path, **{name: array for name, array in kept.items() if array.size})


def arrays(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "emoji_one_64.npz") as content:
        return dict(content)


def without_a_picture(folder: Path) -> None:
    offset = arrays(folder)["offset"]
    offset[4] = offset[3]
    replace_array(folder, offset=offset)


def with_a_damaged_picture(folder: Path) -> None:
    png = arrays(folder)["png"]
    png[40:400] = 7
    replace_array(folder, png=png)


def with_a_wide_picture(folder: Path) -> None:
    content = png(np.zeros((64, 80, 4), np.uint8))
    a = arrays(folder)
    joined = np.concatenate([np.frombuffer(content, np.uint8), a["png"][a["offset"][1] :]])
    offset = a["offset"] - a["offset"][1] + len(content)
    offset[0] = 0
    replace_array(folder, png=joined, offset=offset)


def cut(folder: Path) -> None:
    path = folder / "emoji_one_64.npz"
    path.write_bytes(path.read_bytes()[:900])


def corrupt(folder: Path) -> None:
    path = folder / "emoji_one_64.npz"
    content = bytearray(path.read_bytes())
    content[5000:5050] = bytes(50)
    path.write_bytes(content)


def without_a_column(folder: Path) -> None:
    lines = (folder / ROWS).read_text().splitlines()
    (folder / ROWS).write_text("\n".join([lines[0].replace("tags", "words"), *lines[1:]]))


def with_a_short_row(folder: Path) -> None:
    (folder / ROWS).write_text((folder / ROWS).read_text() + "1F99,a\n")


FAULTS: list[tuple[Callable[[Path], object], str]] = [
    (without_a_picture, r"must hold a picture of every glyph, got none of '1F003'"),
    (with_a_damaged_picture, r"emoji_one_64.npz must hold a PNG picture of '1F000'"),
    (with_a_wide_picture, r"must be square with at most 256 pixels a side, got 80 x 64"),
    (cut, r"emoji_one_64.npz must hold pictures of emoji: File is not a zip file"),
    (corrupt, r"emoji_one_64.npz must hold .*: Bad CRC-32"),
    (lambda f: replace_array(f, row=np.zeros(0)),
     r"must hold png, offset, row, hexcode, got no row"),
    (lambda f: replace_array(f, row=np.arange(15)), r"must hold \(bytes,\), \(n \+ 1,\), \(n,\)"),
    (lambda f: replace_array(f, row=np.arange(1, 17)), r"row of .* must lie in 0 to 15"),
    (lambda f: replace_array(f, row=np.arange(16)[::-1].copy()),
     r"must agree with emoji_rows.csv"),
    (lambda f: replace_array(f, row=np.arange(16.0)),
     r"must hold bytes, integers, integers and t"),
    (lambda f: replace_array(f, offset=np.arange(17)[::-1].copy()),
     r"offset of .* must rise from 0"),
    (without_a_column, r"emoji_rows.csv must hold a table of emoji: it has no column tags"),
    (with_a_short_row, r"row 16 does not have one cell per column"),
    (lambda f: (f / ROWS).write_bytes(b"hexcode,\xff\xfe"), r"emoji_rows.csv must hold a table"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_damaged_packs_are_refused(
    pack: Path, fault: Callable[[Path], object], message: str
) -> None:
    fault(pack)
    with pytest.raises(ValueError, match=message) as caught:
        read_pack(str(pack), ["one"], 8)
    assert "\n" not in str(caught.value)


def test_splits_that_name_unknown_emoji_are_refused(pack: Path) -> None:
    assert read_splits(str(pack))["composition_held_out"] == {"1F000", "1F005"}
    (pack / SPLITS).write_text('{"composition_held_out": ["1F000", "1FFFF"]}')
    with pytest.raises(ValueError, match=r"must name emoji of emoji_rows.csv, got '1FFFF'"):
        read_splits(str(pack))
    (pack / SPLITS).write_text('{"subject_held_out": "1F000"}')
    with pytest.raises(
        ValueError, match=r"must hold lists of texts, got another subject_held_out"
    ):
        read_splits(str(pack))


@pytest.mark.parametrize("styles", [[], ["one", "one"], "one"])
def test_styles_are_a_list_of_different_names(pack: Path, styles: list[str]) -> None:
    with pytest.raises(ValueError, match="styles must be a list of different names"):
        read_pack(str(pack), styles)


def test_an_unknown_style_is_refused_by_name(pack: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"some of one, two in .*, got 'three'"):
        read_pack(str(pack), ["three"])


# ---------------------------------------------------------------------------------
# fonts


def has_font() -> bool:
    try:
        find_font()
    except FileNotFoundError:
        return False
    return True


@pytest.mark.skipif(not has_font(), reason="Noto Color Emoji is not installed")
def test_a_colour_font_gives_named_glyphs() -> None:
    glyphs = draw_font(None, 16, {"😀": "grinning face", "🦊": "fox", "a": "the letter a"})
    assert glyphs.names == ["grinning face", "fox"]  # the font has no letters
    assert (glyphs.images[:, 3].amax((1, 2)) > 0.9).all()


def test_a_font_without_colours_is_refused() -> None:
    from matplotlib import font_manager

    with pytest.raises(
        ValueError, match=r"font must have colour glyphs, got .*DejaVuSans.* in 0 of"
    ):
        draw_font(font_manager.findfont("DejaVu Sans"), 16, {c: c for c in "abcdef"})


def test_a_file_that_is_no_font_is_refused(tmp_path: Path) -> None:
    (path := tmp_path / "a.ttf").write_bytes(b"no font")
    with pytest.raises(ValueError, match=r"a.ttf must hold a colour font with bitmaps"):
        draw_font(str(path))
    with pytest.raises(FileNotFoundError, match="must name a colour font"):
        draw_font(str(tmp_path / "b.ttf"))


def test_code_points_tell_tone_and_gender() -> None:
    row = describe("\U0001f469\U0001f3fd\u200d\U0001f3a8", "woman artist: medium skin tone")
    assert (row["base"], row["gender"], row["tone"]) == ("artist", "woman", "medium")
    assert (row["group"], row["hexcode"]) == ("people-body", "1F469-1F3FD-200D-1F3A8")


@pytest.mark.parametrize("side", [3, 257, 16.0, True])
def test_sides_out_of_range_are_refused(side: int) -> None:
    for source in (draw_shapes, lambda s: draw_font(None, s), lambda s: read_pack(None, side=s)):
        with pytest.raises(ValueError, match=r"side must be an integer from 4 to 256, got"):
            source(side)


# ---------------------------------------------------------------------------------
# captions


def test_weights_of_captions_are_shares() -> None:
    glyphs = join([draw_shapes(4)] * 20)
    rule = Captions(name=1, styled=2, kind=1, wrong=0.25)
    captions = rule.write(glyphs, range(len(glyphs)), make_generator(1))
    styled = sum(text.endswith(", drawn style") for text in captions) / len(captions)
    kinds = sum(text.endswith(" shape") for text in captions) / len(captions)
    assert styled == pytest.approx(0.5, abs=0.03)
    assert kinds == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_wrong_captions_come_at_their_rate_and_are_of_another_glyph(rate: float) -> None:
    glyphs = join([draw_shapes(4)] * 10)
    captions = Captions(wrong=rate).write(glyphs, range(len(glyphs)), make_generator(2))
    wrong = np.mean([text != name for text, name in zip(captions, glyphs.names, strict=True)])
    error = 3 * (rate * (1 - rate) / len(glyphs)) ** 0.5 + rate / 192
    assert wrong == pytest.approx(rate, abs=error)


def test_other_rows_are_uniform_among_the_others() -> None:
    chance = (torch.arange(3000).view(1000, 3) % 1000 + 0.5) / 1000
    other = torch.stack([other_rows(row) for row in chance])
    assert (other != torch.arange(3)).all()
    assert Counter(other[:, 0].tolist())[1] == pytest.approx(500, abs=10)


def test_a_caption_depends_on_its_row_alone() -> None:
    glyphs, rule = draw_shapes(4), Captions(1, 1, 1, 1, 1, 0.2)
    whole = rule.write(glyphs, range(192), make_generator(5))
    assert rule.write(glyphs, [7, 100, 3], make_generator(5)) == [whole[i] for i in (7, 100, 3)]
    assert rule.write(glyphs, range(192), make_generator(6)) != whole


@pytest.mark.parametrize("sort", SORTS)
def test_the_vocabulary_covers_every_caption(sort: str) -> None:
    glyphs = draw_shapes(4)
    rule = Captions(**{"name": 0.0, sort: 1.0})
    known = {word for text in rule.all(glyphs) for word in split_words(text)}
    longest = max(len(split_words(text)) for text in rule.all(glyphs))
    for seed in range(20):
        for text in rule.write(glyphs, range(192), make_generator(seed)):
            assert set(split_words(text)) <= known
            assert len(split_words(text)) <= longest


def test_open_captions_know_all_right_answers() -> None:
    glyphs = draw_shapes(4)
    answers = open_captions(glyphs)
    assert {glyphs.base[i] for i in answers["a pointed shape"]} == {
        f"{hollow}{s}" for hollow in ("", "hollow ") for s in ("star", "sparkle", "cross", "arrow")
    }
    assert {glyphs.tone[i] for i in answers["red"]} == {"red"}
    for text, rows in answers.items():
        fits = [text in ("a round shape", *words) for words in glyphs.keywords]
        assert text.startswith(("a ", "an ")) or len(rows) == sum(fits)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"name": -1}, "name must be finite and non-negative, got -1"),
        ({"name": 0}, "one of name, styled, keyword, kind, synthetic must be positive"),
        ({"wrong": 1.5}, r"wrong must be in \[0, 1\], got 1.5"),
    ],
)
def test_odd_shares_of_captions_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Captions(**weights)


# ---------------------------------------------------------------------------------
# the data module


def test_splits_are_those_of_the_pack(pack: Path) -> None:
    held = ["composition_held_out", "subject_held_out"]
    data = Emoji(path=str(pack), styles=["one", "two"], side=8, held_out=held, num_val=2)
    data.setup()
    codes = [set(part.glyphs.hexcode) for part in (data.train, data.val, data.test)]
    assert codes[2] == {"1F000", "1F005", "1F00E"}
    assert len(codes[1]) == 2
    assert not codes[0] & codes[1]
    assert not codes[2] & (codes[0] | codes[1])
    assert set.union(*codes) == {f"1F{i:03X}" for i in range(16)}
    assert set(data.val.glyphs.base) <= set(data.train.glyphs.base)
    assert sum(len(part) for part in (data.train, data.val, data.test)) == 31
    assert data.files == [pack]


def test_labels_count_the_same_art_as_one(pack: Path) -> None:
    data = Emoji(path=str(pack), styles=["one"], side=16, num_val=1)
    data.setup()
    names = list(data.train.glyphs.names)
    cat, dog, fox = (data.train.label[names.index(n)] for n in ("cat", "dog", "fox"))
    assert cat == dog != fox


def test_drawn_splits_hold_out_two_of_a_family_and_whole_subjects() -> None:
    data = shapes(held_out=["composition_held_out", "subject_held_out"])
    cells, subjects = data.splits["composition_held_out"], data.splits["subject_held_out"]
    base = dict(zip(data.glyphs.hexcode, data.glyphs.base, strict=True))
    assert set(Counter(base[code] for code in cells).values()) == {2}
    assert len(cells) == 48
    assert len({base[code] for code in subjects}) == 2
    assert not set(data.train.glyphs.base) & {base[code] for code in subjects}
    assert set(data.train.glyphs.tone) == set(data.glyphs.tone)
    assert shapes(seed=1).splits != data.splits == shapes().splits


def test_batches_carry_tokens_of_captions_and_the_empty_caption_as_null() -> None:
    data = shapes(batch_size=5)
    batch = next(iter(data.val_dataloader()))
    assert data.tokenizer is not None
    rows = batch.index.tolist()
    expected = data.tokenizer([data.val.glyphs.names[i] for i in rows])
    assert torch.equal(batch.condition["tokens"], expected)
    assert torch.equal(batch.condition.null["tokens"], data.tokenizer([""])[0])
    assert torch.equal(batch.x, data.val.glyphs.take(rows).on(torch.ones(3)))
    one = data.val[3]
    assert torch.equal(one.condition["tokens"], expected[3])


def test_orders_by_weight_draw_families_alike() -> None:
    data = shapes(family_power=-1.0)
    order = data.order(1, 0, 3)
    drawn: Counter[str] = Counter()
    for epoch in range(60):
        order.set_epoch(epoch)
        drawn.update(data.train.glyphs.base[i] for i in order)
    num, families = sum(drawn.values()), len(set(data.train.glyphs.base))
    for count in drawn.values():
        assert count == pytest.approx(num / families, abs=5 * (num / families) ** 0.5)


def test_orders_of_processes_share_an_epoch() -> None:
    data = shapes()
    weights = data.train.glyphs.weights()
    whole = list(EpochOrder(data.train, 1, 0, 3, weights))[: 2 * (len(data.train) // 2)]
    halves = [list(EpochOrder(data.train, 2, rank, 3, weights)) for rank in range(2)]
    assert [i for pair in zip(*halves, strict=True) for i in pair][: len(whole)] == whole


class Recorder(LightningModule):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Batch) -> torch.Tensor:
        self.seen.append(torch.cat([batch.index[:, None], batch.condition["tokens"]], 1))
        return self.weight.sum()

    def validation_step(self, batch: Batch) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def record(data: Emoji, folder: Path, path: Path | None = None) -> list[torch.Tensor]:
    """What 12 steps see, with a checkpoint after the sixth."""
    keep = ModelCheckpoint(folder, "{step}", every_n_train_steps=6, save_top_k=-1)
    trainer = Trainer(
        default_root_dir=folder,
        max_steps=12,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[keep],
    )
    trainer.fit(module := Recorder(), data, ckpt_path=path)
    return module.seen


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("power", [None, -0.75])
def test_a_run_goes_on_with_the_same_rows_and_captions(
    tmp_path: Path, power: float | None
) -> None:
    """Stopped in the middle of the second epoch (of 4 batches), it goes on bit by bit."""

    def data() -> Emoji:
        rule = Captions(1, 1, 1, 1, 1, 0.3)
        return shapes(captions=rule, family_power=power, batch_size=32)

    whole = record(data(), tmp_path / "whole")
    rest = record(data(), tmp_path / "rest", tmp_path / "whole" / "step=6.ckpt")
    assert (len(whole), len(rest)) == (12, 6)
    assert all(torch.equal(a, b) for a, b in zip(whole[6:], rest, strict=True))
    captions = [dict(zip(s[:, 0].tolist(), s[:, 1:].tolist(), strict=True)) for s in whole[:8]]
    early, late = (dict(ChainMap(*parts)) for parts in (captions[:4], captions[4:]))
    common = early.keys() & late.keys()
    assert sum(early[k] != late[k] for k in common) > len(common) / 2  # drawn anew


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "drawer"}, "source must be one of pack, font, shapes, got 'drawer'"),
        ({"source": "shapes", "path": "a"}, "path must be left out for the built-in shapes"),
        ({"side": 500}, "Emoji: side must be an integer from 4 to 256, got 500"),
        ({"background": (1, 1)}, "background must be three numbers"),
        ({"background": (1, 1, 2)}, r"background must be in \[0, 1\], got 2"),
        ({"held_out": "composition"}, "held_out must be a list of splits"),
        ({"family_power": float("nan")}, "family_power must be finite"),
        ({"captions": "names"}, "captions must be a Captions"),
        ({"num_val": 0}, "num_val must be an integer >= 1"),
    ],
)
def test_odd_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Emoji(**arguments)  # pyright: ignore[reportArgumentType]


def test_splits_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="held_out must be some of composition_held_out, subject"):
        shapes(held_out=["composition"])
    with pytest.raises(
        ValueError, match="num_val must be at most 120, so that every base is seen"
    ):
        Emoji(source="shapes", side=8, num_val=121).setup()


def test_pixels_outside_of_the_unit_interval_are_refused() -> None:
    glyphs = draw_shapes(8)
    wrong = (torch.full_like(glyphs.images, torch.nan), 2 * glyphs.images, glyphs.images.byte())
    for images in (*wrong, glyphs.images[..., :7], "x"):
        with pytest.raises(ValueError, match="images must"):
            replace(glyphs, images=images)


@pytest.mark.parametrize("power", [-1e9, 1e9])
def test_weights_of_any_power_are_probabilities(power: float) -> None:
    weights = draw_shapes(8).take([0, 1, 2, 3, 8, 9, 16]).weights(power)
    most = [0.25] * 4 + [0.0] * 3 if power > 0 else [0.0] * 6 + [1.0]
    torch.testing.assert_close(weights, torch.tensor(most))


@pytest.mark.parametrize("kind", [Emoji, Scenes, partial(CaptionedImages, "folder")])
def test_a_tokenizer_is_asked_for(kind: Callable[..., object]) -> None:
    for wrong in ("words", WordTokenizer):
        with pytest.raises(ValueError, match="tokenizer must be a Tokenizer"):
            kind(tokenizer=wrong)
