"""Autoencoders of images: closed form, convolutional, and those of ``diffusers``."""

from latent_ebm.autoencoders.base import Autoencoder, LatentSpace, Maps
from latent_ebm.autoencoders.convolutional import ConvAutoencoder
from latent_ebm.autoencoders.critic import PatchCritic
from latent_ebm.autoencoders.pca import PatchPCA
from latent_ebm.autoencoders.pretrained import PretrainedAutoencoder, load_autoencoder

__all__ = [
    "Autoencoder",
    "ConvAutoencoder",
    "LatentSpace",
    "Maps",
    "PatchCritic",
    "PatchPCA",
    "PretrainedAutoencoder",
    "load_autoencoder",
]
