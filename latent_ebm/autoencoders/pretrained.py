"""Trained autoencoders from local folders. Nothing is downloaded or unpickled."""

import os
from importlib import import_module
from operator import methodcaller
from pathlib import Path

import torch
from torch import Tensor, nn

from latent_ebm.artefacts import load
from latent_ebm.artefacts.folders import is_saved
from latent_ebm.autoencoders.base import Autoencoder, Maps
from latent_ebm.denoisers.teachers import defaults, read_network
from latent_ebm.foreign import read_json

KINDS = ("AutoencoderKL", "AutoencoderTiny")  # of diffusers


class PretrainedAutoencoder(Autoencoder):
    """An ``AutoencoderKL`` or ``AutoencoderTiny`` of ``diffusers``, on images in [-1, 1].

    Latents are scaled as its configuration says, until ``standardise`` measures other numbers.

    Args:
        model: The autoencoder.
        in_channels: Channels of an image.
        channels: Channels of the latents.
        factor: How much smaller the sides of latents are.
        scaling: The factor of latents, ``scaling_factor`` of the configuration.
        shift: What is subtracted from latents before, ``shift_factor`` of the configuration.
    """

    def __init__(
        self,
        model: nn.Module,
        in_channels: int,
        channels: int,
        factor: int,
        scaling: float = 1.0,
        shift: float = 0.0,
    ) -> None:
        super().__init__(in_channels, channels, factor)
        self.model = model
        self.mean.fill_(shift)
        self.deviation.fill_(1 / scaling)

    def maps(self, x: Tensor) -> Maps:
        encoded = methodcaller("encode", x)(self.model)
        if hasattr(encoded, "latents"):
            return Maps(encoded.latents, None)
        return Maps(encoded.latent_dist.mean, encoded.latent_dist.std)

    def images(self, maps: Tensor) -> Tensor:
        return methodcaller("decode", maps)(self.model).sample


def load_autoencoder(folder: str | os.PathLike[str]) -> Autoencoder:
    """The autoencoder in a folder of this library or of ``diffusers``, frozen and in evaluation
    mode.

    Args:
        folder: A folder that ``save`` wrote, or one of ``diffusers`` with ``vae/`` or with the
            files of the autoencoder itself.

    Raises:
        ImportError: Without the package ``diffusers``, for a folder of it.
        FileNotFoundError: If the configuration or the weights are missing.
        ValueError: If the folder holds another model, or weights that do not fit.
    """
    autoencoder = load(folder) if is_saved(folder) else load_pretrained(Path(folder).expanduser())
    if not isinstance(autoencoder, Autoencoder):
        raise ValueError(f"{folder} must hold an autoencoder, got a {type(autoencoder).__name__}")
    return autoencoder.eval().requires_grad_(False)


def load_pretrained(folder: Path) -> PretrainedAutoencoder:
    """The autoencoder in a folder of ``diffusers``."""
    try:
        diffusers = import_module("diffusers")
    except ImportError as error:
        raise ImportError(
            f"loading {folder} needs diffusers: pip install 'latent-ebm[diffusers]'"
        ) from error
    folder = folder / "vae" if (folder / "vae").is_dir() else folder
    config = read_json(folder / "config.json", "the configuration of an autoencoder of diffusers")
    if config.get("_class_name") not in KINDS:
        raise ValueError(
            f"_class_name of {folder / 'config.json'} must be one of {', '.join(KINDS)}, got "
            f"{config.get('_class_name')!r}"
        )
    kind = getattr(diffusers, config["_class_name"])
    model, config = read_network(kind, folder, config), {**defaults(kind), **config}
    levels = config.get("block_out_channels") or config["encoder_block_out_channels"]
    made = PretrainedAutoencoder(
        model,
        config["in_channels"],
        config["latent_channels"],
        factor=2 ** (len(levels) - 1),
        scaling=config["scaling_factor"],
        shift=config.get("shift_factor") or 0.0,
    )
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and deviation is not None:
        made.set_statistics(torch.tensor(mean), torch.tensor(deviation) / config["scaling_factor"])
    return made
