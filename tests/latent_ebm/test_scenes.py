"""Scenes: what is drawn is what is masked, said and read back; a row is a function of seed, epoch
and index.
"""

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
import torch

from latent_ebm.data import Placed, Scene, SceneParser, Scenery, Scenes, draw_shapes
from latent_ebm.data.base import make_generator
from latent_ebm.data.scene import PALETTE, SIZES, TEXTURES, backdrop, palette
from latent_ebm.data.scene_captions import (
    ALL_PROMPTS,
    counted,
    describe,
    plural,
    prompts_of,
    relation,
)
from latent_ebm.data.scenes import vocabulary
from latent_ebm.text.tokenizer import split_words

GLYPHS = draw_shapes(64).take(range(0, 192, 3))  # 64 of them, all shapes and colours


@cache
def scenery(side: int = 32, textured: float = 0.0, max_num: int = 4) -> Scenery:
    return Scenery(GLYPHS, side, max_num, textured)


def scenes(num: int, count: int, *, stage: Scenery) -> list[Scene]:
    return [stage.draw(make_generator(3, num, i), num) for i in range(count)]


def ready(**arguments: object) -> Scenes:
    data = Scenes(**{"num": 60, "batch_size": 8, **arguments})  # pyright: ignore[reportArgumentType]
    data.setup()
    return data


def eight_bits(x: torch.Tensor) -> torch.Tensor:
    """As a picture comes back from a PNG file."""
    return ((x + 1) * 127.5).round() / 127.5 - 1


# ---------------------------------------------------------------------------------
# drawing and rendering


@pytest.mark.parametrize(("side", "num"), [(32, 1), (32, 4), (64, 2), (64, 5)])
def test_objects_are_inside_and_a_pixel_apart(side: int, num: int) -> None:
    stage = scenery(side, max_num=num)
    for scene in scenes(num, 30, stage=stage):
        taken = torch.zeros(side + 2, side + 2)
        assert len(scene.objects) == num
        for placed in scene.objects:
            assert placed.size in SIZES
            assert 0 <= placed.left <= side - placed.size
            assert 0 <= placed.top <= side - placed.size
            end = placed.size + 1  # the pixel that must be free on two sides
            taken[placed.top : placed.top + end, placed.left : placed.left + end] += 1
        assert taken.max() == 1


def test_scenes_have_all_counts_kinds_sizes_and_backgrounds() -> None:
    drawn = [scenery().draw(make_generator(0, i)) for i in range(400)]
    nums = Counter(len(scene.objects) for scene in drawn)
    assert all(nums[n] == pytest.approx(100, abs=30) for n in (1, 2, 3, 4))
    grounds = Counter(scene.background for scene in drawn)
    assert all(grounds[b] == pytest.approx(50, abs=24) for b in range(len(PALETTE)))
    assert {placed.size for scene in drawn for placed in scene.objects} == set(SIZES)
    kinds = Counter(len({p.glyph for p in s.objects}) for s in drawn if len(s.objects) == 4)
    assert set(kinds) == {1, 2, 3}


def test_a_picture_is_its_objects_on_its_background() -> None:
    """Outside all masks the background; where a mask is 1 the glyph's colour."""
    stage = scenery(64, 0.5)
    for scene in scenes(3, 20, stage=stage):
        x, masks = (stage.render(scene) + 1) / 2, stage.masks(scene)
        outside = masks.sum(0) == 0
        ground = backdrop(scene.background, scene.texture, 64)
        assert torch.allclose(x[:, outside], ground[:, outside])
        for placed, mask in zip(scene.objects, masks, strict=True):
            rows, columns = (slice(c, c + placed.size) for c in (placed.top, placed.left))
            picture = stage.pictures[placed.size][placed.glyph]
            assert torch.equal(mask[rows, columns], picture[3])
            assert mask.count_nonzero() == picture[3].count_nonzero() > 0
            solid = picture[3] == 1
            assert torch.allclose(x[:, rows, columns][:, solid], picture[:3, solid])


