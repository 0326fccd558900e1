r"""Identity from labels: pictures of one subject should have the same unit vector, but pictures of
others should not.

Two random views of every picture are compared with all views in the batch. What is shared by the
views of one subject, and by no other, is what tells subjects apart. The vectors serve subjects
that training has not seen.
"""

import torch
from torch import Tensor, nn

from latent_ebm.conditions import UNKNOWN, BatchLike
from latent_ebm.learning.base import OptimizerCallable, SchedulerCallable
from latent_ebm.learning.features import FeatureRule
from latent_ebm.objectives import supervised_contrast
from latent_ebm.subjects import IdentityEncoder
from samplers.checks import check_kind, check_numbers


class SupervisedContrast(FeatureRule):
    """Trains ``encoder`` so that views with one ``label`` are alike and views with others are not.
    A row whose label is unknown (-1) is like its own views alone.

    Pictures are (batch, C, H, W) in [-1, 1]. Source: Khosla et al. 2020, arXiv:2004.11362.

    Args:
        encoder: Maps pictures to unit vectors.
        augment: Makes a random view of every picture, such as ``Augment``.
        optimizer: Makes the optimiser from the trainable parameters.
        temperature: Divides the inner products; a small one looks at the nearest others alone.
        second: The entry of a batch that the second view is made of, such as "reference", which
            shows the same subject elsewhere; null: the picture itself.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.

    Raises:
        ValueError: For a temperature that is not positive, or a batch without labels or without
            the ``second`` picture.
    """

    def __init__(
        self,
        encoder: IdentityEncoder,
        augment: nn.Module,
        optimizer: OptimizerCallable,
        temperature: float = 0.1,
        second: str | None = None,
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        check_kind(self, IdentityEncoder, encoder=encoder)
        check_numbers(self, "positive", temperature=temperature)
        self.encoder, self.augment = encoder, augment
        self.temperature, self.second = temperature, second

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        x, condition, _ = self.unpack(batch)
        needed = ["label"] if self.second is None else ["label", self.second]
        if missing := [name for name in needed if name not in condition]:
            raise ValueError(f"a batch must carry {missing[0]}, got {condition}")
        other = x if self.second is None else condition[self.second]
        z = self.encoder(torch.cat([self.augment(x), self.augment(other)]))
        own = UNKNOWN - torch.arange(len(x), device=x.device)  # a row of unknown class is its own
        label = torch.where(condition["label"] == UNKNOWN, own, condition["label"]).repeat(2)
        return {"contrast": supervised_contrast(z.float(), label, self.temperature)}

    def predict_step(self, batch: BatchLike, batch_idx: int = 0) -> Tensor:
        """Unit vectors (batch, D) of pictures."""
        return self.encoder(self.unpack(batch).x)
