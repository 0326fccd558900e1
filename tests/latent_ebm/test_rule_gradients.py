"""The losses of every rule, summed, have the gradient of what the rule says that it minimises.

All of it is known for a linear-Gaussian model whose posterior and prior are drawn exactly.
"""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from latent_ebm import (
    AmortizedPosterior,
    EnergyPrior,
    GaussianLikelihood,
    GaussianPrior,
    LatentModel,
    RatioPrior,
)
from latent_ebm.learning import (
    MultiStageRatio,
    RatioStages,
    ScoreMatching,
    ShortRunMLE,
    Variational,
)
from latent_ebm.learning.base import LearningRule
from latent_ebm.networks import EnergyMLP
from latent_ebm.posteriors import MCMCPosterior, Posterior
from samplers import MALA, Langevin
from tests.latent_ebm.linear_gaussian import LinearGaussian

NUM, REPEATS = 200, 200
ADAM = partial(torch.optim.Adam, lr=1e-2)
Grads = dict[str, Tensor]


class Exact(EnergyPrior):
    """A linear energy E(z) = t z + c on a normal base, drawn without a chain."""

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> Tensor:
        mean = -self.network.get_parameter("layers.0.weight")[0].detach()
        return mean + torch.randn(num, 2, dtype=mean.dtype, generator=generator)


