"""Data sets in memory, as Lightning data modules."""

from latent_ebm.data.arrays import Arrays
from latent_ebm.data.base import Batch, DataModule, OtherData, TensorSet
from latent_ebm.data.captioned_images import CaptionedImages
from latent_ebm.data.captions import Captions, open_captions
from latent_ebm.data.digits import Digits, StackedDigits
from latent_ebm.data.emoji import Emoji
from latent_ebm.data.emoji_font import draw_font
from latent_ebm.data.emoji_pack import read_pack
from latent_ebm.data.glyphs import Glyphs
from latent_ebm.data.images import Images
from latent_ebm.data.mnist import MNIST
from latent_ebm.data.pinwheel import Pinwheel
from latent_ebm.data.portrait import Portrait, Studio
from latent_ebm.data.scene import Placed, Scene, Scenery
from latent_ebm.data.scene_parser import SceneParser
from latent_ebm.data.scenes import Scenes
from latent_ebm.data.shapes import draw_shapes
from latent_ebm.data.subject_parser import SubjectParser
from latent_ebm.data.subjects import Subjects
from latent_ebm.data.toy2d import Toy2D

__all__ = [
    "MNIST",
    "Arrays",
    "Batch",
    "CaptionedImages",
    "Captions",
    "DataModule",
    "Digits",
    "Emoji",
    "Glyphs",
    "Images",
    "OtherData",
    "Pinwheel",
    "Placed",
    "Portrait",
    "Scene",
    "SceneParser",
    "Scenery",
    "Scenes",
    "StackedDigits",
    "Studio",
    "SubjectParser",
    "Subjects",
    "TensorSet",
    "Toy2D",
    "draw_font",
    "draw_shapes",
    "open_captions",
    "read_pack",
]
