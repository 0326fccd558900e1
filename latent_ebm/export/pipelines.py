"""A text-to-image model as the folder of a ``StableDiffusionPipeline``, for programs that use
``diffusers``.

The pipeline encodes all tokens of a prompt, padding included, takes DDIM steps between training
steps, and divides latents by one number. A model that does something else would draw other
pictures there, and is refused.
"""

import json
import os
from importlib import import_module
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from latent_ebm.applications.text_to_image import TextToImage
from latent_ebm.autoencoders.pretrained import PretrainedAutoencoder
from latent_ebm.denoisers import Preconditioned
from latent_ebm.denoisers.teachers import DiffusersNetwork
from latent_ebm.export.networks import scheduler_config
from latent_ebm.foreign import read_json
from latent_ebm.text.pretrained import PretrainedTextEncoder
from latent_ebm.writing import atomic_folder
from samplers import DDIM
from samplers.checks import check_kind
from samplers.vp_discrete import SPACINGS

T = TypeVar("T")


def export_pipeline(model: TextToImage, folder: str | os.PathLike[str]) -> None:
    """Write ``model`` to a new ``folder`` that ``StableDiffusionPipeline.from_pretrained`` reads.

    The pipeline draws the same pictures from the same noise, with the same number of steps and the
    same guidance; these two are arguments of its call. ``TextToImage.load`` reads the folder too.

    Raises:
        ImportError: Without the packages ``diffusers`` and ``transformers``.
        ValueError: Unless text encoder, U-Net and autoencoder are models of ``transformers`` and
            ``diffusers``, used as the pipeline uses them.
        FileExistsError: If the folder exists already.
    """
    check_kind("export_pipeline", TextToImage, model=model)
    encoder = known(model.conditioner.encoder, PretrainedTextEncoder, "text encoder")
    autoencoder = known(model.autoencoder, PretrainedAutoencoder, "autoencoder")
    denoiser = known(model.denoiser, Preconditioned, "denoiser")
    unet = known(denoiser.network, DiffusersNetwork, "network").model
    check_class(encoder.model, "text encoder", "CLIPTextModel")
    check_class(unet, "network", "UNet2DConditionModel")
    if not encoder.show_padding:
        raise ValueError(
            "show_padding of the text encoder must be True, as in the pipelines of diffusers, got "
            "False"
        )
    settings = scheduler_config(denoiser) | sampler_config(model.sampler)
    diffusers = import_module("diffusers")
    pipeline = diffusers.StableDiffusionPipeline(
        vae=autoencoder.model,
        text_encoder=encoder.model,
        tokenizer=encoder.tokenizer.tokenizer,
        unet=unet,
        scheduler=diffusers.DDIMScheduler.from_config(settings),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    changes: dict[str, dict[str, object]] = {
        "unet/config.json": {"sample_size": list(model.latent_shape[1:])},
        "vae/config.json": {"scaling_factor": scaling_factor(autoencoder)},
        "tokenizer/tokenizer_config.json": {"model_max_length": encoder.tokenizer.max_tokens},
    }
    with atomic_folder(folder) as draft:
        pipeline.save_pretrained(draft)
        for name, values in changes.items():
            change_json(draft / name, values)


def known(part: object, kind: type[T], name: str) -> T:
    """``part``, which must be of ``kind`` to be part of a pipeline."""
    if not isinstance(part, kind):
        raise ValueError(
            f"the {name} must be a {kind.__name__} to be written for diffusers, got "
            f"{type(part).__name__}"
        )
    return part


def check_class(model: nn.Module, name: str, wanted: str) -> None:
    """Raise ``ValueError`` unless the class of ``model`` is ``wanted``."""
    if type(model).__name__ != wanted:
        raise ValueError(
            f"the {name} must be a {wanted} to be written for diffusers, got "
            f"{type(model).__name__}"
        )


def sampler_config(sampler: object) -> dict[str, object]:
    """The settings of the ``DDIMScheduler`` that takes the steps of ``sampler``."""
    if not isinstance(sampler, DDIM) or sampler.eta or sampler.grid not in SPACINGS:
        raise ValueError(
            f"sampler must be DDIM with eta 0 on one of the grids {', '.join(SPACINGS)} to be "
            f"written for diffusers, got {sampler}"
        )
    return {"timestep_spacing": sampler.grid, "steps_offset": 1, "set_alpha_to_one": False}


def scaling_factor(autoencoder: PretrainedAutoencoder) -> float:
    """The one number that standardises all latents of ``autoencoder``."""
    mean, deviation = autoencoder.mean.flatten(), autoencoder.deviation.flatten()
    if bool(mean.any()) or not torch.equal(deviation, deviation[:1].expand_as(deviation)):
        raise ValueError(
            "latents must have mean 0 and one deviation in all channels to be written for "
            f"diffusers, got means {mean.tolist()} and deviations {deviation.tolist()}"
        )
    return 1 / float(deviation[0])


def change_json(path: Path, values: dict[str, object]) -> None:
    """Set ``values`` in the JSON object of a file."""
    content = read_json(path) | values
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
