r"""Training an energy-based model in data space: the critic is its own generator
(arXiv:2102.11757).

The density is ``p(x) = p_0(x) exp(-E(x)) / Z``, with ``U = -log p``, and a short-run sampler
carries ``x_0 ~ p_0`` to ``F(x_0)``. A gradient step on ``E_data[U] - E[U(F(x_0))]`` at fixed ``F``
raises the energy where the sampler goes and lowers it where the data are. It is the step of a
Wasserstein critic (Xiao, Yan, Amit 2021). The generator ``F`` follows the critic's own gradient
and therefore adapts by itself. ``F`` need not sample from ``p``, whereas maximum likelihood needs
chains that have converged to ``p``.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from latent_ebm.conditions import BatchLike, Condition, check_unconditional
from latent_ebm.learning.base import LearningRule, OptimizerCallable, SchedulerCallable
from latent_ebm.learning.latent import acceptance, energies
from latent_ebm.objectives import contrastive, nearest_neighbour_entropy
from latent_ebm.priors import EnergyPrior
from samplers import GradientFlow, PersistentChains
from samplers.checks import check_kind

Negatives = Literal["detached", "through", "through+entropy"]


class SelfAdversarial(LearningRule):
    """Trains the density ``ebm`` against negatives from its own ``sampler``.

    Rows x are flattened to (batch, dim). Metrics on held-out data: ``gap`` = E[U(F(x_0))] -
    E_data[U]; ``displacement`` = E|F(x_0) - x_0|; ``noise``, the noise level of the sampler. With
    a ``GradientFlow`` also the ``slope`` and ``correlation`` of its log-density against ``-U``,
    both 1 for a model that samples from itself, and its ``contraction``, E[log p_T - log p_0].

    Args:
        ebm: The density of x.
        optimizer: Makes the optimiser from the trainable parameters.
        negatives: "detached" is the rule of energy-based models. "through" adds the generator's
            loss ``E[U(F(x_0))]`` at fixed U, differentiated through the dynamics.
            "through+entropy" also adds the entropy of its samples, estimated from nearest
            neighbours: improved contrastive divergence (Du et al. 2021, arXiv:2012.01316).
        start: Chains start "cold" at the base, "warm" at the data (contrastive divergence), or
            continue ``PersistentChains`` (detached only).
        scheduler: Makes a scheduler of the learning rate, which steps after every epoch.

    Raises:
        ValueError: For unknown names, or ``negatives`` that need another ``start``.
    """

    def __init__(
        self,
        ebm: EnergyPrior,
        optimizer: OptimizerCallable,
        negatives: Negatives = "detached",
        start: PersistentChains | Literal["cold", "warm"] = "cold",
        scheduler: SchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        check_kind(self, EnergyPrior, ebm=ebm)
        if negatives not in get_args(Negatives):
            raise ValueError(
                f"negatives must be one of {', '.join(get_args(Negatives))}, got {negatives!r}"
            )
        if not isinstance(start, PersistentChains) and start not in ("cold", "warm"):
            raise ValueError(f'start must be "cold", "warm" or PersistentChains, got {start!r}')
        if isinstance(start, PersistentChains) and negatives != "detached":
            raise ValueError(
                f'negatives must be "detached" with persistent chains, got {negatives!r}'
            )
        self.ebm, self.negatives, self.start = ebm, negatives, start

    def losses(self, batch: BatchLike) -> dict[str, Tensor]:
        x = self.unpack(batch).x.flatten(1)
        generated = self.sample_negatives(x)
        losses = {"critic": contrastive(self.ebm, x, generated.detach())}
        self.drawn = (x, generated.detach())
        if self.negatives != "detached":
            losses["generator"] = -self.fixed_log_density(generated).mean()
        if self.negatives == "through+entropy":
            losses["entropy"] = -nearest_neighbour_entropy(generated)
        return losses

    def watch(self) -> dict[str, Tensor]:
        x, generated = self.drawn
        return energies(self.ebm, x, generated) | acceptance(
            "model", self.ebm.sampler, self.ebm, generated
        )

    def sample_negatives(self, x: Tensor) -> Tensor:
        """Negatives (batch, dim), one per row of the data x. They keep their graph unless
        "detached".
        """
        if isinstance(self.start, PersistentChains):
            return self.start.advance(self.ebm.sampler, self.ebm, self.start.pick(len(x)))
        start = x if self.start == "warm" else self.ebm.base.sample(len(x))
        draw = (
            self.ebm.sampler.sample if self.negatives == "detached" else self.ebm.sampler.rsample
        )
        return draw(self.ebm, start)

    def fixed_log_density(self, x: Tensor) -> Tensor:
        """``-U(x)`` (batch,), differentiable in x alone, so that the generator's loss does not
        train the critic.
        """
        constants = {name: parameter.detach() for name, parameter in self.ebm.named_parameters()}
        return torch.func.functional_call(self.ebm, constants, (x,))

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
        """Samples ``x`` (num, dim) of the short-run sampler."""
        check_unconditional(condition)
        return {"x": self.ebm.sample(num, generator=generator)}

    def held_out(self, batch: BatchLike) -> dict[str, Tensor]:
        x = self.unpack(batch).x.flatten(1)
        with torch.no_grad():
            return self.adversaries(x, self.ebm.base.sample(len(x)))

    def adversaries(self, x: Tensor, x0: Tensor) -> dict[str, Tensor]:
        """Metrics of critic and generator at data x (batch, dim) and starts ``x0`` (num, dim) of
        the base. A single start has no slope and correlation.
        """
        sampler = self.ebm.sampler
        metrics = {"noise": x.new_tensor(sampler.noise_level)}
        if isinstance(sampler, GradientFlow):
            log_prob0 = self.ebm.base.log_density(x0)
            generated, log_prob = sampler.flow(self.ebm, x0, log_prob0)
            if len(x0) > 1:
                metrics["slope"], metrics["correlation"] = fit_line(self.ebm(generated), log_prob)
            metrics["contraction"] = (log_prob - log_prob0).mean()
        else:
            generated = sampler.sample(self.ebm, x0)
        metrics["gap"] = self.ebm(x).mean() - self.ebm(generated).mean()
        metrics["displacement"] = (generated - x0).norm(dim=1).mean()
        return metrics


def fit_line(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Least-squares slope of ``y`` (n,) on ``x`` (n,), and their correlation."""
    covariance = torch.cov(torch.stack([x, y]))
    slope = covariance[0, 1] / covariance[0, 0]
    return slope, covariance[0, 1] / (covariance[0, 0] * covariance[1, 1]).sqrt()
