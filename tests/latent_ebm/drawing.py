"""A tiny text-to-image model with random weights, for tests of what is exported."""

import torch
from torch import nn

from latent_ebm.applications import TextToImage
from latent_ebm.autoencoders import PatchPCA
from latent_ebm.denoisers import Preconditioned
from latent_ebm.export.text_to_image import count_draws
from latent_ebm.networks import MobileUNet
from latent_ebm.text import TextConditioner, TextTransformer, Tokenizer, WordTokenizer
from samplers import DDIM, ReverseSampler, VPCosine

NOISE = VPCosine(-7.0)
WORDS = WordTokenizer(["red", "green", "blue", "strasse", "★"], max_words=3)


def tiny_model(
    sampler: ReverseSampler | None = None,
    *,
    autoencoder: bool = False,
    tokenizer: Tokenizer = WORDS,
    guidance: float = 1.0,
    weights: tuple[float, float] | None = None,
) -> TextToImage:
    """A model of images (3, 8, 8), one step of DDIM unless there is a ``sampler``."""
    torch.manual_seed(0)
    pca = PatchPCA(4, 2).fit(torch.rand(20, 3, 8, 8) * 2 - 1) if autoencoder else None
    shape, patch = ((3, 8, 8), 2) if pca is None else ((4, 4, 4), 1)
    switches = {"patch": patch, "guided": weights is not None}
    network = MobileUNet(shape, 8, (8,), (1,), (1,), (False,), (True,), **switches)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return TextToImage(
        TextConditioner(TextTransformer(tokenizer, dim=8)),
        Preconditioned(network, NOISE),
        DDIM(NOISE, 1) if sampler is None else sampler,
        (3, 8, 8),
        guidance=guidance,
        autoencoder=pca,
        weights=weights,
    )


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_of(model: TextToImage, num: int, seed: int = 3) -> torch.Tensor:
    """The standard normal noise (num, 1 + draws, *latent_shape) that ``generate`` uses for ``num``
    images.
    """
    generator, draws = seeded(seed), 1 + count_draws(model.sampler)
    shape = (num, *model.latent_shape)
    return torch.stack([torch.empty(shape).normal_(generator=generator) for _ in range(draws)], 1)