def test_no_object_hides_on_its_background() -> None:
    white = GLYPHS.images.clone()
    white[:, :3] = 1.0
    hidden = replace(GLYPHS, images=white)
    with pytest.raises(
        ValueError, match="at least 3 glyphs must be seen on every background, got"
    ):
        Scenery(hidden)
    stage = scenery()
    for background, rows in enumerate(stage.visible):
        for row in rows.tolist():
            scene = Scene((Placed(row, 16, 5, 5),), background)
            gap = (stage.render(scene) + 1) / 2 - palette()[background].view(3, 1, 1)
            assert gap.square().sum() >= 0.01 * 3 * 256


def test_textures_keep_to_their_colour() -> None:
    for background, colour in enumerate(palette()):
        for texture in range(len(TEXTURES)):
            ground = backdrop(background, texture, 32)
            nearest = (ground[None] - palette().view(-1, 3, 1, 1)).square().sum(1).argmin(0)
            assert (nearest == background).all()
            plain = (ground == colour.view(3, 1, 1)).all(0).float().mean()
            assert plain == pytest.approx({0: 1.0, 3: 0.75}.get(texture, 0.5))


# ---------------------------------------------------------------------------------
# the parser


@pytest.mark.parametrize(
    ("side", "textured", "nums", "count"),
    [(32, 0.0, (1, 2, 3, 4), 40), (32, 1.0, (1, 4), 15), (64, 0.0, (5,), 15)],
)
def test_clean_scenes_are_read_exactly(
    side: int, textured: float, nums: tuple[int, ...], count: int
) -> None:
    stage = scenery(side, textured, max_num=nums[-1])
    drawn = [scene for num in nums for scene in scenes(num, count, stage=stage)]
    x = eight_bits(torch.stack([stage.render(scene) for scene in drawn]))
    wrong = [pair for pair in zip(drawn, SceneParser(stage)(x), strict=True) if pair[0] != pair[1]]
    assert len(wrong) <= 0.01 * len(drawn), wrong


def test_an_empty_picture_has_no_objects() -> None:
    x = 2 * torch.stack([backdrop(b, 0, 32) for b in range(len(PALETTE))]) - 1
    assert SceneParser(scenery())(x) == [Scene((), b) for b in range(len(PALETTE))]


def test_pictures_with_a_little_noise_are_still_read() -> None:
    stage = scenery()
    drawn = scenes(3, 20, stage=stage)
    x = torch.stack([stage.render(scene) for scene in drawn])
    noise = 0.05 * torch.randn(x.shape, generator=make_generator(1))
    found = SceneParser(stage)(x + noise)
    art = GLYPHS.art
    right = sum(a.multiset(art) == b.multiset(art) for a, b in zip(drawn, found, strict=True))
    assert right >= 18


def test_an_object_too_many_is_seen() -> None:
    stage = scenery(64, max_num=2)
    scene = scenery(64, max_num=5).draw(make_generator(2), 5)
    found = SceneParser(stage)(stage.render(scene)[None])[0]
    assert len(found.objects) == 3
    assert SceneParser(stage, max_num=5)(stage.render(scene)[None]) == [scene]


def test_neighbours_are_not_one_large_object() -> None:
    """Two squares of 12 pixels, a pixel apart, cover most of one of 16 pixels between them."""
    square = GLYPHS.names.index("yellow square")
    scene = Scene((Placed(square, 12, 3, 9), Placed(square, 12, 16, 9)), 0)
    assert SceneParser(scenery())(scenery().render(scene)[None]) == [scene]


def test_pictures_of_another_shape_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"x must have shape \(n, 3, 32, 32\), got \(1, 3, 64, 64\)"
    ):
        SceneParser(scenery())(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"min_score must be in \(0, 1\], got 0"):
        SceneParser(scenery(), min_score=0)


# ---------------------------------------------------------------------------------
# captions


def placed(*corners: tuple[int, int, int]) -> Scene:
    return Scene(tuple(Placed(glyph, 12, left, top) for glyph, left, top in corners), 4)


