r"""Score matching: an energy learnt from its gradient, without a sampler and without Z (Hyvarinen
2005; Vincent 2011).
"""

import torch
from torch import Tensor

from latent_ebm.conditions import BatchLike, Condition, check_unconditional
from latent_ebm.learning.base import LearningRule, OptimizerCallable, SchedulerCallable
from latent_ebm.objectives import denoising_score_matching
from latent_ebm.priors import EnergyPrior
from samplers.checks import check_kind, check_numbers


class ScoreMatching(LearningRule):
    """Trains the density ``ebm`` until its score is that of the data with Gaussian noise added.

    Rows x are flattened to (batch, dim). The energy's additive constant gets no gradient. With
    several processes, use Lightning's strategy "ddp_find_unused_parameters_true". Source: Vincent
    2011.

    Args:
        ebm: The density of x.
        optimizer: Makes the optimiser from the trainable parameters.
        noise: The standard deviation of the noise, in the units of x.
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.

    Raises:
        ValueError: For a ``noise`` that is not positive.
    """

    def __init__(
        self,
        ebm: EnergyPrior,
        optimizer: OptimizerCallable,
        noise: float = 0.1,
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        check_kind(self, EnergyPrior, ebm=ebm)
        check_numbers(self, "positive", noise=noise)
        self.ebm, self.noise = ebm, noise

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        return {
            "score": denoising_score_matching(
                self.ebm, self.unpack(batch).x.flatten(1), self.noise
            )
        }

    def predict_step(self, batch: BatchLike, batch_idx: int = 0) -> dict[str, Tensor]:
        """The unnormalised ``log_density`` (batch,) of rows."""
        return {"log_density": self.ebm.log_density(self.unpack(batch).x.flatten(1))}

    def generate(
        self,
        num: int,
        condition: Condition | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Samples ``x`` (num, dim) of the density's own sampler, started at the base."""
        check_unconditional(condition)
        return {"x": self.ebm.sample(num, generator=generator)}
