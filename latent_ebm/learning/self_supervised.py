r"""Features without labels: two random views of an image should have the same embedding, but
different images should not.

What two views of an image share is what the image shows. An encoder that has learnt this on
unlabelled images serves other tasks as it is, such as telling apart images that training has not
seen (arXiv:2105.09270). Views would agree perfectly if all embeddings collapsed into one, so
VICReg (arXiv:2105.04906) also asks every coordinate to vary and none to repeat another.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from latent_ebm.conditions import BatchLike, as_batch
from latent_ebm.learning.base import OptimizerCallable, SchedulerCallable
from latent_ebm.learning.features import FeatureRule
from latent_ebm.objectives import vicreg
from samplers.checks import check_numbers


class Augment(nn.Module):
    """A random view of every image: crop, turn, mirror, colours, noise; (batch, C, H, W) in [-1,
    1] to the same.

    The views of all images of a batch are drawn at once.

    Args:
        min_area: The crop covers an area uniform in [``min_area``, 1] of the image, and is resized
            to the whole.
        flip: The probability of the mirror image.
        jitter: Brightness, contrast and saturation change by up to this.
        grey: The probability that an image loses its colours.
        noise: The standard deviation of Gaussian noise.
        turn: The crop is turned by up to this many radians either way.

    Raises:
        ValueError: For a number outside its range.
    """

    def __init__(
        self,
        min_area: float = 0.3,
        flip: float = 0.5,
        jitter: float = 0.4,
        grey: float = 0.2,
        noise: float = 0.05,
        turn: float = 0.0,
    ) -> None:
        super().__init__()
        check_numbers(self, "in (0, 1]", min_area=min_area)
        check_numbers(self, "in [0, 1]", flip=flip, jitter=jitter, grey=grey)
        check_numbers(self, "non-negative", noise=noise, turn=turn)
        self.min_area, self.flip, self.jitter, self.grey, self.noise = (
            min_area,
            flip,
            jitter,
            grey,
            noise,
        )
        self.turn = turn

    def forward(self, x: Tensor) -> Tensor:
        """One view (batch, C, H, W) of each image ``x``."""
        return (self.recolour(self.crop(x)) + self.noise * torch.randn_like(x)).clamp(-1, 1)

    def crop(self, x: Tensor) -> Tensor:
        """Crop, resize, turn and perhaps mirror every image: one affine map per image, with
        bilinear interpolation.
        """
        area, mirror, angle, *centre = torch.rand(5, len(x), device=x.device, dtype=x.dtype)
        side = (self.min_area + (1 - self.min_area) * area).sqrt()
        shift = (1 - side).unsqueeze(1) * (2 * torch.stack(centre, 1) - 1)
        scale = torch.stack([torch.where(mirror < self.flip, -side, side), side], 1)
        angle = self.turn * (2 * angle - 1)
        turned = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(
            -1, 2, 2
        )
        affine = torch.cat([turned * scale.unsqueeze(1), shift.unsqueeze(2)], 2)
        grid = affine_grid(affine, list(x.shape), align_corners=False)
        return grid_sample(x, grid, padding_mode="border", align_corners=False)

    def recolour(self, x: Tensor) -> Tensor:
        """Change saturation, contrast and brightness of every image separately; values may leave
        [-1, 1].
        """
        draws = torch.rand(4, len(x), 1, 1, 1, device=x.device, dtype=x.dtype)
        brightness, contrast, saturation = self.jitter * (2 * draws[:3] - 1)
        grey = x.mean(1, keepdim=True)
        x = grey + torch.where(draws[3] < self.grey, 0, 1 + saturation) * (x - grey)
        mean = x.mean((1, 2, 3), keepdim=True)
        return mean + (1 + contrast) * (x - mean) + brightness


class VICReg(FeatureRule):
    """Trains ``encoder`` so that features agree between views of an image and do not collapse.

    Images are (batch, C, H, W) in [-1, 1]. If ``loss/variance`` stays near its weight, embeddings
    have collapsed. Source: arXiv:2105.04906.

    Args:
        encoder: Maps images to features.
        projector: Maps features to the embeddings that the loss compares; not used after training.
        augment: Makes a random view of every image.
        optimizer: Makes the optimiser from the trainable parameters.
        invariance: The weight of the distance between the embeddings of two views.
        variance: The weight of the term that asks every coordinate to vary.
        covariance: The weight of the term that asks no coordinate to repeat another.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.

    Raises:
        ValueError: For a negative weight.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        augment: nn.Module,
        optimizer: OptimizerCallable,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.encoder, self.projector, self.augment = encoder, projector, augment
        self.weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
        check_numbers(self, "non-negative", **self.weights)

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        x = self.unpack(batch).x
        embeddings = self.projector(self.encoder(torch.cat([self.augment(x), self.augment(x)])))
        # variances need full precision, whatever the network runs in
        terms = vicreg(*embeddings.float().chunk(2))
        return {
            name: weight * term
            for (name, weight), term in zip(self.weights.items(), terms, strict=True)
        }

    def held_out(self, batch: BatchLike) -> dict[str, Tensor]:
        """The losses and their sum; nothing for a batch of one row, which compares with none."""
        if len(as_batch(batch).x) < 2:
            return {}
        losses = super().held_out(batch)
        return {**losses, "loss": torch.stack(list(losses.values())).sum()}

    def predict_step(self, batch: BatchLike, batch_idx: int = 0) -> Tensor:
        """Features (batch, d) of images."""
        return self.encoder(self.unpack(batch).x).flatten(1)
