r"""Training of autoencoders: squared error, and losses that keep images sharp where it blurs them.

A decoder trained on squared error paints the mean of all images that a latent could stand for. A
perceptual distance compares features instead of pixels, and a critic that judges patches asks for
texture (Esser et al. 2021, arXiv:2012.09841; Rombach et al. 2022, arXiv:2112.10752). A small KL
term keeps random latents from growing.

With D entries in an image, the losses are ``|x' - x|^2 / D``, ``kl KL(q(z | x) || N(0, I)) / D``,
``perceptual d(x', x)`` and ``- adversarial log sig f(x')``, averaged over patches. For ``kl = 2
s^2`` the first two are the evidence lower bound for pixels with standard deviation s, times ``-2
s^2 / D``.
"""

from typing import Any

import torch
from torch import Tensor, nn

from latent_ebm.autoencoders.base import Maps
from latent_ebm.autoencoders.convolutional import ConvAutoencoder
from latent_ebm.autoencoders.critic import PatchCritic, perceptual_distance
from latent_ebm.conditions import BatchLike, Condition
from latent_ebm.learning.base import LearningRule, OptimizerCallable, SchedulerCallable
from latent_ebm.learning.checkpoint_io import check_saved_after_epochs
from latent_ebm.networks.classifier import FeatureClassifier
from latent_ebm.objectives import gradient_penalty, noise_contrastive, non_saturating
from samplers.checks import check_numbers
from samplers.run_checks import is_readable


