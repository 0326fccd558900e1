"""Segmentation and identity: plain backgrounds, and tiny random models of transformers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latent_ebm.data import Studio, draw_shapes
from latent_ebm.data.base import make_generator
from latent_ebm.subjects import PlainBackground, load_identity, load_segmenter

FIND = PlainBackground()


def square(left: int, top: int, size: int, side: int = 32) -> Tensor:
    """A mask (1, 1, side, side) of a square."""
    mask = torch.zeros(1, 1, side, side)
    mask[..., top : top + size, left : left + size] = 1
    return mask


def painted(*masks: Tensor) -> Tensor:
    """Red masks on grey."""
    there = torch.stack(masks).amax(0)
    return torch.cat([0.2 + 0.6 * there, 0.2 - 0.9 * there, 0.2 - 0.9 * there], 1)


# ---------------------------------------------------------------------------------
# plain backgrounds


def test_what_stands_out_is_the_subject() -> None:
    ring = square(5, 5, 11) - square(8, 8, 5)
    assert torch.equal(FIND(painted(square(3, 9, 12))), square(3, 9, 12))
    assert torch.equal(FIND(painted(ring)), square(5, 5, 11))  # with its hole
    assert torch.equal(FIND(painted(square(3, 3, 10), square(25, 25, 2))), square(3, 3, 10))


def test_a_point_or_a_box_chooses() -> None:
    small, large = square(3, 3, 6), square(16, 14, 12)
    x = painted(small, large).repeat(2, 1, 1, 1)
    points = torch.tensor([[2, 4], [20, 20]])  # as columns and rows, the first a little beside
    assert torch.equal(FIND(x, point=points), torch.cat([small, large]))
    boxes = torch.tensor([[0, 0, 10, 10], [15, 13, 30, 30]])
    assert torch.equal(FIND(x, box=boxes), torch.cat([small, large]))
    assert torch.equal(FIND(x), torch.cat([small + large] * 2))
    across = painted(square(20, 2, 8), square(2, 20, 8))
    assert torch.equal(FIND(across, point=torch.tensor([[22, 3]])), square(20, 2, 8))
    beside = torch.tensor([[18, 0, 31, 12]])
    assert torch.equal(FIND(across, box=beside), square(20, 2, 8))


def test_masks_of_portraits_are_nearly_those_of_their_opacity() -> None:
    """Also on textures; a faint edge does not stand out."""
    studio = Studio(draw_shapes(64), textured=0.5)
    solid = [i for i, name in enumerate(studio.glyphs.names) if "hollow" not in name]
    portraits = [studio.draw(make_generator(i), solid[i]) for i in range(60)]
    x, masks = (torch.stack(list(map(f, portraits))) for f in (studio.render, studio.mask))
    found = FIND(x)
    overlap = (found * masks).sum((1, 2, 3)) / (found + masks).clamp(max=1).sum((1, 2, 3))
    assert overlap.mean() > 0.85
    assert overlap.min() > 0.6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(3, 8, 8)}, r"x must be floating-point pictures \(n >= 1, C, H, W\)"),
        ({"point": torch.zeros(1, 2), "box": torch.zeros(1, 4)}, "must not be given at once"),
        ({"point": torch.zeros(2)}, r"point must have shape \(1, 2\), got \(2,\)"),
        ({"box": torch.zeros(1, 2)}, r"box must have shape \(1, 4\), got \(1, 2\)"),
        ({"point": torch.tensor([[32, 0]])}, "point must lie in a picture of 32 x 32 pixels"),
        ({"x": painted(0 * square(0, 0, 1))}, "x must show a subject in every picture, got none"),
        ({"box": torch.tensor([[0, 0, 2, 2]])}, "x must show a subject .* got none in row 0"),
    ],
)
def test_odd_requests_are_refused(arguments: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FIND(**{"x": painted(square(9, 9, 9)), **arguments})


def test_odd_pictures_and_numbers_are_refused() -> None:
    with pytest.raises(FloatingPointError, match="x must be finite"):
        FIND(torch.full((1, 3, 8, 8), torch.nan))
    with pytest.raises(ValueError, match="tolerance must be finite and positive, got 0"):
        PlainBackground(0)


# ---------------------------------------------------------------------------------
# models of transformers

VIT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


def write_dino(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers", reason="not installed: transformers")
    torch.manual_seed(0)
    config = transformers.Dinov2Config(**VIT, image_size=16, patch_size=8, mlp_ratio=1)
    return saved(transformers.Dinov2Model(config), folder)


def write_vit(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers", reason="not installed: transformers")
    torch.manual_seed(1)
    return saved(transformers.ViTModel(transformers.ViTConfig(**VIT, image_size=16)), folder)


def write_clip(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers", reason="not installed: transformers")
    torch.manual_seed(2)
    config = transformers.CLIPVisionConfig(**VIT, image_size=16, patch_size=8, projection_dim=6)
    return saved(transformers.CLIPVisionModelWithProjection(config), folder)


def write_sam(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers", reason="not installed: transformers")
    torch.manual_seed(3)
    vision = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 8}
    config = transformers.SamConfig(
        vision_config={**vision, "image_size": 64, "patch_size": 16, "output_channels": 8,
                       "global_attn_indexes": [0], "num_pos_feats": 4},
        prompt_encoder_config={"hidden_size": 8, "image_size": 64, "patch_size": 16,
                               "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 8, "num_hidden_layers": 1, "mlp_dim": 8,
                             "num_attention_heads": 2, "iou_head_hidden_dim": 8},
    )  # fmt: skip
    return saved(transformers.SamModel(config), folder)


def saved(model: Any, folder: Path) -> Any:
    model.save_pretrained(folder)
    return model.eval()


def pictures(num: int = 3, side: int = 16) -> Tensor:
    return torch.rand(num, 3, side, side, generator=make_generator(7)) * 2 - 1


def imagenet(x: Tensor) -> Tensor:
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    return ((x + 1) / 2 - mean) / deviation


@pytest.mark.parametrize("write", [write_dino, write_vit, write_clip])
def test_identity_is_the_feature_of_the_saved_model(
    write: Callable[[Path], Any], tmp_path: Path
) -> None:
    """In its own colours, of length 1, in evaluation mode, without gradients of its weights."""
    model, x = write(tmp_path), pictures()
    encode = load_identity(tmp_path).train()
    with torch.no_grad():
        made = model(pixel_values=imagenet(x))
    expected = made.image_embeds if "image_embeds" in made else made.last_hidden_state[:, 0]
    unit = expected / expected.norm(dim=1, keepdim=True)
    assert torch.allclose(encode(x), unit, atol=1e-5)
    assert torch.equal(encode(x), encode(x))
    assert not any(parameter.requires_grad for parameter in encode.parameters())
    flat = torch.full((1, 3, 40, 24), 0.3)
    assert torch.allclose(encode(flat), encode(flat[..., :16, :16]), atol=1e-5)


def test_colours_and_side_are_those_of_the_preprocessor(tmp_path: Path) -> None:
    model, x = write_dino(tmp_path), pictures(side=32)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], '
        '"crop_size": {"height": 32, "width": 32}}'
    )
    with torch.no_grad():
        expected = model(pixel_values=x).last_hidden_state[:, 0]
    found = load_identity(tmp_path)(x)
    assert torch.allclose(found, expected / expected.norm(dim=1, keepdim=True), atol=1e-5)


@pytest.mark.parametrize("side", [32, 64])
def test_segmenter_is_the_mask_of_the_saved_model(side: int, tmp_path: Path) -> None:
    """That of the highest score, in the size of the picture, where its logit is positive; points
    and boxes are in pixels of the picture.
    """
    model, x = write_sam(tmp_path), pictures(side=side)
    segment = load_segmenter(tmp_path).train()
    point = torch.tensor([[10.0, 20.0], [30.0, 4.0], [25.0, 5.0]])
    box = torch.tensor([[4.0, 4.0, 25.0, 30.0]]).repeat(3, 1)
    seen = torch.nn.functional.interpolate(imagenet(x), (64, 64), mode="bilinear", antialias=True)
    factor = 64 / side
    for told, given in (
        ({"input_points": factor * point[:, None, None]}, {"point": point}),
        ({"input_boxes": factor * box[:, None]}, {"box": box}),
        ({"input_points": torch.full((3, 1, 1, 2), 32.0)}, {}),
    ):
        with torch.no_grad():
            made = model(pixel_values=seen, **told)
        best = made.iou_scores[:, 0].argmax(1)
        logits = torch.stack([made.pred_masks[i, 0, k] for i, k in enumerate(best)])[:, None]
        for sides in (64, side):
            logits = torch.nn.functional.interpolate(
                logits, (sides, sides), mode="bilinear", antialias=True
            )
        assert torch.equal(segment(x, **given), (logits > 0).float())


def test_pictures_that_are_not_square_are_padded_and_cut(tmp_path: Path) -> None:
    write_sam(tmp_path)
    mask = load_segmenter(tmp_path)(pictures(2)[..., :8, :].repeat(1, 1, 1, 3))
    assert mask.shape == (2, 1, 8, 48)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}


def test_folders_without_such_a_model_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="not installed: transformers")
    with pytest.raises(FileNotFoundError, match="configuration of a model of transformers"):
        load_identity(tmp_path)
    write_dino(tmp_path / "dino")
    with pytest.raises(ValueError, match="must hold a SamModel, got a Dinov2Model"):
        load_segmenter(tmp_path / "dino")
    from tests.latent_ebm.pipelines import write_text_encoder

    write_text_encoder(tmp_path, ["red"])
    with pytest.raises(ValueError, match="must hold a model of images, got a CLIPTextModel"):
        load_identity(tmp_path / "text_encoder")
    with pytest.raises(ValueError, match=r"x must be floating-point pictures \(n, 3, H, W\)"):
        load_identity(tmp_path / "dino")(torch.zeros(1, 1, 16, 16))
    (tmp_path / "dino" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="must hold a model of transformers and its weights"):
        load_identity(tmp_path / "dino")