class ExactPosterior(Posterior):
    """Draws of ``p(z|x)`` under ``reference``."""

    def __init__(self, reference: LinearGaussian) -> None:
        super().__init__()
        self.of = reference.posterior

    def sample(
        self,
        model: LatentModel,
        x: Tensor,
        *,
        index: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return self.of(x).sample()


def data() -> Tensor:
    """Not the model's own distribution, where most gradients would vanish."""
    return 0.4 + 1.3 * torch.randn(NUM, 3, generator=torch.Generator().manual_seed(1)).double()


def linear_model() -> LinearGaussian:
    model = LinearGaussian()
    assert isinstance(model.prior, EnergyPrior)
    model.prior = Exact(model.prior.network, model.prior.base, model.prior.sampler)
    return model


def encoder() -> nn.Module:
    torch.manual_seed(3)
    return nn.Linear(3, 4).double()


def open_stage() -> RatioStages:
    """A stage at f = 0, whose pool lies at N(1, I)."""
    stages = RatioStages(EnergyMLP(2, ()), 2, pool_size=100).double()
    stages.pool.particles += 1
    return stages


def ratio_model(reference: LinearGaussian) -> LatentModel:
    """The reference with its energy at 0 and room for ratios in its place."""
    nn.init.zeros_(reference.get_parameter("prior.network.layers.0.weight"))
    return LatentModel(
        RatioPrior(GaussianPrior(2), [], MALA(0.1, 1)).double(), reference.likelihood
    )


def gradients(loss: Tensor, rule: LearningRule) -> Grads:
    """The gradient of ``loss`` in all parameters of ``rule``."""
    named = dict(rule.named_parameters())
    grads = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
    return dict(zip(named, grads, strict=True))


def bound(model: LatentModel, posterior: AmortizedPosterior, x: Tensor) -> Tensor:
    """``E_q[-log p(x|z)] + KL(q || p)`` per row of x, in closed form, for ``E(z) = t z + c``."""
    q, likelihood = posterior(x).base_dist, model.likelihood
    assert isinstance(q, Normal)
    assert isinstance(likelihood, GaussianLikelihood)
    decoder, log_scale = likelihood.decoder, likelihood.log_scale
    spread = (decoder.get_parameter("weight") ** 2) @ q.variance.mT
    square = ((x - decoder(q.mean)) ** 2).sum(1) + spread.sum(0)
    reconstruction = 0.5 * square * (-2 * log_scale).exp() + 3 * log_scale
    mean = torch.zeros(2, dtype=x.dtype)
    if isinstance(model, LinearGaussian):
        mean = model.prior_mean
    return (reconstruction + kl_divergence(q, Normal(mean, torch.ones_like(mean))).sum(1)).mean()


def stage_gradients(stages: RatioStages, mean: Tensor, name: str) -> Grads:
    """At f = 0 the classifier's gradient is half the difference of the ``mean`` of the pool and of
    the posterior's draws.
    """
    pool = stages.pool.particles[: stages.num_train].mean(0)
    return {f"{name}.weight": 0.5 * (pool - mean)[None], f"{name}.bias": mean.new_zeros(1)}


def maximum_likelihood() -> tuple[LearningRule, Callable[[], Grads]]:
    """``-E[log p(x)]``."""
    model = linear_model()
    rule = ShortRunMLE(model, ExactPosterior(model), ADAM)
    return rule, lambda: gradients(-model.marginal().log_prob(data()).mean(), rule)


def ratio() -> tuple[LearningRule, Callable[[], Grads]]:
    """``-E[log p(x)]`` in the likelihood, and the classifier's loss."""
    reference = linear_model()
    model = ratio_model(reference)
    rule = MultiStageRatio(model, ExactPosterior(reference), open_stage(), ADAM)

    def exact() -> Grads:
        likelihood = gradients(-reference.marginal().log_prob(data()).mean(), rule)
        mean = reference.posterior(data()).mean.mean(0)
        return likelihood | stage_gradients(rule.stages, mean, "stages.ratio.layers.0")

    return rule, exact


def variational() -> tuple[LearningRule, Callable[[], Grads]]:
    """The evidence bound."""
    model, posterior = linear_model(), AmortizedPosterior(encoder())
    rule = Variational(model, posterior, ADAM)
    return rule, lambda: gradients(bound(model, posterior, data()), rule)


def variational_ratio() -> tuple[LearningRule, Callable[[], Grads]]:
    """The evidence bound, to which the classifier's loss adds nothing, and that loss."""
    model, posterior, stages = (
        ratio_model(linear_model()),
        AmortizedPosterior(encoder()),
        open_stage(),
    )
    rule = Variational(model, posterior, ADAM, stages=stages)

    def exact() -> Grads:
        mean = posterior(data()).mean.mean(0)
        return gradients(bound(model, posterior, data()), rule) | stage_gradients(
            stages, mean, "stages.ratio.layers.0"
        )

    return rule, exact


class Quadratic(nn.Module):
    """``E(x) = a |x|^2 / 2``."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.6).double())

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * self.a * x.square().sum(1)


def score_matching() -> tuple[LearningRule, Callable[[], Grads]]:
    """``E|s score(x + s eps) + eps|^2 / 2`` with the score ``-(1 + a) x`` and s = .3."""
    network, s = Quadratic(), 0.3
    rule = ScoreMatching(EnergyPrior(network, GaussianPrior(3), MALA(0.1, 1)), ADAM, noise=s)

    def exact() -> Grads:
        square = data().square().sum(1).mean() + 3 * s**2
        score = 1 + network.a
        return gradients(0.5 * (s**2 * score**2 * square - 2 * s**2 * score * 3), rule)

    return rule, exact


@pytest.mark.parametrize(
    "make", [maximum_likelihood, ratio, variational, variational_ratio, score_matching]
)
def test_losses_have_the_gradient_of_the_objective(
    make: Callable[[], tuple[LearningRule, Callable[[], Grads]]],
) -> None:
    rule, objective = make()
    exact = {name: value.detach() for name, value in objective().items()}
    torch.manual_seed(0)
    draws = [
        gradients(torch.stack(list(rule.losses(data()).values())).sum(), rule)
        for _ in range(REPEATS)
    ]
    assert exact.keys() == draws[0].keys()
    for name, value in exact.items():
        found = torch.stack([grads[name] for grads in draws])
        error = found.std(0) / math.sqrt(REPEATS)
        if not name.endswith("bias"):
            assert value.abs().max() > 20 * error.max(), f"{name} would not show a wrong weight"
        assert ((found.mean(0) - value).abs() <= 4.5 * error + 1e-9).all(), name


def test_the_classifier_of_stages_does_not_move_the_encoder() -> None:
    stages = open_stage()
    for parameter in stages.ratio.parameters():
        nn.init.normal_(parameter)
    posterior = AmortizedPosterior(encoder())
    rule = Variational(ratio_model(linear_model()), posterior, ADAM, stages=stages)
    losses = rule.losses(data())
    moved = torch.autograd.grad(losses["ratio"], list(posterior.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in moved)


@pytest.mark.parametrize("warm", [True, False])
def test_warm_chains_of_the_prior_start_at_the_draws_of_the_posterior(warm: bool) -> None:
    """Chains that hardly move stay where they have started."""
    prior = EnergyPrior(Quadratic(), GaussianPrior(3), Langevin(1e-12, 1, temperature=0.0))
    model, z = LatentModel(prior, linear_model().likelihood), 5 + data()
    posterior = MCMCPosterior(MALA(0.1, 1))
    rule = ShortRunMLE(model, posterior, ADAM, prior_chains="warm" if warm else "cold")
    moved = (rule.sample_prior(prior, z) - z).abs().max()
    assert (moved < 1e-6) == warm