class Autoencoding(LearningRule):
    """Trains ``autoencoder`` on images x (batch, in_channels, H, W).

    The mean and standard deviation of its latents are measured over every epoch of training. With
    a frozen encoder they stay, so that whatever was trained on its latents keeps working. A
    callback that averages weights leaves them behind: call ``standardise`` afterwards.

    Args:
        autoencoder: The autoencoder, best after ``start`` with a ``PatchPCA``.
        optimizer: Makes the optimiser from the trainable parameters.
        kl: Weight of the KL term; the autoencoder must be ``random``.
        perceptual: Weight of the distance in ``features``.
        adversarial: Weight of the ``critic``'s judgement.
        features: A trained classifier of such images, held fixed; needed for ``perceptual``.
        critic: Distinguishes patches of images from patches of reconstructions; needed for
            ``adversarial``.
        penalty: Weight g of ``g / 2 E|grad f|^2`` at images, f being the critic's mean logit (R1,
            arXiv:1801.04406).
        critic_lr: Learning rate of the critic, if it differs from the optimiser's.
        freeze_encoder: Whether to train the decoder alone, such as a smaller one after
            ``take_encoder``.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.

    Raises:
        ValueError: For negative weights, a weight without the part that it needs, a part without
            its weight, or a KL term for an encoder that is frozen or not random.
    """

    moments: Tensor

    def __init__(
        self,
        autoencoder: ConvAutoencoder,
        optimizer: OptimizerCallable,
        kl: float = 0.0,
        perceptual: float = 0.0,
        adversarial: float = 0.0,
        features: FeatureClassifier | None = None,
        critic: PatchCritic | None = None,
        penalty: float = 0.0,
        critic_lr: float | None = None,
        freeze_encoder: bool = False,
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        weights = {"kl": kl, "perceptual": perceptual, "adversarial": adversarial}
        check_numbers(self, "non-negative", **weights, penalty=penalty, critic_lr=critic_lr or 0)
        check_part("perceptual", perceptual, "features", features)
        check_part("adversarial", adversarial, "critic", critic)
        if kl and (freeze_encoder or autoencoder.log_deviation is None):
            raise ValueError(f"kl must be 0 for an encoder that is frozen or not random, got {kl}")
        if freeze_encoder:
            autoencoder.freeze_encoder()
        self.autoencoder, self.features, self.critic = autoencoder, features, critic
        self.kl, self.perceptual, self.adversarial = kl, perceptual, adversarial
        self.penalty, self.critic_lr, self.freeze_encoder = penalty, critic_lr, freeze_encoder
        if features is not None:
            features.eval().requires_grad_(False)
        self.register_buffer("moments", torch.zeros(3, autoencoder.channels).double(), False)

    def on_fit_start(self) -> None:
        """Raises ``ValueError`` if no checkpoint would be saved after the statistics are set."""
        super().on_fit_start()
        if not self.freeze_encoder:
            check_saved_after_epochs(self.trainer, "the statistics of latents are set")

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        x = self.unpack(batch).x
        self.autoencoder.latent_shape(x.shape[1:])
        maps = self.autoencoder.maps(x)
        if self.training:
            self.note(maps.mean.detach().double())
        y = self.autoencoder.images(maps.draw())
        losses = {"reconstruction": (y - x).square().mean()}
        if self.kl:
            losses["kl"] = self.kl * divergence_from_normal(maps) / x[0].numel()
        if self.features is not None:
            losses["perceptual"] = self.perceptual * perceptual_distance(self.features, y, x)
        return losses | self.critic_losses(x, y)

    def critic_losses(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Losses of the critic, and of the reconstructions ``y`` that it judges. Neither has a
        gradient in the other's parameters.
        """
        if self.critic is None:
            return {}
        critic = self.critic
        fixed = {name: parameter.detach() for name, parameter in critic.named_parameters()}
        judged = torch.func.functional_call(critic, fixed, (y,))
        losses = {
            "adversarial": self.adversarial * non_saturating(judged),
            "critic": noise_contrastive(critic(x), critic(y.detach())),
        }
        if self.penalty and self.training:
            slope = gradient_penalty(lambda x: critic(x).flatten(1).mean(1), x)
            losses["penalty"] = 0.5 * self.penalty * slope
        return losses

    def note(self, maps: Tensor) -> None:
        """Add the raw latents ``maps`` (batch, channels, h, w) to the statistics of the epoch."""
        sums = [(maps**power).sum((0, 2, 3)) for power in range(3)]
        self.moments = self.moments + torch.stack(sums)

    def on_train_epoch_end(self) -> None:
        """Set the mean and standard deviation of the epoch's latents, unless the encoder is
        frozen, or training was resumed at the very end of an epoch.
        """
        count, first, second = self.moments
        is_empty = is_readable(count) and not bool(count.any())
        if not (self.freeze_encoder or is_empty):
            mean = first / count
            deviation = (second / count - mean.square()).clamp(min=0).sqrt()
            self.autoencoder.set_statistics(mean, deviation)
        self.moments = torch.zeros_like(self.moments)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["moments"] = self.moments

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the statistics of the epoch."""
        super().on_load_checkpoint(checkpoint)
        self.moments = checkpoint.get("moments", self.moments).to(self.moments)

    def generate(
        self,
        num: int,
        condition: Condition | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Raises ``ValueError``: an autoencoder has no distribution of its latents."""
        raise ValueError(
            "Autoencoding has no distribution of latents to draw from: train Denoising on them"
        )

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        group = {"params": [p for p in self.autoencoder.parameters() if p.requires_grad]}
        if self.critic is None:
            return [self.optimizer([group])]
        critic = {"params": list(self.critic.parameters())}
        rate = {} if self.critic_lr is None else {"lr": self.critic_lr}
        return [self.optimizer([group, critic | rate])]


def divergence_from_normal(maps: Maps) -> Tensor:
    """``KL(N(mean, deviation^2) || N(0, I))`` per row in nats, averaged over rows; 0 for latents
    that are not random.
    """
    if maps.deviation is None:
        return maps.mean.new_zeros(())
    variance = maps.deviation.square()
    terms = 0.5 * (maps.mean.square() + variance - 1 - variance.log())
    return terms.flatten(1).sum(1).mean()


def check_part(name: str, weight: float, part: str, value: nn.Module | None) -> None:
    """Raise ``ValueError`` unless the weight is positive if its part is given, and 0 otherwise."""
    if (weight > 0) != (value is not None):
        given = "no" if value is None else "a"
        raise ValueError(
            f"{name} and {part} must be given together, got {weight} and {given} part"
        )
