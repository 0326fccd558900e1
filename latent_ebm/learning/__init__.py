"""Learning rules: one LightningModule each."""

from latent_ebm.learning.mle import ShortRunMLE
from latent_ebm.learning.ratio import MultiStageRatio
from latent_ebm.learning.stages import RatioStages
from latent_ebm.learning.variational import Variational

__all__ = ["MultiStageRatio", "RatioStages", "ShortRunMLE", "Variational"]
