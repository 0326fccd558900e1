r"""Adaptive stages of density-ratio estimation (Xiao & Han 2022, arXiv:2209.08739).

Stage k has a frozen prior ``p_k``. A classifier with logit ``f`` separates posterior draws ``z+ ~
q_k`` from prior draws ``z- ~ p_k``; at its optimum ``f = log q_k / p_k``. Then ``f`` is frozen and
joins the product, and the next stage starts from ``f = 0``. Because ``p_k`` does not change within
a stage, its draws are a *pool* of particles that a sampler moves now and then. No prior chain runs
inside a training step.

When to close a stage is this library's own addition to the paper. The held-out loss is ``2 log 2``
where no gap between ``q_k`` and ``p_k`` is left. When that loss stops falling, the stage is closed
if the loss lies below ``2 log 2`` and the stage brings the prior closer to held-out posterior
draws, both by more than a tolerance. Otherwise there is nothing to add. A stage enters as ``w f``,
with the largest ``w <= 1`` whose importance weights under ``p_k`` have an effective sample size of
at least ``min_ess``. If ``q_k`` is far from ``p_k``, a stage goes only part of the way and leaves
the rest to the next one. This makes ``log Z_{k+1} - log Z_k = log E_{p_k}[exp(w f)]`` a
well-conditioned average over held-out particles. The pool is resampled with the same weights and
moved by the prior's sampler. It is then the pool of ``p_{k+1}``.
"""

import copy
import math
from typing import TypedDict

import torch
from torch import Tensor, nn

from latent_ebm.objectives import noise_contrastive
from latent_ebm.priors import RatioPrior
from samplers import PersistentChains, Sampler, effective_sample_size, log_mean_exp, resample
from samplers.checks import check_counts, check_kind, check_numbers

NO_GAP = 2 * math.log(2)  # the classifier's loss if both distributions are the same


def zero_last_layer(network: nn.Module) -> None:
    """Zero the last ``nn.Linear`` of ``network``, so that its output is 0. Raises ``ValueError``
    if it has none.
    """
    layers = [m for m in network.modules() if isinstance(m, nn.Linear)]
    if not layers:
        raise ValueError(
            f"ratio must end in an nn.Linear layer, got {type(network).__name__} without one"
        )
    for parameter in layers[-1].parameters():
        nn.init.zeros_(parameter)


class StageState(TypedDict):
    """What a checkpoint keeps of an open stage, besides tensors."""

    curve: list[float]
    gain: float
    filled: bool


