"""Portraits: what is drawn is what is masked, cut out and said; some subjects are held out."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from latent_ebm.conditions import Batch
from latent_ebm.data import Portrait, Studio, Subjects, draw_shapes
from latent_ebm.data.base import make_generator
from latent_ebm.data.portrait import MASKS, POSES, describe_portrait
from latent_ebm.data.scene import PALETTE, backdrop
from latent_ebm.denoisers import Preconditioned
from latent_ebm.learning import Denoising
from latent_ebm.networks import MobileUNet
from latent_ebm.text import TextConditioner, TextTransformer, WordTokenizer
from samplers import DDIM, VPCosine
from tests.latent_ebm.test_emoji import SPLITS, write_pack

STUDIO = Studio(draw_shapes(64))
ARROW = STUDIO.glyphs.names.index("red arrow")
NOISE = VPCosine(-7.0)


def ready(**arguments: object) -> Subjects:
    data = Subjects(**{"num": 60, "batch_size": 8, **arguments})  # pyright: ignore[reportArgumentType]
    data.setup()
    return data


def drawn(num: int, studio: Studio = STUDIO) -> list[Portrait]:
    rows = range(0, len(studio.glyphs), 5)
    return [studio.draw(make_generator(1, i), rows[i % len(rows)]) for i in range(num)]


# ---------------------------------------------------------------------------------
# portraits


def test_a_picture_is_its_subject_on_its_background() -> None:
    """Bit for bit the background where the mask is 0; another colour where it is 1 and opaque."""
    studio = Studio(STUDIO.glyphs, textured=0.5)
    for portrait in drawn(40, studio):
        x, mask = studio.render(portrait), studio.mask(portrait)[0].bool()
        ground = 2 * backdrop(portrait.background, portrait.texture, 32) - 1
        assert torch.equal(x[:, ~mask], ground[:, ~mask])
        picture = studio.pictures[portrait.glyph, portrait.pose]
        rows, columns = (slice(c, c + 20) for c in (portrait.top, portrait.left))
        assert mask.sum() == mask[rows, columns].sum() == (picture[3] > 0).sum() > 0
        solid = picture[3] == 1
        assert torch.allclose(x[:, rows, columns][:, solid], 2 * picture[:3, solid] - 1)


def test_only_the_poses_that_are_asked_for_are_drawn() -> None:
    studio = Studio(STUDIO.glyphs, poses=["upside down", "upright"])
    assert {one.pose for one in drawn(60, studio)} == {0, 2}
    data = ready(num=20, poses=["upside down", "upright"])
    tokenizer = data.train.tokenizer
    assert isinstance(tokenizer, WordTokenizer)
    words = set(tokenizer.words)
    assert {"upside", "down", "upright"} <= words
    assert not {"turned", "right"} & words
    name = str(data.test.studio.glyphs.names[0])
    with pytest.raises(ValueError, match="pose must be one of upside down, upright, got 'turned"):
        data.photos(name, pose="turned left")
    with pytest.raises(ValueError, match=r"poses must be some of upright, .*, got 'sideways'"):
        Subjects(poses=["sideways"])
    with pytest.raises(ValueError, match=r"poses must be a list of upright, .*, got 'upright'"):
        Studio(STUDIO.glyphs, poses="upright")


@pytest.mark.parametrize(("spread", "places"), [(0, {6}), (2, set(range(4, 9))), (99, None)])
def test_subjects_are_at_most_spread_pixels_from_the_centre(spread: int, places: set) -> None:
    studio = Studio(STUDIO.glyphs, spread=spread)
    corners = [corner for one in drawn(150, studio) for corner in (one.left, one.top)]
    assert set(corners) == (places or set(range(13)))
    if places is None:
        assert drawn(20, studio) == drawn(20)
    with pytest.raises(ValueError, match="spread must be an integer >= 0, got -1"):
        Studio(STUDIO.glyphs, spread=-1)


@pytest.mark.parametrize(
    ("pose", "points"),
    [
        ("upright", "right"),
        ("turned left", "up"),
        ("upside down", "left"),
        ("turned right", "down"),
    ],
)
def test_a_pose_says_where_an_arrow_points(pose: str, points: str) -> None:
    """An upright arrow points to the right; most of it is its head."""
    mask = STUDIO.mask(Portrait(ARROW, POSES.index(pose), 3, 7, 0))[0, 7:27, 3:23]
    halves = {"up": mask[:10], "left": mask[:, :10], "down": mask[10:], "right": mask[:, 10:]}
    assert max(halves, key=lambda half: float(halves[half].sum())) == points


def test_masks_are_nested_and_a_box_does_not_tell_the_pose() -> None:
    for portrait in drawn(20):
        alpha, dilated, box = (STUDIO.mask(portrait, kind) for kind in MASKS)
        assert bool((alpha <= dilated).all())
        assert bool((alpha <= box).all())
        assert box.sum() == 400
        assert torch.equal(box, STUDIO.mask(portrait._replace(pose=1), "box"))
    near = STUDIO.mask(Portrait(ARROW, 0, 5, 5, 0))[0].nonzero()
    grown = STUDIO.mask(Portrait(ARROW, 0, 5, 5, 0), "dilated")[0]
    for row, column in torch.cartesian_prod(torch.arange(32), torch.arange(32)).tolist():
        reach = (near - torch.tensor([row, column])).abs().amax(1).min()
        assert bool(grown[row, column]) == bool(reach <= 2)


def test_a_reference_is_the_subject_of_the_picture_on_white() -> None:
    """Whatever the place and background, and turned as in the picture."""
    for portrait in drawn(20):
        there = STUDIO.reference(portrait)
        moved = portrait._replace(left=0, top=12, background=3, texture=2)
        assert torch.equal(there, STUDIO.reference(moved))
        assert torch.equal(there.rot90(1, (1, 2)), STUDIO.reference(turned(portrait)))
        white = portrait._replace(left=6, top=6, background=0, texture=0)
        assert torch.equal(there, STUDIO.render(white))


def turned(portrait: Portrait) -> Portrait:
    return portrait._replace(pose=(portrait.pose + 1) % 4)


def test_captions_say_subject_pose_and_background() -> None:
    portrait = Portrait(ARROW, 2, 0, 0, list(PALETTE).index("blue"))
    assert STUDIO.name(portrait) == "a red arrow"
    assert STUDIO.kind(portrait) == "a pointed shape"
    text = describe_portrait("a fox", portrait.pose, portrait.background)
    assert text == "a fox, upside down, on a blue background"
    assert describe_portrait("food", 0, 0, 1) == "food, upright, on a striped white background"


# ---------------------------------------------------------------------------------
# the data module


def test_held_out_subjects_are_seen_in_the_test_alone() -> None:
    data = ready(num=300)
    seen, unseen = (set(part.studio.glyphs.hexcode) for part in (data.train, data.test))
    assert not seen & unseen
    assert seen | unseen == set(data.glyphs.hexcode)
    assert not set(data.train.studio.glyphs.base) & set(data.test.studio.glyphs.base)
    assert data.val.studio is data.train.studio
    shown = {data.train.portrait(row).glyph for row in range(300)}
    assert len(shown) > 0.7 * len(seen) * (1 - 1 / 2.7)


def test_batches_hold_what_their_rows_show() -> None:
    data = ready(textured=0.5, masks=["alpha", "box"], kind_share=0.5)
    assert data.tokenizer is not None
    for part, loader in ((data.val, data.val_dataloader()), (data.test, data.test_dataloader())):
        studio = part.studio
        for batch in loader:
            rows = batch.index.tolist()
            portraits = [part.portrait(row) for row in rows]
            assert torch.equal(batch.x, torch.stack([studio.render(p) for p in portraits]))
            told = batch.condition
            assert torch.equal(told["tokens"], data.tokenizer(part.captions(rows), strict=True))
            kinds = [studio.kind(p) for p in portraits]
            assert torch.equal(told["class_tokens"], data.tokenizer(kinds, strict=True))
            assert torch.equal(told["label"], part.label[rows])
            for p, mask, reference in zip(portraits, told["mask"], told["reference"], strict=True):
                assert any(torch.equal(mask, studio.mask(p, kind)) for kind in ("alpha", "box"))
                assert torch.equal(reference, studio.reference(p))
            assert not told.rows(slice(1)).null.keys() - {"tokens", "class_tokens"}
            assert bool((told["tokens"][:, -5:] == data.tokenizer.padding).all())
    one = data.val[-1]
    assert torch.equal(one.x, data.val.x[5])
    assert one.condition["mask"].shape == (1, 32, 32)


def test_captions_name_the_subject_or_its_kind_and_never_one_that_is_held_out() -> None:
    data = ready(num=400, kind_share=0.25)
    part = data.train
    by_kind = [
        caption == describe_portrait(part.studio.kind(p), p.pose, p.background)
        for caption, p in zip(
            part.captions(range(400)), map(part.portrait, range(400)), strict=True
        )
    ]
    assert sum(by_kind) == pytest.approx(100, abs=35)
    for row, caption in enumerate(data.test.captions(range(40))):
        p = data.test.portrait(row)
        assert caption == describe_portrait(data.test.studio.kind(p), p.pose, p.background)
    poses = Counter(part.portrait(row).pose for row in range(400))
    assert all(poses[k] == pytest.approx(100, abs=35) for k in range(4))


def test_training_portraits_are_a_function_of_seed_epoch_and_row() -> None:
    data, same, other = ready(), ready(), ready(seed=1)
    order = data.order(1, 0, 0)
    first = [data.train.portrait(row) for row in range(20)]
    order.set_epoch(1)
    second = [data.train.portrait(row) for row in range(20)]
    assert first != second
    same.order(1, 0, 0).set_epoch(1)
    rows = list(range(20))
    batch, there = same.train.__getitems__(rows[::-1]), data.train.__getitems__(rows)
    assert torch.equal(batch.x.flip(0), there.x)
    assert all(torch.equal(v.flip(0), there.condition[k]) for k, v in batch.condition.items())
    order.set_epoch(0)
    assert [data.train.portrait(row) for row in range(20)] == first
    assert [other.train.portrait(row) for row in range(20)] != first


def test_photos_show_one_subject() -> None:
    data = ready(textured=0.9)
    names = data.test.studio.glyphs.names
    batch = data.photos(names[3], 6, generator=make_generator(0))
    again = data.photos(names[3], 6, generator=make_generator(0))
    assert torch.equal(batch.x, again.x)
    assert isinstance(batch, Batch)
    assert batch.condition["mask"].shape == (6, 1, 32, 32)
    upright = data.photos(names[3], 4, pose="upright", background="black")
    assert torch.equal(*(upright.condition["reference"][i : i + 2] for i in (0, 2)))
    corner = 2 * torch.tensor(PALETTE["black"]) - 1
    outside = upright.condition["mask"].expand_as(upright.x) == 0
    expected = corner.view(1, 3, 1, 1).expand_as(upright.x)
    assert torch.equal(upright.x[outside], expected[outside])


def test_a_text_conditional_rule_learns_from_these_batches() -> None:
    """The entries that it does not use are in its way neither as they are nor dropped."""
    data = ready()
    assert data.tokenizer is not None
    network = MobileUNet((3, 32, 32), 8, (8,), (1,), (1,), (False,), (True,), patch=2)
    rule = Denoising(
        Preconditioned(network, NOISE),
        DDIM(NOISE, 2),
        (3, 32, 32),
        torch.optim.SGD,
        conditioner=TextConditioner(TextTransformer(data.tokenizer, dim=8)),
        dropout=0.5,
    )
    loss = rule.losses(next(iter(data.train_dataloader())))["denoising"]
    assert bool(loss.isfinite())


def test_the_recipe_knows_the_words_of_all_captions() -> None:
    path = Path(__file__).parents[2] / "experiments" / "subjects" / "base.yaml"
    words = yaml.safe_load(path.read_text())["data"]["init_args"]["tokenizer"]["init_args"]
    counted = ready().tokenizer
    assert isinstance(counted, WordTokenizer)
    assert set(words["words"]) == set(counted.words)
    assert words["max_words"] == counted.max_words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "drawn"}, "source must be one of pack, font, shapes, got 'drawn'"),
        ({"size": 33}, "size of a subject must be at most the side 32, got 33"),
        ({"side": 4}, "side must be an integer >= 8, got 4"),
        ({"textured": 2.0}, r"textured must be in \[0, 1\], got 2.0"),
        ({"masks": "alpha"}, "masks must be a list of alpha, dilated, box, got 'alpha'"),
        ({"masks": ["round"]}, "masks must be some of alpha, dilated, box, got 'round'"),
        ({"masks": []}, r"masks must be a list of alpha, dilated, box, got \[\]"),
        ({"kind_share": -0.1}, r"kind_share must be in \[0, 1\], got -0.1"),
        ({"groups": ["pet"]}, "groups must be some of angular, pointed, round, got 'pet'"),
        ({"num": 0}, "num must be an integer >= 1"),
        ({"source": "pack", "path": "/nowhere"}, "nowhere"),
    ],
)
def test_odd_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        ready(**arguments)


def test_odd_photos_are_refused() -> None:
    data = ready()
    name = data.test.studio.glyphs.names[0]
    with pytest.raises(ValueError, match=f"such as {name!r}, got 'unicorn'"):
        data.photos("unicorn")
    with pytest.raises(ValueError, match="subject must be one that is held out"):
        data.photos(data.train.studio.glyphs.names[0])
    with pytest.raises(ValueError, match=r"one of upright, turned left.* got 'lying'"):
        data.photos(name, pose="lying")
    with pytest.raises(ValueError, match=r"background must be one of white.* got 'red'"):
        data.photos(name, background="red")
    with pytest.raises(ValueError, match="num must be an integer >= 1"):
        data.photos(name, 0)


def test_what_cannot_be_seen_is_no_subject() -> None:
    images = STUDIO.glyphs.images.clone()
    images[4, 3] = 0
    hidden = replace(STUDIO.glyphs, images=images)
    with pytest.raises(ValueError, match="glyphs must be seen on a background, got"):
        Studio(hidden)


# ---------------------------------------------------------------------------------
# packs


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    write_pack(tmp_path)
    return tmp_path


def test_subjects_of_a_pack_are_held_out_as_it_says(pack: Path) -> None:
    data = ready(source="pack", path=str(pack), style="one", num=20)
    assert list(data.test.studio.glyphs.names) == ["fox"]
    assert "fox" not in data.train.studio.glyphs.names
    photos = data.photos("fox", 4, background="white", generator=make_generator(0))
    assert photos.x.shape == (4, 3, 32, 32)
    with pytest.raises(ValueError, match="subject must be one that is held out, such as 'fox'"):
        data.photos("cat")


def test_packs_and_groups_without_such_subjects_are_refused(pack: Path) -> None:
    place = {"source": "pack", "path": str(pack), "style": "one"}
    with pytest.raises(ValueError, match=r"must hold subjects .* got 0 held out of 12"):
        ready(**place, groups=["people-body"])
    with pytest.raises(FileNotFoundError, match=r"some of one, two in .*, got 'three'"):
        ready(**{**place, "style": "three"})
    (pack / SPLITS).write_text('{"composition_held_out": ["1F000"]}')
    with pytest.raises(ValueError, match="splits of the pack must hold subject_held_out"):
        ready(**place)
    write_pack(pack)
    (pack / "emoji_one_64.npz").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"emoji_one_64.npz must hold pictures of emoji"):
        ready(**place)
