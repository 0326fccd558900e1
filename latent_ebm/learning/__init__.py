"""Learning rules: one LightningModule each."""

from latent_ebm.learning.autoencoding import Autoencoding
from latent_ebm.learning.checkpoint_io import AtomicCheckpointIO
from latent_ebm.learning.denoising import Denoising
from latent_ebm.learning.diffusion_gan import DiffusionGAN
from latent_ebm.learning.fitting import fit_batches, fit_rows
from latent_ebm.learning.mle import ShortRunMLE
from latent_ebm.learning.ratio import MultiStageRatio
from latent_ebm.learning.score_matching import ScoreMatching
from latent_ebm.learning.self_adversarial import SelfAdversarial
from latent_ebm.learning.self_supervised import Augment, VICReg
from latent_ebm.learning.stages import RatioStages
from latent_ebm.learning.subject_inpainting import SubjectInpainting
from latent_ebm.learning.subject_tuning import SubjectTuning
from latent_ebm.learning.supervised_contrast import SupervisedContrast
from latent_ebm.learning.text_image_contrast import TextImageContrast
from latent_ebm.learning.variational import Variational

__all__ = [
    "AtomicCheckpointIO",
    "Augment",
    "Autoencoding",
    "Denoising",
    "DiffusionGAN",
    "MultiStageRatio",
    "RatioStages",
    "ScoreMatching",
    "SelfAdversarial",
    "ShortRunMLE",
    "SubjectInpainting",
    "SubjectTuning",
    "SupervisedContrast",
    "TextImageContrast",
    "VICReg",
    "Variational",
    "fit_batches",
    "fit_rows",
]
