r"""A scorer from captions: a picture and its caption should have the same unit vector, but other
pictures and captions of the batch should not.

In a batch, the same picture may come twice, and so may a caption such as "food". Such rows are
right for each other, and none of them may count as wrong.
"""

import torch
from torch import Tensor, nn

from latent_ebm.conditions import BatchLike
from latent_ebm.learning.base import OptimizerCallable, SchedulerCallable
from latent_ebm.learning.features import FeatureRule
from latent_ebm.objectives import symmetric_contrast
from latent_ebm.scorers import ContrastiveScorer
from samplers.checks import check_kind


class TextImageContrast(FeatureRule):
    """Trains ``scorer`` so that captions find their pictures in a batch, and pictures their
    captions.

    A batch has pictures (n, C, H, W) in [-1, 1] and the ``tokens`` of their captions. The loss is
    the symmetric cross-entropy of CLIP (Radford et al. 2021, arXiv:2103.00020). Where a caption is
    right for several pictures of the batch, its target is uniform over them (UniCL, Yang et al.
    2022, arXiv:2204.03610). The temperature of the scorer is learnt.

    Args:
        scorer: What is trained.
        optimizer: Makes the optimiser from the trainable parameters.
        augment: Makes a random view of every picture in training, such as ``Augment``. It must
            keep what captions speak of: no mirror images if they say "left". None: no change.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.

    Raises:
        ValueError: For another kind of scorer, or a batch without tokens.
    """

    def __init__(
        self,
        scorer: ContrastiveScorer,
        optimizer: OptimizerCallable,
        augment: nn.Module | None = None,
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        check_kind(self, ContrastiveScorer, scorer=scorer)
        self.scorer, self.augment = scorer, augment or nn.Identity()

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        x, tokens = self.pairs(batch)
        image = self.scorer.image_features(self.augment(x) if self.training else x)
        text = self.scorer.token_features(tokens)
        logits = text.float() @ image.float().mT / self.scorer.temperature
        return {"contrast": symmetric_contrast(logits, right_pairs(tokens, x))}

    def pairs(self, batch: BatchLike) -> tuple[Tensor, Tensor]:
        """Pictures (n, C, H, W) and tokens (n, m) of a batch."""
        x, condition, _ = self.unpack(batch)
        if "tokens" not in condition:
            raise ValueError(f"a batch must carry tokens of captions, got {condition}")
        return x, condition["tokens"]

    def watch(self) -> dict[str, Tensor]:
        return {"temperature": self.scorer.temperature.detach()}

    def predict_step(self, batch: BatchLike, batch_idx: int = 0) -> dict[str, Tensor]:
        """The ``score`` (batch,) in [-1, 1] of pictures for their captions."""
        x, tokens = self.pairs(batch)
        image, text = self.scorer.image_features(x), self.scorer.token_features(tokens)
        return {"score": (text * image).sum(1)}


def right_pairs(tokens: Tensor, x: Tensor) -> Tensor:
    """Whether caption i is known to be right for picture j, (n, n): some row of the batch has the
    ``tokens`` (n, m) of the one and the pixels ``x`` (n, \\*event) of the other.
    """
    return equal_rows(tokens).float() @ equal_rows(x).float() > 0


@torch.no_grad()
def equal_rows(rows: Tensor) -> Tensor:
    """Whether rows i and j of ``rows`` (n, \\*event) are the same, (n, n)."""
    flat = rows.flatten(1).float()
    same = torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    i, j = torch.triu_indices(len(flat), len(flat), 1, device=flat.device)
    same[i, j] = same[j, i] = torch.pdist(flat, p=torch.inf) == 0
    return same
