"""Models of ``transformers`` that tell identity (DINO) and segment pictures (SAM), from local
folders. Nothing is downloaded or unpickled.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize, pad

from latent_ebm.foreign import read_json
from latent_ebm.subjects.identity import IdentityEncoder
from latent_ebm.subjects.segmentation import Segmenter, check_found, check_request
from latent_ebm.text.pretrained import import_transformers, read_weights
from samplers.checks import check_counts

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the images of ImageNet


class Colours(nn.Module):
    """Pictures (n, 3, H, W) in [-1, 1] with colours as a model was trained on.

    Args:
        mean: Mean of red, green and blue in [0, 1].
        deviation: Their standard deviation.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, mean: Sequence[float] = MEAN, deviation: Sequence[float] = DEVIATION
    ) -> None:
        super().__init__()
        if not len(mean) == len(deviation) == 3:
            raise ValueError(f"mean and deviation must be three numbers, got {mean}, {deviation}")
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
            raise ValueError(
                f"x must be floating-point pictures (n, 3, H, W), got {x.dtype} of shape "
                f"{tuple(x.shape)}"
            )
        return ((x + 1) / 2 - self.mean) / self.deviation


class PretrainedIdentity(IdentityEncoder):
    """The class token of DINO or DINOv2, or the image embedding of CLIP, scaled to length 1.

    The mean inner product of such vectors is the DINO or the CLIP-I score. Whole pictures are
    resized; nothing is cropped. The model is always in evaluation mode.

    Args:
        model: A model of ``transformers``, such as a ``Dinov2Model``, a ``ViTModel`` or a
            ``CLIPVisionModelWithProjection``.
        side: Pixels of a side of the pictures that it sees.
        colours: Puts colours into the units of the model.
    """

    def __init__(self, model: nn.Module, side: int, colours: Colours) -> None:
        super().__init__()
        check_counts(self, side=side)
        self.model, self.side, self.colours = model.eval(), side, colours

    def forward(self, x: Tensor) -> Tensor:
        """Unit vectors (n, D) of pictures ``x`` (n, 3, H, W) in [-1, 1]."""
        seen = resized(self.colours(x), (self.side, self.side))
        made = self.model(pixel_values=seen)
        return normalize(made["image_embeds"] if "image_embeds" in made else made[0][:, 0])

    def train(self, mode: bool = True) -> "PretrainedIdentity":
        """Stays in evaluation mode."""
        return super().train(False)


class PretrainedSegmenter(Segmenter):
    """SAM (Kirillov et al. 2023, arXiv:2304.02643): of its three masks, the one that it trusts
    most.

    Without a point or a box, the middle of the picture is the point. The model is always in
    evaluation mode.

    Args:
        model: A ``SamModel`` of ``transformers``.
        side: Pixels of the longer side of the pictures that it sees.
        colours: Puts colours into the units of the model.
    """

    def __init__(self, model: nn.Module, side: int, colours: Colours) -> None:
        super().__init__()
        check_counts(self, side=side)
        self.model, self.side, self.colours = model.eval(), side, colours

    @torch.no_grad()
    def forward(self, x: Tensor, point: Tensor | None = None, box: Tensor | None = None) -> Tensor:
        """Masks (n, 1, H, W); arguments and errors are those of ``Segmenter``."""
        check_request(x, point, box)
        height, width = x.shape[2:]
        scale = self.side / max(height, width)
        sides = (max(1, round(scale * height)), max(1, round(scale * width)))
        seen = resized(self.colours(x), sides)
        seen = pad(seen, (0, self.side - sides[1], 0, self.side - sides[0]))
        made = self.model(pixel_values=seen, **where(x, point, box, scale))
        best = made["iou_scores"][:, 0].argmax(1)
        logits = made["pred_masks"][torch.arange(len(x)), 0, best][:, None]
        whole = resized(logits, (self.side, self.side))[..., : sides[0], : sides[1]]
        masks = (resized(whole, (height, width)) > 0).to(x)
        check_found(masks)
        return masks

    def train(self, mode: bool = True) -> "PretrainedSegmenter":
        """Stays in evaluation mode."""
        return super().train(False)


def where(x: Tensor, point: Tensor | None, box: Tensor | None, scale: float) -> dict[str, Tensor]:
    """What SAM takes for a point (n, 2) or a box (n, 4) in the pixels of ``x``."""
    if box is not None:
        return {"input_boxes": scale * box.to(x)[:, None]}
    if point is None:
        point = torch.tensor([x.shape[3], x.shape[2]]).expand(len(x), 2) / 2
    return {"input_points": scale * point.to(x)[:, None, None]}


def load_identity(folder: str | os.PathLike[str]) -> PretrainedIdentity:
    """The identity encoder in a folder of ``transformers``, frozen: DINO, DINOv2 or CLIP.

    Colours and the side are those of its ``preprocessor_config.json``, if there is one.

    Args:
        folder: A folder with ``config.json`` and weights as .safetensors.

    Raises:
        ImportError: Without the package ``transformers``.
        FileNotFoundError: If the configuration of the model is missing.
        ValueError: If the folder holds no model of images, or weights are missing or do not fit.
    """
    return PretrainedIdentity(*read_pictures(Path(folder).expanduser())).requires_grad_(False)


def load_segmenter(folder: str | os.PathLike[str]) -> PretrainedSegmenter:
    """The model SAM in a folder of ``transformers``, frozen.

    Args:
        folder: As in ``load_identity``.

    Raises:
        ImportError: Without the package ``transformers``.
        FileNotFoundError: If the configuration of the model is missing.
        ValueError: If the folder holds another model, or weights are missing or do not fit.
    """
    model, side, seen = read_vision(Path(folder).expanduser())
    if not hasattr(model, "mask_decoder"):
        raise ValueError(f"{folder} must hold a SamModel, got a {type(model).__name__}")
    return PretrainedSegmenter(model, side, colours_of(seen)).requires_grad_(False)


def read_pictures(folder: Path) -> tuple[nn.Module, int, Colours]:
    """The model of whole images in ``folder``, the side of what it sees of them, and colours."""
    model, side, seen = read_vision(folder)
    cropped = seen.get("crop_size")
    side = cropped.get("height", side) if isinstance(cropped, dict) else side
    return model, side, colours_of(seen)


def read_vision(folder: Path) -> tuple[nn.Module, int, dict[str, Any]]:
    """The model of images in ``folder``, the side of its pictures, and how they are prepared."""
    model = read_weights(import_transformers(folder), folder)
    config = vars(model)["config"]
    config = getattr(config, "vision_config", config)
    if not hasattr(config, "image_size"):
        raise ValueError(f"{folder} must hold a model of images, got a {type(model).__name__}")
    path = folder / "preprocessor_config.json"
    return model, config.image_size, read_json(path) if path.exists() else {}


def colours_of(seen: Mapping[str, Any]) -> Colours:
    """The colours that a preprocessor names; those of ImageNet if it names none."""
    return Colours(seen.get("image_mean", MEAN), seen.get("image_std", DEVIATION))


def resized(x: Tensor, sides: tuple[int, int]) -> Tensor:
    """Images or maps ``x`` (n, C, H, W) with other ``sides``; smaller ones are averages."""
    return interpolate(x, sides, mode="bilinear", antialias=True)