class RatioStages(nn.Module):
    """The open stage: its classifier ``ratio`` (logit: z (batch, dim) -> (batch,)) and its pool of
    prior draws.

    Args:
        ratio: The classifier.
        dim: The dimension of z.
        pool_size: The number of particles; the last fifth is held out.
        refresh: Moves the particles of a batch before they are used; null: they stay.
        max_stages: The largest number of stages that are closed.
        patience: A stage closes when the mean held-out loss of the last ``patience`` checks is
            less than ``min_drop`` below that of the ``patience`` checks before, and the stage is
            worth adding, see ``tolerance``.
        min_drop: See ``patience``, in nats.
        tolerance: A stage is worth adding if both the gap ``2 log 2 - loss`` and the gain (see
            ``check``) exceed this value, in nats.
        min_ess: A stage enters with the largest weight that leaves this share of the pool's
            effective sample size.

    Raises:
        ValueError: For numbers out of range.
    """

    def __init__(
        self,
        ratio: nn.Module,
        dim: int,
        pool_size: int = 4000,
        refresh: Sampler | None = None,
        max_stages: int = 8,
        patience: int = 2,
        min_drop: float = 0.01,
        tolerance: float = 0.02,
        min_ess: float = 0.2,
    ) -> None:
        super().__init__()
        check_numbers(self, "in (0, 1]", min_ess=min_ess)
        check_numbers(self, "non-negative", min_drop=min_drop, tolerance=tolerance)
        check_counts(self, dim=dim, max_stages=max_stages, patience=patience)
        check_counts(self, least=5, pool_size=pool_size)
        zero_last_layer(ratio)
        self.ratio, self.pool, self.refresh = ratio, PersistentChains(pool_size, dim), refresh
        self.max_stages, self.patience, self.min_drop = max_stages, patience, min_drop
        self.tolerance, self.min_ess = tolerance, min_ess
        self.num_train = pool_size - pool_size // 5
        self.curve: list[float] = []
        self.gain, self.filled = 0.0, False

    def start(self, prior: RatioPrior) -> None:
        """Fill the pool with draws of ``prior``, once."""
        if not self.filled:
            self.pool.particles.copy_(prior.sample(len(self.pool)))
        self.filled = True

    def loss(self, prior: RatioPrior, z_data: Tensor) -> Tensor:
        """Classifier loss at posterior draws ``z_data`` (batch, dim) and as many particles of the
        pool's training part.
        """
        index = torch.randint(self.num_train, (len(z_data),), device=z_data.device)
        pool, refresh = self.pool, self.refresh
        z_model = pool.particles[index] if refresh is None else pool.advance(refresh, prior, index)
        return noise_contrastive(self.ratio(z_data), self.ratio(z_model))

    @torch.no_grad()
    def check(self, z_held_out: Tensor) -> dict[str, float]:
        """Held-out metrics of the open stage at posterior draws (n, dim).

        - ``loss``: that of the classifier.
        - ``gap`` = 2 log 2 - loss: twice the Jensen-Shannon divergence for an optimal classifier,
          0 when nothing is left to learn.
        - ``gain`` = E_q[w f] - log E_p[exp(w f)]: how much the stage would lower the KL divergence
          from q to the prior.
        - ``accuracy``: a value above .95 is a sign of a density chasm (Rhodes et al. 2020,
          arXiv:2006.12204).
        - ``calibration_model`` = E_p[r] and ``calibration_data`` = E_q[1/r]: 1 for an exact ratio.
        - ``ess``: effective sample size of the weights r under p, as a fraction.
        """
        logit_data, logit_model = (
            self.ratio(z_held_out),
            self.ratio(self.pool.particles[self.num_train :]),
        )
        loss, step = noise_contrastive(logit_data, logit_model).item(), self.measure()
        return {
            "loss": loss,
            "gap": NO_GAP - loss,
            "gain": step["weight"] * logit_data.mean().item() - step["log_z_step"],
            "accuracy": ((logit_data > 0).float().mean() + (logit_model < 0).float().mean()).item()
            / 2,
            "calibration_model": logit_model.exp().mean().item(),
            "calibration_data": (-logit_data).exp().mean().item(),
            "ess": effective_sample_size(logit_model).item(),
        }

    def record(self, metrics: dict[str, float]) -> None:
        """Remember the held-out metrics of the open stage, which decide when to close it."""
        self.curve.append(metrics["loss"])
        self.gain = metrics["gain"]

    def is_worth_adding(self, prior: RatioPrior) -> bool:
        """Whether ``prior`` has room for a stage, and the last held-out gap and gain of the open
        stage exceed the tolerance.
        """
        if not self.curve or len(prior.stages) >= self.max_stages:
            return False
        return min(NO_GAP - self.curve[-1], self.gain) > self.tolerance

    def is_done(self, prior: RatioPrior) -> bool:
        """Whether the open stage has learnt what it can (its held-out loss has stopped falling)
        and is worth adding.
        """
        recent, before = (
            self.curve[-self.patience :],
            self.curve[-2 * self.patience : -self.patience],
        )
        if len(before) < self.patience:
            return False
        return sum(before) - sum(recent) < self.min_drop * self.patience and self.is_worth_adding(
            prior
        )

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The ``weight`` w with which the open stage would enter the prior, and ``log_z_step`` =
        log E_p[exp(w f)].

        Both are measured on the held-out part of the pool, because the classifier has lowered f at
        the particles that it was trained on.
        """
        logit = self.ratio(self.pool.particles[self.num_train :])
        weight = largest_weight(logit, self.min_ess)
        return {"weight": weight, "log_z_step": float(log_mean_exp(weight * logit))}

    @torch.no_grad()
    def close(self, prior: RatioPrior, weight: float, log_z_step: float) -> None:
        """Freeze the open stage into ``prior``, move the pool to the new prior, and open the next
        stage at f = 0.
        """
        particles = resample(self.pool.particles, weight * self.ratio(self.pool.particles))
        prior.append(copy.deepcopy(self.ratio), weight, log_z_step)
        self.pool.particles.copy_(prior.sampler.sample(prior, particles))
        zero_last_layer(self.ratio)
        self.curve = []

    def get_extra_state(self) -> StageState:
        return {"curve": self.curve, "gain": self.gain, "filled": self.filled}

    def set_extra_state(self, state: StageState) -> None:
        """Raises ``ValueError`` for a state that ``get_extra_state`` cannot have returned."""
        curve, gain, filled = state["curve"], state["gain"], state["filled"]
        check_kind(self, list, curve=curve)
        check_kind(self, bool, filled=filled)
        for value in (gain, *curve):
            check_numbers(self, "finite", curve_and_gain=value)
        self.curve, self.gain, self.filled = list(curve), gain, filled


def largest_weight(logit: Tensor, min_ess: float) -> float:
    """Largest ``w`` in [0, 1] for which the weights ``exp(w logit)`` (n,) have an effective sample
    size of ``min_ess`` n.
    """
    if effective_sample_size(logit) >= min_ess:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if effective_sample_size(middle * logit) >= min_ess else (low, middle)
        )
    return low
