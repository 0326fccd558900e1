"""Conditional latent models against closed forms: ``p(z|y) = N(m_y, I)`` and ``p(x|z, y) = N(W z +
b_y, s^2 I)``, so that the posterior and ``p(x|y)`` are Gaussians too.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal
from torch.utils.data import DataLoader

from latent_ebm import (
    AmortizedPosterior,
    EnergyPrior,
    GaussianLikelihood,
    GaussianPrior,
    LatentModel,
    Masked,
    MCMCPosterior,
    RatioPrior,
)
from latent_ebm.conditions import ClassLabels, Condition, label_condition
from latent_ebm.data.base import TensorSet, collate
from latent_ebm.evaluation import nll_bracket, prior_log_z
from latent_ebm.learning import MultiStageRatio, RatioStages, ShortRunMLE, Variational
from latent_ebm.learning.latent import LatentRule
from latent_ebm.networks import ClassEnergy, Conditional, EnergyMLP, WithClass
from latent_ebm.networks.conditional import Told
from latent_ebm.posteriors import Posterior
from samplers import HMC, MALA, Langevin, PersistentChains
from tests.latent_ebm.linear_gaussian import largest_z_score
from tests.latent_ebm.test_learning import trainer

MEANS = torch.tensor([[1.5, -0.5], [-1.0, 2.0], [0.3, 0.8]]).double()
SHIFTS = torch.tensor([[0.5, -1.0, 0.2], [2.0, 0.0, -0.7], [-1.5, 1.0, 0.9]]).double()
WEIGHT = torch.tensor([[1.0, 0.3], [-0.5, 0.8], [0.2, -0.6]]).double()
SCALE, NUM, REPEATS = 0.6, 150, 200
ADAM = partial(torch.optim.Adam, lr=1e-2)
EXACT = Langevin(1.0, 1, temperature=0.5)  # z + grad + noise: N(m, I) wherever it starts


class Tilt(Conditional):
    """``E(z, y) = -m_y z``; unknown: 0."""

    def __init__(self) -> None:
        super().__init__()
        self.means = nn.Parameter(MEANS.clone())

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        means = self.means[label] if label is not None else torch.zeros_like(z)
        return -(means * z).sum(1)


class Decoder(Conditional):
    """``W z + b_y``; unknown: W z."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.shifts = nn.Parameter(WEIGHT.clone()), nn.Parameter(SHIFTS.clone())

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return z @ self.weight.mT + (0 if label is None else self.shifts[label])


