"""What makes a generator fit for release: its images can be recognised, and its faults are known.

Everything here takes plain tensors, texts and callables, so that it serves any generator.
"""

from latent_ebm.responsibility.assurance import AssuranceSet, Rates
from latent_ebm.responsibility.audit import Audit
from latent_ebm.responsibility.cards import model_card
from latent_ebm.responsibility.filters import AllOf, Classified, Decision, Terms, threshold_for
from latent_ebm.responsibility.memorisation import (
    Canaries,
    copy_p_values,
    image_distance,
    neighbour_ratio,
    text_difference,
)
from latent_ebm.responsibility.noise_watermark import detect_noise_watermark, watermarked_noise
from latent_ebm.responsibility.representation import Representation, audit_representation
from latent_ebm.responsibility.tags import read_tag, write_tagged
from latent_ebm.responsibility.watermark import detect_watermark, embed_watermark

__all__ = [
    "AllOf",
    "AssuranceSet",
    "Audit",
    "Canaries",
    "Classified",
    "Decision",
    "Rates",
    "Representation",
    "Terms",
    "audit_representation",
    "copy_p_values",
    "detect_noise_watermark",
    "detect_watermark",
    "embed_watermark",
    "image_distance",
    "model_card",
    "neighbour_ratio",
    "read_tag",
    "text_difference",
    "threshold_for",
    "watermarked_noise",
    "write_tagged",
]