NAMES = ["cat", "red fox", "slice of pizza"]
ONE, TWO = ("1", "one", "a"), ("2", "two")
CASES = [
    (placed((0, 0, 0)), "numeric-simple", {"1 cat", "one cat", "a cat"}),
    (placed((1, 0, 0), (1, 20, 20)), "numeric-simple", {"2 red foxes", "two red foxes"}),
    (
        placed((2, 0, 0), (2, 20, 20)),
        "numeric-sentence",
        {f"{a} {n} slices of pizza." for a in ("There are", "A picture of") for n in ("2", "two")},
    ),
    (
        placed((0, 0, 0), (0, 20, 20)),
        "attribute-color",
        {f"{n} cats on a green background" for n in ("2", "two")},
    ),
    (
        placed((0, 0, 0), (1, 20, 20)),
        "2-additive",
        {f"{m} cat and {n} red fox" for m in ("1", "one", "a") for n in ("1", "one", "a")},
    ),
    (
        placed((0, 0, 0), (0, 20, 20), (1, 0, 20)),
        "2-additive-color",
        {
            f"{m} cats and {n} red fox on a green background"
            for m in ("2", "two")
            for n in ("1", "one", "a")
        },
    ),
    (
        placed((0, 0, 0), (0, 0, 20), (1, 12, 3)),
        "attribute-spatial",
        {f"There are {m} cats left of {n} red fox." for m in TWO for n in ONE}
        | {f"There is {n} red fox right of {m} cats." for m in TWO for n in ONE},
    ),
    (
        placed((0, 0, 0), (1, 20, 20), (2, 0, 20), (2, 20, 0)),
        "3-additive",
        {
            f"{a} cat, {b} red fox and {c} slices of pizza"
            for a in ("1", "one", "a")
            for b in ("1", "one", "a")
            for c in ("2", "two")
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("scene", "prompt", "captions"), CASES)
def test_every_prompt_type_says_what_is_there(
    scene: Scene, prompt: str, captions: set[str]
) -> None:
    assert prompt in prompts_of(scene)
    drawn = {describe(scene, NAMES, prompt, make_generator(i)) for i in range(200)}
    assert drawn == captions


def test_relations_hold_for_all_objects_or_not_at_all() -> None:
    assert relation(placed((0, 0, 0), (1, 12, 0))) == (0, "left of", 1)
    assert relation(placed((0, 13, 0), (1, 0, 0))) == (1, "left of", 0)
    assert relation(placed((0, 5, 0), (1, 0, 12))) == (0, "above", 1)
    assert relation(placed((0, 0, 0), (1, 14, 0), (0, 28, 0))) is None  # on both sides
    assert relation(placed((0, 0, 0))) is None
    between = placed((0, 0, 0), (1, 14, 0), (0, 28, 0))
    with pytest.raises(
        ValueError, match="prompt must be one of 2-additive, 2-additive-color here"
    ):
        describe(between, NAMES, "attribute-spatial", make_generator(0))


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("fox", "foxes"),
        ("cherry", "cherries"),
        ("monkey", "monkeys"),
        ("glass of milk", "glasses of milk"),
        ("face with tears of joy", "faces with tears of joy"),
        ("woman running: dark skin tone", "women running: dark skin tone"),
        ("slightly smiling face", "slightly smiling faces"),
        ("books", "books"),
        ("octopus", "octopuses"),
        ("sheep", "sheep"),
        ("fallen leaf", "fallen leaves"),
        ("flag: Brazil", "flags: Brazil"),
    ],
)
def test_plurals(one: str, many: str) -> None:
    assert plural(one) == many


def test_one_of_what_is_plural_has_no_article() -> None:
    texts = {counted("gloves", 1, make_generator(i)) for i in range(30)}
    assert texts == {"1 gloves", "one gloves"}
    assert "an owl" in {counted("owl", 1, make_generator(i)) for i in range(30)}


# ---------------------------------------------------------------------------------
# the data module


def test_captions_fit_their_pictures_and_the_vocabulary() -> None:
    data = ready(side=64, max_num=5, textured=0.5, num=150)
    tokenizer, names = vocabulary(data.scenery.glyphs.names), data.scenery.glyphs.names
    for row, caption in enumerate(data.train.captions(range(150))):
        scene = data.train.scene(row)
        tokenizer([caption], strict=True)
        assert sum(len(split_words(n)) for n in names) > 0
        for glyph, count in Counter(p.glyph for p in scene.objects).items():
            name = names[glyph] if count == 1 else plural(names[glyph])
            assert name in caption
        if caption.endswith("background"):
            assert list(PALETTE)[scene.background] in caption


