"""Plain networks: shapes in, tensors out, no losses."""

from latent_ebm.networks.convnet import ConvDecoder, ConvEncoder
from latent_ebm.networks.mlp import MLP, EnergyMLP

__all__ = ["MLP", "ConvDecoder", "ConvEncoder", "EnergyMLP"]
