"""What rules that train features share: features cannot be sampled."""

from abc import ABC

import torch
from torch import Tensor

from latent_ebm.conditions import Condition
from latent_ebm.learning.base import LearningRule


class FeatureRule(LearningRule, ABC):
    """A rule that trains features of data, and no model that draws data."""

    def generate(
        self,
        num: int,
        condition: Condition | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Raises ``ValueError``: features cannot be sampled."""
        raise ValueError(
            f"the rule must hold a generator to be sampled, got {type(self).__name__}"
        )
