"""Plain networks: shapes in, tensors out, no losses."""

from latent_ebm.networks.adversarial import Critic, Fourier, WithLatent, WithTime
from latent_ebm.networks.conditional import ClassEnergy, Conditional, WithClass
from latent_ebm.networks.convnet import ConvDecoder, ConvEncoder
from latent_ebm.networks.denoiser_mlp import DenoiserMLP
from latent_ebm.networks.energy import EnergyMLP
from latent_ebm.networks.mlp import MLP
from latent_ebm.networks.mobile_unet import MobileUNet
from latent_ebm.networks.residual import PlacedEncoder, ResidualEncoder
from latent_ebm.networks.subject_unet import SubjectUNet
from latent_ebm.networks.unet import UNet

__all__ = [
    "MLP",
    "ClassEnergy",
    "Conditional",
    "ConvDecoder",
    "ConvEncoder",
    "Critic",
    "DenoiserMLP",
    "EnergyMLP",
    "Fourier",
    "MobileUNet",
    "PlacedEncoder",
    "ResidualEncoder",
    "SubjectUNet",
    "UNet",
    "WithClass",
    "WithLatent",
    "WithTime",
]
