"""Text-to-image and inpainting pipelines of ``diffusers`` from local folders, as parts of
``TextToImage`` and ``Inpainter``.

A ``StableDiffusionPipeline`` is a text encoder, a U-Net with cross-attention, an autoencoder and a
scheduler. The betas and the prediction type of the scheduler say what the U-Net was trained for
(``VPDiscrete`` and ``Preconditioned``); how it leads from noise to images is a choice of the user.
Here it is DDIM with the scheduler's spacing of steps, which ends at the first training step.
Nothing is downloaded or unpickled. A safety checker in the folder is not run.
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from latent_ebm.autoencoders import Autoencoder, load_autoencoder
from latent_ebm.denoisers import Preconditioned, load_teacher
from latent_ebm.foreign import read_json
from latent_ebm.text import TextConditioner, load_text_encoder
from samplers import DDIM, VPDiscrete
from samplers.vp_discrete import SPACINGS

INDEX = "model_index.json"
PIPELINE, INPAINTING = "StableDiffusionPipeline", "StableDiffusionInpaintPipeline"
COMPONENTS = {  # classes that a component may have; none: whatever the other checks allow
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": (),
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "scheduler": (),
}
FURTHER_INPUTS = (  # of a U-Net that takes more than noise, time and text
    "addition_embed_type",
    "class_embed_type",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
)
NUM_STEPS, GUIDANCE = 50, 7.5  # defaults of the pipeline


class WithKnown(nn.Module):
    """An inpainting U-Net of ``diffusers``, which sees ``[x, hole, kept]``, with the picture
    ``[kept, hole]`` as its condition ``known``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, x: Tensor, noise_level: Tensor, known: Tensor, **condition: Tensor
    ) -> Tensor:
        """The U-Net's output like ``x`` (batch, C, h, w), for ``known`` (batch, C + 1, h, w)."""
        kept, hole = known[:, :-1], known[:, -1:]
        seen = torch.cat([x, hole, kept], 1)
        return self.network(seen, noise_level, **condition)[:, : x.shape[1]]


class Parts(NamedTuple):
    """The arguments of ``TextToImage`` and of ``Inpainter``."""

    conditioner: TextConditioner
    denoiser: Preconditioned
    sampler: DDIM
    shape: Sequence[int]
    guidance: float
    autoencoder: Autoencoder


def read_pipeline(folder: Path, kind: str = PIPELINE) -> Parts:
    """The parts of the pipeline in ``folder``, frozen; ``kind`` is the name of its class.

    Raises:
        ImportError: Without the packages ``diffusers`` and ``transformers``.
        FileNotFoundError: If a file is missing.
        ValueError: If the folder holds a pipeline of another class or with other parts, or a file
            is damaged.
    """
    check_index(folder / INDEX, kind)
    encoder = load_text_encoder(folder, show_padding=True)
    autoencoder, denoiser = load_autoencoder(folder), load_teacher(folder)
    unet = config_of(denoiser.network)
    codes = autoencoder.channels
    check_unet(folder / "unet", unet, codes if kind == PIPELINE else 2 * codes + 1, encoder.dim)
    size = unet["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    shape = autoencoder.in_channels, *(side * autoencoder.factor for side in (height, width))
    sampler = make_sampler(folder / "scheduler" / "scheduler_config.json", denoiser)
    if kind == INPAINTING:
        denoiser.network = WithKnown(denoiser.network)
    return Parts(TextConditioner(encoder), denoiser, sampler, shape, GUIDANCE, autoencoder)


def check_index(path: Path, pipeline: str) -> None:
    """Raise ``ValueError`` unless the index of a pipeline at ``path`` names the class
    ``pipeline`` and parts of classes that are known here, and ``FileNotFoundError`` if the folder
    of one of them is missing.
    """
    index = read_json(path, "the index of a pipeline of diffusers")
    if index.get("_class_name") != pipeline:
        raise ValueError(
            f"_class_name of {path} must be {pipeline}, got {index.get('_class_name')!r}"
        )
    for name, kinds in COMPONENTS.items():
        entry = index.get(name)
        kind = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        if kind is None or (kinds and kind not in kinds):
            raise ValueError(
                f"{name} of {path} must be {' or '.join(kinds) or 'a class'}, got {kind!r}"
            )
        if not (path.parent / name).is_dir():
            raise FileNotFoundError(f"{path.parent} must hold a folder {name}, as {INDEX} says")


def check_unet(folder: Path, config: Mapping[str, Any], channels: int, dim: int) -> None:
    """Raise ``ValueError`` unless the U-Net of ``config`` takes maps of ``channels``, a text of
    dimension ``dim``, and nothing else.
    """
    if more := [name for name in FURTHER_INPUTS if config.get(name) is not None]:
        raise ValueError(
            f"{folder} must hold a U-Net of noise, time and text alone, got {more[0]} "
            f"{config[more[0]]!r}"
        )
    for name, wanted in {"in_channels": channels, "cross_attention_dim": dim}.items():
        if config[name] != wanted:
            raise ValueError(
                f"{name} of {folder} must be {wanted}, as the other parts have it, got "
                f"{config[name]!r}"
            )


def make_sampler(path: Path, denoiser: Preconditioned) -> DDIM:
    """DDIM with the spacing of the steps in the configuration of a scheduler at ``path``."""
    config, schedule = read_json(path), denoiser.schedule
    if config.get("thresholding"):
        raise ValueError(f"thresholding of {path} must be unset, as no sampler here does it")
    spacing = config.get("timestep_spacing", "leading")
    if not isinstance(schedule, VPDiscrete) or spacing not in SPACINGS:
        return DDIM(schedule, NUM_STEPS)
    return DDIM(schedule, min(NUM_STEPS, schedule.num_train_steps // 2), grid=spacing)


def config_of(network: nn.Module) -> Mapping[str, Any]:
    """The configuration of the model of ``diffusers`` in a ``DiffusersNetwork``."""
    return attrgetter("model.config")(network)
