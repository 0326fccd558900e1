"""Text-to-image models and inpainters of what rules train: diffusion models, and their students of
few steps.
"""

from latent_ebm.applications.inpainting import Inpainter
from latent_ebm.applications.text_to_image import TextToImage
from latent_ebm.autoencoders import Autoencoder
from latent_ebm.denoisers import Denoiser, FromNoise
from latent_ebm.distillation import OneStep, Progressive, UFOGen
from latent_ebm.distillation.base import ScoreDistiller
from latent_ebm.learning import Denoising, SubjectInpainting
from latent_ebm.learning.base import LearningRule
from latent_ebm.text import TextConditioner
from samplers import DDIM, Renoising, ReverseSampler


def text_to_image(rule: LearningRule) -> TextToImage | None:
    """The text-to-image model that ``rule`` has trained, with the parts of the rule themselves.

    It draws as many steps as the rule was trained for: those of its sampler for ``Denoising``,
    ``num_steps`` of DDIM for ``Progressive``, and one step for ``UFOGen``, ``EMDistillation`` and
    ``DistributionMatching``. ``generate(..., num_steps=4)`` of these adds noise to their images
    and repeats the step (``Renoising``), without training for it. Guidance is 1, as students have
    learnt that of their teacher; for a range of weights it is the least.

    Args:
        rule: A rule with a ``TextConditioner``, in evaluation mode for images without dropout.

    Returns:
        The model; None if ``rule`` has another condition, or trains another thing.
    """
    if not isinstance(rule, Denoising | Progressive | UFOGen | ScoreDistiller):
        return None
    conditioner, latents, found = rule.conditioner, rule.latents, drawing(rule)
    if found is None or not isinstance(conditioner, TextConditioner):
        return None
    if not isinstance(latents, Autoencoder | None):
        return None
    shape = rule.latent_shape if isinstance(rule, ScoreDistiller) else rule.shape
    if latents is not None:
        shape = (latents.in_channels, *(side * latents.factor for side in shape[1:]))
    weights = rule.guidance if isinstance(rule, Progressive) else 1.0
    if isinstance(weights, tuple):
        return TextToImage(conditioner, *found, shape, weights[0], latents, weights)
    return TextToImage(conditioner, *found, shape, autoencoder=latents)


def inpainter(rule: LearningRule) -> Inpainter | None:
    """The inpainter that ``rule`` has trained, with the parts of the rule themselves, without
    guidance.

    Args:
        rule: A rule, in evaluation mode.

    Returns:
        The inpainter; None if ``rule`` is no ``SubjectInpainting``, or its latents are not those
        of an autoencoder.
    """
    if not isinstance(rule, SubjectInpainting):
        return None
    latents, shape = rule.latents, rule.shape
    if not isinstance(latents, Autoencoder | None):
        return None
    if latents is not None:
        shape = (latents.in_channels, *(side * latents.factor for side in shape[1:]))
    return Inpainter(rule.conditioner, rule.denoiser, rule.reverse, shape, autoencoder=latents)


def drawing(rule: LearningRule) -> tuple[Denoiser, ReverseSampler] | None:
    """What ``rule`` draws with; None if it trains no denoiser."""
    if isinstance(rule, Denoising):
        return rule.denoiser, rule.reverse
    if isinstance(rule, Progressive):
        return rule.student, DDIM(rule.student.schedule, rule.num_steps)
    if isinstance(rule, UFOGen):
        return rule.generator, Renoising(rule.generator.schedule)
    if isinstance(rule, ScoreDistiller) and isinstance(rule.student, OneStep):
        denoiser = FromNoise(rule.student.denoiser, rule.student.init_log_snr)
        return denoiser, Renoising(denoiser.schedule)
    return None
