"""Data sets in memory, as Lightning data modules."""

from latent_ebm.data.arrays import Arrays
from latent_ebm.data.base import Batch, DataModule, OtherData, TensorSet
from latent_ebm.data.digits import Digits, StackedDigits
from latent_ebm.data.images import Images
from latent_ebm.data.mnist import MNIST
from latent_ebm.data.pinwheel import Pinwheel
from latent_ebm.data.toy2d import Toy2D

__all__ = [
    "MNIST",
    "Arrays",
    "Batch",
    "DataModule",
    "Digits",
    "Images",
    "OtherData",
    "Pinwheel",
    "StackedDigits",
    "TensorSet",
    "Toy2D",
]