def test_batches_hold_the_pictures_and_captions_of_their_rows() -> None:
    data = ready()
    assert data.tokenizer is not None
    for batch in data.val_dataloader():
        rows = batch.index.tolist()
        expected = torch.stack([data.scenery.render(data.val.scene(row)) for row in rows])
        assert torch.equal(batch.x, expected)
        assert torch.equal(batch.condition["tokens"], data.tokenizer(data.val.captions(rows)))
    assert torch.equal(
        data.val.label, torch.tensor([len(data.val.scene(r).objects) for r in range(6)])
    )
    assert torch.equal(data.val[-1].x, data.val.x[5])


def test_training_scenes_are_a_function_of_seed_epoch_and_row() -> None:
    data, same, other = ready(), ready(), ready(seed=1)
    order = data.order(1, 0, 0)
    first = [data.train.scene(row) for row in range(20)]
    order.set_epoch(1)
    second = [data.train.scene(row) for row in range(20)]
    assert sum(a == b for a, b in zip(first, second, strict=True)) == 0
    same.order(1, 0, 0).set_epoch(1)
    rows = list(reversed(range(20)))
    batch = same.train.__getitems__(rows)
    assert torch.equal(batch.x.flip(0), data.train.__getitems__(list(range(20))).x)
    assert same.train.captions(rows)[::-1] == data.train.captions(range(20))
    order.set_epoch(0)
    assert [data.train.scene(row) for row in range(20)] == first
    assert [other.train.scene(row) for row in range(20)] != first
    assert [data.test.scene(row) for row in range(6)] != first[:6]


@pytest.mark.parametrize("prompt", ALL_PROMPTS)
def test_one_prompt_type_can_be_asked_for_alone(prompt: str) -> None:
    data = ready(prompts=[prompt])
    for row in range(10):
        assert prompt in prompts_of(data.train.scene(row))


def test_groups_choose_the_glyphs() -> None:
    data = ready(groups=["round"])
    assert set(data.scenery.glyphs.group) == {"round"}
    with pytest.raises(
        ValueError, match="groups must be some of angular, pointed, round, got 'pet'"
    ):
        ready(groups=["round", "pet"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"side": 48}, "side of a scene must be 32 or 64, got 48"),
        ({"max_num": 5}, "max_num of a scene must be at most 4 at side 32, got 5"),
        ({"max_num": 6, "side": 64}, "max_num of a scene must be at most 5 at side 64, got 6"),
        ({"max_num": 0}, "max_num must be an integer >= 1"),
        ({"textured": 1.1}, r"textured must be in \[0, 1\], got 1.1"),
        ({"prompts": ["numeric"]}, "prompts must be some of numeric-simple, .*, got 'numeric'"),
        ({"prompts": ["3-additive"], "max_num": 2}, "must fit a scene of at most max_num = 2"),
        ({"prompts": []}, "prompts must fit a scene .* got none"),
        ({"source": "drawn"}, "source must be one of pack, font, shapes, got 'drawn'"),
        ({"num": 0}, "num must be an integer >= 1"),
    ],
)
def test_odd_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ready(**arguments)


def test_what_is_no_picture_is_not_read() -> None:
    parser = SceneParser(scenery())
    with pytest.raises(FloatingPointError, match="x must be finite: 1 of 1 are not"):
        parser(torch.full((1, 3, 32, 32), torch.nan))
    for wrong in (torch.zeros(1, 3, 32, 32).byte(), "x", None):
        with pytest.raises(ValueError, match="x must be"):
            parser(wrong)  # pyright: ignore[reportArgumentType]
    for number in (0, True, 2.5, "x"):
        with pytest.raises(ValueError, match="max_num must be an integer >= 1"):
            SceneParser(scenery(), max_num=number)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="scenery must be a Scenery"):
        SceneParser(ready())  # pyright: ignore[reportArgumentType]