class ExactPosterior(Posterior):
    """Draws of a posterior that is Gaussian with the precision of this file's model."""

    def sample(
        self,
        model: LatentModel,
        x: Tensor,
        *,
        index: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        z = torch.zeros(len(x), 2, dtype=x.dtype, requires_grad=True)
        with torch.enable_grad():
            (pull,) = torch.autograd.grad(model.log_posterior(x)(z).sum(), z)
        mean = pull @ torch.linalg.inv(precision())
        return MultivariateNormal(mean, precision_matrix=precision()).sample()


def precision() -> Tensor:
    return torch.eye(2).double() + WEIGHT.mT @ WEIGHT / SCALE**2


def make_model() -> LatentModel:
    prior = EnergyPrior(Tilt(), GaussianPrior(2), EXACT)
    return LatentModel(prior, GaussianLikelihood(Decoder(), SCALE)).double()


def posterior_mean(x: Tensor, label: Tensor) -> Tensor:
    pull = (x - SHIFTS[label]) @ WEIGHT / SCALE**2 + MEANS[label]
    return pull @ torch.linalg.inv(precision())


def data(num: int = NUM) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(3, (num,), generator=generator)
    return 0.3 + 1.2 * torch.randn(num, 3, generator=generator).double(), label


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_the_joint_density_of_a_row_is_that_of_its_class() -> None:
    x, label = data()
    z = torch.randn(NUM, 2).double()
    found = make_model().given(label_condition(label)).log_joint(x, z)
    prior = Normal(MEANS[label], 1.0).log_prob(z).sum(1) + MEANS[label].square().sum(1) / 2
    likelihood = Normal(z @ WEIGHT.mT + SHIFTS[label], SCALE).log_prob(x).sum(1)
    torch.testing.assert_close(found, prior + likelihood)


def test_prior_draws_take_the_rows_in_turn() -> None:
    prior = make_model().given(label_condition(torch.tensor([2, 0, 1, 0]))).prior
    z = prior.sample(12_000).view(-1, 4, 2)
    for row, label in enumerate([2, 0, 1, 0]):
        exact = MultivariateNormal(MEANS[label], torch.eye(2).double())
        assert largest_z_score(z[:, row], exact) < 4.5


def test_posterior_chains_have_the_distribution_of_their_row() -> None:
    (x, _), label, copies = data(2), torch.tensor([1, 2]), 4000
    model = make_model().given(label_condition(label))
    z = MALA(0.15, 30).sample(model.log_posterior(x), torch.zeros(2 * copies, 2).double())
    for row in range(2):
        mean = posterior_mean(x, label)[row]
        exact = MultivariateNormal(mean, precision_matrix=precision())
        assert largest_z_score(z.view(copies, 2, 2)[:, row], exact) < 4.5


def test_persistent_chains_by_index_follow_the_condition_of_their_row() -> None:
    x, label = data(20)
    posterior = MCMCPosterior(Langevin(0.15, 100, temperature=0.0), PersistentChains(20, 2))
    posterior = posterior.double()
    for rows in torch.randperm(20).split(5):
        view = make_model().given(label_condition(label[rows]))
        posterior.sample(view, x[rows], index=rows)
    assert isinstance(posterior.start, PersistentChains)
    torch.testing.assert_close(posterior.start.particles, posterior_mean(x, label))


def test_bounds_of_the_constant_are_those_of_the_condition() -> None:
    for label in range(3):
        prior = make_model().given(label_condition(torch.tensor([label]))).prior
        found = prior_log_z(prior, MALA(0.5, 2), num_rungs=20)
        exact = MEANS[label].square().sum().item() / 2
        assert found.lower - 0.05 < exact < found.upper + 0.05
        assert found.upper - found.lower < 0.3


def test_bounds_of_rows_are_those_of_their_own_condition() -> None:
    x, label = data(4)
    model = make_model().requires_grad_(False).given(label_condition(label))
    noise = SCALE**2 * torch.eye(3).double()
    marginal = MultivariateNormal(
        MEANS[label] @ WEIGHT.mT + SHIFTS[label], WEIGHT @ WEIGHT.mT + noise
    )
    exact = -marginal.log_prob(x) - MEANS[label].square().sum(1) / 2
    for bound in nll_bracket(model, x, HMC(0.3, 5, 1), num_rounds=10, num_rungs=10):
        torch.testing.assert_close(bound, exact, rtol=0, atol=0.2)


def test_rows_that_are_not_those_of_the_condition_are_refused() -> None:
    (x, label), model = data(4), make_model()
    told = model.given(label_condition(label))
    with pytest.raises(ValueError, match="a multiple of the condition's 4 rows, got 3"):
        told.log_posterior(x[:3])
    masked = LatentModel(model.prior, Masked(told.likelihood, torch.tensor([True, False, True])))
    with pytest.raises(ValueError, match="a multiple of the condition's 4 rows, got 2"):
        masked.log_posterior(x[:2])
    assert told.log_posterior(x[:1]).rows(torch.zeros(4, 2)).shape == (4, 3)


def test_maximum_likelihood_has_the_gradient_of_the_conditional_likelihood() -> None:
    model, (x, label) = make_model(), data()
    rule = ShortRunMLE(model, ExactPosterior(), ADAM, conditioner=ClassLabels(3), dropout=0)
    named = {name: p for name, p in rule.named_parameters() if p.requires_grad}
    means, weight, shifts = named.values()
    noise = SCALE**2 * torch.eye(3).double()
    marginal = MultivariateNormal(
        means[label] @ weight.mT + shifts[label], weight @ weight.mT + noise
    )
    exact = torch.autograd.grad(-marginal.log_prob(x).mean(), [*named.values()])
    draws = []
    for _ in range(REPEATS):
        total = torch.stack(list(rule.losses((x, label)).values())).sum()
        draws.append(torch.autograd.grad(total, [*named.values()]))
    for found, value in zip(zip(*draws, strict=True), exact, strict=True):
        error = torch.stack(found).std(0) / math.sqrt(REPEATS)
        assert value.abs().max() > 20 * error.max()
        assert ((torch.stack(found).mean(0) - value).abs() <= 4.5 * error).all()


def test_samples_have_the_class_that_was_asked_for() -> None:
    model = make_model()
    nn.init.zeros_(model.get_parameter("likelihood.decoder.weight"))
    rule = ShortRunMLE(model, ExactPosterior(), ADAM, conditioner=ClassLabels(3))
    label = torch.randint(3, (1200,))
    found = rule.generate(1200, label_condition(label))
    assert torch.equal(found["x"], SHIFTS[label])  # whatever z: W = 0
    assert torch.equal(found["label"], label)
    torch.testing.assert_close(
        found["z"][label == 1].mean(0), MEANS[1], rtol=0, atol=4.5 / math.sqrt(400)
    )


def test_a_mask_passes_the_condition_on() -> None:
    model, (x, label) = make_model(), data(4)
    masked = LatentModel(
        model.prior, Masked(model.likelihood, torch.tensor([True, False, True]))
    ).given(label_condition(label))
    z = torch.randn(4, 2).double()
    exact = Normal(z @ WEIGHT.mT + SHIFTS[label], SCALE).log_prob(x)[:, [0, 2]].sum(1)
    torch.testing.assert_close(masked.log_likelihood(x, z), exact)


# Rules


def class_model(kind: Literal["energy", "ratio"] = "energy") -> LatentModel:
    prior = EnergyPrior(ClassEnergy(2, 3, (8,)), GaussianPrior(2), MALA(0.1, 2))
    if kind == "ratio":
        prior = RatioPrior(GaussianPrior(2), [], MALA(0.1, 2))
    return LatentModel(prior, GaussianLikelihood(WithClass(nn.Linear(5, 3), 3, 3), 0.5))


def mle(**more: object) -> LatentRule:
    chosen = {"conditioner": ClassLabels(3), **more}
    return ShortRunMLE(class_model(), MCMCPosterior(Langevin(0.01, 2)), ADAM, **chosen)  # pyright: ignore[reportArgumentType]


def ratio() -> LatentRule:
    stages = RatioStages(EnergyMLP(2, (8,)), 2, pool_size=50)
    posterior = MCMCPosterior(Langevin(0.01, 2), PersistentChains(40, 2))
    return MultiStageRatio(
        class_model("ratio"),
        posterior,
        stages,
        ADAM,
        inference=MCMCPosterior(Langevin(0.01, 2)),
        conditioner=ClassLabels(3),
    )


def variational() -> LatentRule:
    posterior = AmortizedPosterior(nn.Linear(3, 4))
    return Variational(class_model(), posterior, ADAM, conditioner=ClassLabels(3))


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*smaller than the logging interval")
@pytest.mark.parametrize("make", [mle, partial(mle, prior_chains="warm"), ratio, variational])
def test_conditional_rules_train_test_predict_and_generate(
    make: Callable[[], LatentRule], tmp_path: object
) -> None:
    rule, (x, label) = make(), data(40)
    rows = DataLoader(TensorSet(x.float(), label), batch_size=10, collate_fn=collate)
    trained = {name: p for name, p in rule.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trained.items()}
    run = trainer(tmp_path, max_epochs=1, log_every_n_steps=1, enable_checkpointing=False)
    run.fit(rule, rows, rows)
    assert all(not torch.equal(p, before[name]) for name, p in trained.items())
    (metrics,) = trainer(tmp_path).test(rule, rows, verbose=False)
    assert all(map(math.isfinite, metrics.values()))
    predictions = trainer(tmp_path).predict(rule, rows)
    assert predictions is not None
    assert len(predictions) == 4
    assert rule.predict_step(x.float()).joint.shape == (40,)  # classes unknown
    assert rule.generate(5)["x"].shape == (5, 3)
    assert rule.generate(3, label_condition(torch.arange(3)))["x"].shape == (3, 3)
    with pytest.raises(
        ValueError, match="one integer per row for a conditional rule, got x alone"
    ):
        rule.losses(x.float())
    with pytest.raises(ValueError, match="condition label must have 4 rows, got 3"):
        rule.generate(4, label_condition(torch.arange(3)))


def test_a_share_of_the_rows_is_unknown_in_training_mode_alone() -> None:
    rule, (x, label) = mle(dropout=0.3), data(4000)
    batch = rule.unpack((x.float(), label))
    unknown = []
    for model in (rule.told(batch), rule.eval().told(batch)):
        found = model.prior.get_submodule("network")
        assert isinstance(found, Told)
        unknown.append((found.condition["label"] == -1).double().mean().item())
        assert ((found.condition["label"] == label) | (found.condition["label"] == -1)).all()
    assert unknown[0] == pytest.approx(0.3, abs=4.5 * math.sqrt(0.21 / 4000))
    assert unknown[1] == 0


def test_unknown_classes_have_the_mixture_of_all() -> None:
    network, z = ClassEnergy(2, 3, (8,)), torch.randn(6, 2)
    each = torch.stack([network(z, torch.full((6,), y)) for y in range(3)])
    mixture = -torch.logsumexp(-each, 0)
    torch.testing.assert_close(network(z), mixture)
    torch.testing.assert_close(network(z, torch.full((6,), -1)), mixture)
    mixed = network(z, torch.tensor([0, -1, 2, 1, -1, 0]))
    torch.testing.assert_close(mixed[[0, 1, 2]], torch.stack([each[0, 0], mixture[1], each[2, 2]]))
    decoder = WithClass(nn.Linear(5, 3), 4, 3)
    assert torch.equal(decoder(z), decoder(z, torch.full((6,), -1)))
    assert not torch.equal(decoder(z), decoder(z, torch.zeros(6, dtype=torch.long)))


def test_an_unconditional_model_is_its_own_view() -> None:
    prior = EnergyPrior(EnergyMLP(2, (8,)), GaussianPrior(2), MALA(0.1, 2))
    likelihood = GaussianLikelihood(nn.Linear(2, 3), 0.5)
    model, label = LatentModel(prior, likelihood), label_condition(torch.arange(3))
    assert model.given(Condition()) is model
    assert model.given(label).prior is prior
    assert model.given(label).likelihood is likelihood
    assert not model.is_conditional


def unconditional(**more: object) -> None:
    prior = EnergyPrior(EnergyMLP(2, (8,)), GaussianPrior(2), MALA(0.1, 2))
    model = LatentModel(prior, GaussianLikelihood(nn.Linear(2, 3), 0.5))
    ShortRunMLE(model, MCMCPosterior(MALA(0.1, 2)), ADAM, **more)  # pyright: ignore[reportArgumentType]


def wrong_rows() -> None:
    make_model().given(label_condition(torch.arange(3))).prior(torch.zeros(4, 2).double())


def ratio_prior(rule: type[ShortRunMLE] | type[Variational]) -> None:
    prior = RatioPrior(GaussianPrior(2), [], MALA(0.1, 2))
    model = LatentModel(prior, GaussianLikelihood(nn.Linear(2, 3), 0.5))
    rule(model, AmortizedPosterior(nn.Linear(3, 4)), ADAM)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (partial(mle, conditioner=None), "conditioner must be given for a conditional model"),
        (
            partial(unconditional, conditioner=ClassLabels(3)),
            "conditioner must be left out for an unconditional model, got ClassLabels",
        ),
        (
            partial(mle, prior_chains=PersistentChains(5, 2)),
            'prior_chains must be "cold" or "warm" for a conditional prior',
        ),
        (wrong_rows, "z must have a multiple of the condition's 3 rows, got 4"),
        (
            partial(ratio_prior, ShortRunMLE),
            "ShortRunMLE: model.prior must learn without stages, got a RatioPrior, which "
            "MultiStageRatio trains",
        ),
        (partial(ratio_prior, Variational), "Variational: model.prior must learn without stages"),
    ],
)
def test_refusals(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (label_condition(torch.tensor([0, 3])), "label must lie in -1 to 2, got 0 to 3"),
        (label_condition(torch.tensor([-2, 0])), "label must lie in -1 to 2, got -2 to 0"),
        (
            Condition({"label": torch.tensor([0, 2.9])}),
            "label must be integers",
        ),
        (
            Condition({"text": torch.zeros(2, 3)}),
            "must be a label and nothing else",
        ),
    ],
)
def test_a_condition_that_is_none_of_the_network_is_refused_where_it_is_given(condition, message):
    prior = EnergyPrior(ClassEnergy(2, 3, [4]), GaussianPrior(2), EXACT)
    decoder = GaussianLikelihood(WithClass(nn.Linear(4, 5), 3, 2), SCALE)
    masked = Masked(decoder, torch.ones(5, dtype=torch.bool))
    for part in (prior, decoder, masked):
        with pytest.raises(ValueError, match=message):
            part.given(condition)


def test_a_condition_does_not_take_the_place_of_samples():
    model = LatentModel(
        EnergyPrior(ClassEnergy(2, 3, [4]), GaussianPrior(2), EXACT),
        GaussianLikelihood(nn.Linear(2, 5), SCALE),
    )
    rule = ShortRunMLE(model, MCMCPosterior(EXACT), ADAM, conditioner=ClassLabels(3))
    told = Condition({"label": torch.tensor([0, 1]), "x": torch.zeros(2, 1)})
    assert rule.generate(2, told)["x"].shape == (2, 5)
