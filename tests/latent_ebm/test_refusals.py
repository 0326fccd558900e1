"""What priors, posteriors, likelihoods, kernels and denoisers refuse, and weights that sum to one
far from everything.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from latent_ebm import (
    EnergyPrior,
    GaussianLikelihood,
    GaussianPrior,
    LatentModel,
    MCMCPosterior,
    RatioPrior,
    objectives,
)
from latent_ebm.conditions import label_condition
from latent_ebm.denoisers import GaussianMixtureDenoiser, Preconditioned
from latent_ebm.guidance import ClassifierFree
from latent_ebm.kernels import (
    KernelPrior,
    NeighbourPrior,
    leave_one_out_bandwidth,
    local_bandwidths,
)
from latent_ebm.likelihoods import BernoulliLikelihood, Masked, per_row
from latent_ebm.networks import EnergyMLP
from latent_ebm.posteriors import AmortizedPosterior, Restarts, WarmStart
from samplers import (
    HMC,
    MALA,
    VE,
    GaussianMixture,
    GradientFlow,
    Langevin,
    Sampler,
    UnderdampedLangevin,
    value_and_grad,
)
from tests.samplers.table import seeded

FAR = torch.tensor([[3e4, 3e4], [-5e5, 2e5], [1e6, -1e6]])
CENTRES = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


class Column(nn.Module):
    """An energy of shape (batch, 1), which would broadcast."""

    def forward(self, z: Tensor) -> Tensor:
        return z.square().sum(1, keepdim=True)


UNKNOWN_LABEL = label_condition(torch.tensor([-1]))


def far_gradients() -> dict[str, tuple[Any, Callable[[Tensor], Tensor]]]:
    """Densities whose terms tie by rounding at ``FAR``, with the gradient that tied terms of any
    weights give there.
    """
    uniform = torch.full((4,), 0.25), CENTRES, torch.full((4,), 0.5)
    kernels = KernelPrior(CENTRES, 0.5)
    teacher = GaussianMixtureDenoiser(*uniform, VE())
    t = torch.tensor(0.1)
    sigma = float(teacher.schedule(t)[1])
    return {
        "mixture": (GaussianMixture(*uniform), lambda x: -x / 0.25),
        "kernels": (kernels, lambda x: -x / 0.25),
        "neighbours": (
            NeighbourPrior(kernels, torch.zeros(4), 3, MALA(0.1, 1)),
            lambda x: -x / 0.25,
        ),
        "teacher": (lambda x: teacher.log_prob(x, t), lambda x: -x / (0.25 + sigma**2)),
    }


@pytest.mark.parametrize("name", far_gradients())
def test_weights_sum_to_one_where_terms_tie_by_rounding(name: str) -> None:
    density, wanted = far_gradients()[name]
    for log_density in (
        density,
        lambda x: density(x),
    ):  # in closed form, and by automatic differentiation
        value, grad = value_and_grad(log_density, FAR)
        assert value.isfinite().all()
        torch.testing.assert_close(grad, wanted(FAR), rtol=1e-3, atol=0)


def test_the_score_of_a_teacher_is_that_of_its_density_far_out() -> None:
    teacher, t = (
        GaussianMixtureDenoiser(torch.full((4,), 0.25), CENTRES, torch.full((4,), 0.5), VE()),
        torch.tensor(0.1),
    )
    score = teacher.score(FAR, t)
    torch.testing.assert_close(
        value_and_grad(lambda x: teacher.log_prob(x, t), FAR)[1], score, rtol=1e-4, atol=0
    )


def test_a_density_of_no_mass_stays_minus_infinity() -> None:
    teacher = GaussianMixtureDenoiser(torch.ones(2), CENTRES[:2], torch.ones(2), VE())
    assert teacher.log_prob(torch.full((1, 2), 1e30), torch.tensor(0.0)).isneginf().all()


SAMPLERS = [
    Langevin(0.1, 2),
    MALA(0.1, 2),
    HMC(0.1, 2, 2),
    UnderdampedLangevin(0.1, 1.0, 2),
    GradientFlow(0.1),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_empty_batches(sampler: Sampler) -> None:
    base = GaussianPrior(2)
    model = LatentModel(
        EnergyPrior(EnergyMLP(2, (4,)), base, sampler), GaussianLikelihood(nn.Linear(2, 3), 0.5)
    )
    ratio = RatioPrior(base, [EnergyMLP(2, (4,)), EnergyMLP(2, (4,))], sampler)
    kernels = KernelPrior(CENTRES, 0.5)
    neighbours = NeighbourPrior(kernels, torch.zeros(4), 2, sampler)
    for prior in (base, model.prior, ratio, kernels, neighbours):
        assert prior.sample(0).shape == (0, 2)
        assert prior.log_density(torch.zeros(0, 2)).shape == (0,)
        with pytest.raises(ValueError, match="num must be an integer >= 0, got -1"):
            prior.sample(-1)
    assert model.sample(np.int64(0)).shape == (0, 3)  # pyright: ignore[reportArgumentType]
    amortized = AmortizedPosterior(nn.Linear(3, 4))
    mala = MALA(0.1, 1)  # the samplers of restarts leave their target invariant
    restarts = Restarts(mala, 3, 2, amortized)
    for posterior in (
        MCMCPosterior(sampler),
        MCMCPosterior(sampler, restarts),
        amortized,
        WarmStart(amortized, sampler),
        Restarts(mala, 3),
    ):
        assert posterior.sample(model, torch.zeros(0, 3)).shape == (0, 2)
    assert model.energy_terms(torch.zeros(0, 3), torch.zeros(0, 2)).joint.shape == (0,)


def test_terms_of_another_number_of_rows_are_refused() -> None:
    z, base, sampler = torch.zeros(4, 2), GaussianPrior(2), MALA(0.1, 1)
    energy, ratio = EnergyPrior(Column(), base, sampler), RatioPrior(base, [Column()], sampler)
    for call in (
        energy,
        energy.tilt,
        energy.value_and_grad,
        ratio,
        ratio.value_and_grad,
        lambda _: energy.sample(4),
    ):
        with pytest.raises(
            ValueError,
            match=r"(network|a stage|log_density) must return shape \(4,\).* got \(4, 1\)",
        ):
            call(z)


@pytest.mark.parametrize(
    "prior", [GaussianPrior(2), KernelPrior(CENTRES, 0.5)], ids=lambda p: type(p).__name__
)
def test_latents_of_another_width_are_refused(prior: GaussianPrior) -> None:
    for z in (torch.zeros(4, 1), torch.zeros(4, 3), torch.zeros(2)):
        for call in (prior, prior.log_density, prior.value_and_grad):
            with pytest.raises(ValueError, match=r"z must have shape \(batch, 2\), got"):
                call(z)


def gaps(num: Any) -> Any:
    return local_bandwidths(CENTRES, num)


NONE: Any = None


def mixture(
    weights: Any = (0.5, 0.5),
    means: Any = CENTRES[:2],
    scales: Any = (1.0, 1.0),
    labels: Any = None,
) -> GaussianMixtureDenoiser:
    return GaussianMixtureDenoiser(weights, means, scales, VE(), labels)


NAN = torch.where(torch.eye(4, 2) == 1, math.nan, CENTRES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianPrior(2.5), "GaussianPrior: dim must be an integer >= 1, got 2.5"),  # pyright: ignore
        (lambda: KernelPrior(NAN, 1.0), "exemplars must be finite: 2 of 4 rows are not"),
        (lambda: KernelPrior(CENTRES.long(), 1.0), "exemplars must be floating, got torch.int64"),
        (lambda: KernelPrior(CENTRES, math.inf), "bandwidth must be finite and positive, got"),
        (lambda: leave_one_out_bandwidth(NAN), "exemplars must be finite: 2 of 4 rows are not"),
        (lambda: leave_one_out_bandwidth(CENTRES, 0), "max_rows must be an integer >= 1, got 0"),
        (lambda: local_bandwidths(NAN, 2), "exemplars must be finite: 2 of 4 rows are not"),
        (lambda: gaps(2.5), "num_neighbours must be an integer >= 2, got 2.5"),
        (
            lambda: NeighbourPrior(
                KernelPrior(CENTRES, 1.0), torch.full((4,), math.nan), 2, MALA(0.1, 1)
            ),
            "log_heights must be finite",
        ),
        (lambda: mixture(means=NAN[:2]), "means must be finite, got"),
        (lambda: mixture(weights=(0.5, math.inf)), "weights must be positive, got"),
        (lambda: mixture(scales=(math.nan, 1.0)), "scales must be positive, got"),
        (lambda: mixture().sample(-1), "num must be an integer >= 0, got -1"),
        (
            lambda: mixture().sample(3, label=torch.zeros(2).long()),
            r"label must hold integers of shape \(3,\), got",
        ),
        (
            lambda: mixture().sample(3, label=torch.zeros(3)),
            "label must hold integers .* got torch.float32",
        ),
        (
            lambda: Preconditioned(nn.Identity(), VE(), data_scale=math.nan),
            "data_scale must be finite and positive",
        ),
        (
            lambda: ClassifierFree(mixture(), math.nan, UNKNOWN_LABEL),
            "weight must be finite, got nan",
        ),
        (
            lambda: GaussianLikelihood(nn.Identity(), math.nan),
            "scale must be finite and positive, got nan",
        ),
        (
            lambda: RatioPrior(GaussianPrior(2), [], MALA(0.1, 1)).append(EnergyMLP(2), math.nan),
            "weight must be finite",
        ),
        (
            lambda: RatioPrior(GaussianPrior(2), [], MALA(0.1, 1)).prefix(1),
            "num_stages must be at most 0",
        ),
    ],
)
def test_bad_arguments(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_data_that_are_not_finite_are_refused_before_a_chain() -> None:
    x = torch.zeros(4, 3)
    x[1, 2] = math.nan
    for likelihood in (
        GaussianLikelihood(nn.Linear(2, 3), 0.5),
        BernoulliLikelihood(nn.Linear(2, 3)),
    ):
        model = LatentModel(GaussianPrior(2), likelihood)
        with pytest.raises(ValueError, match="x must be finite: 1 of 12 entries are not"):
            MCMCPosterior(Langevin(0.1, 2)).sample(model, x)


def test_networks_of_the_wrong_shape() -> None:
    narrow = Preconditioned(nn.Linear(2, 1), VE())
    narrow.network.forward = lambda x, level: x[:, :1]  # type: ignore[method-assign]
    with pytest.raises(
        ValueError, match=r"network must return the shape \(4, 2\) of x_t, got \(4, 1\)"
    ):
        narrow(torch.zeros(4, 2), torch.tensor(0.5))
    with pytest.raises(
        ValueError,
        match=r"encoder must return shape \(batch, 2 dim\), mean and log std, got \(4, 5\)",
    ):
        AmortizedPosterior(nn.Linear(3, 5))(torch.zeros(4, 3))


def test_weights_of_numpy() -> None:
    assert ClassifierFree(mixture(), np.float32(2), UNKNOWN_LABEL).weight == 2.0  # pyright: ignore[reportArgumentType]
    assert GaussianPrior(np.int64(3)).sample(2, generator=seeded()).shape == (2, 3)  # pyright: ignore[reportArgumentType]


ROWS, POINTS = torch.ones(4), torch.zeros(4, 2)


def column(z: Tensor) -> Tensor:
    return z.square().sum(1, keepdim=True)


def plain_model() -> LatentModel:
    return LatentModel(GaussianPrior(2), GaussianLikelihood(nn.Linear(2, 3), 0.5))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            lambda: objectives.contrastive(column, POINTS, POINTS),
            r"log_density\(z_model\) must have shape \(4,\)",
        ),
        (
            lambda: objectives.divergence(Normal(POINTS, 1.0), column, POINTS),
            r"log_density\(z\) must have shape \(4,\)",
        ),
        (
            lambda: objectives.denoising(lambda x: x[:, :1], POINTS, ROWS, ROWS, ROWS),
            r"denoise\(x_t\) must have shape",
        ),
        (
            lambda: objectives.denoising(lambda x: x, POINTS, ROWS[:3], ROWS, ROWS),
            r"alpha must have shape \(4,\)",
        ),
        (
            lambda: objectives.regression(POINTS, POINTS[:1], ROWS),
            r"target must have shape \(4, 2\), got \(1, 2\)",
        ),
        (
            lambda: objectives.regression(POINTS, POINTS, ROWS[:, None]),
            r"weight must have shape \(4,\), got \(4, 1\)",
        ),
        (
            lambda: objectives.score_difference(POINTS, POINTS[:, :1], ROWS),
            r"gap must have shape \(4, 2\)",
        ),
        (
            lambda: objectives.negative_log_likelihood(per_row(Normal(POINTS, 1.0)), POINTS[:1]),
            "x must have shape",
        ),
        (
            lambda: objectives.vicreg(POINTS, POINTS[:1]),
            r"other must have shape \(4, 2\), got \(1, 2\)",
        ),
        (lambda: objectives.gradient_penalty(column, POINTS), r"logit must return shape \(4,\)"),
        (
            lambda: objectives.denoising_score_matching(column, POINTS, 0.5),
            r"log_density must return shape \(4,\)",
        ),
        (
            lambda: objectives.denoising_score_matching(column, POINTS, math.nan),
            "noise must be finite and positive",
        ),
        (
            lambda: objectives.gradient_penalty(lambda x: x.detach().sum(1), POINTS),
            "logit must return a value with a",
        ),
        (lambda: mixture(scales=(-1.0, 1.0)), "scales must be positive, got"),
        (lambda: mixture(labels=(0.0, 1.0)), "labels must be integers, got"),
        (
            lambda: EnergyPrior(EnergyMLP(2), GaussianPrior(2), NONE),
            "EnergyPrior: sampler must be a Sampler, got None",
        ),
        (
            lambda: plain_model().energy_terms(torch.zeros(1, 3), POINTS),
            r"x must have the shape \(4, 3\) of the likelihood",
        ),
        (
            lambda: Masked(GaussianLikelihood(nn.Linear(2, 3), 0.5), torch.ones(2).bool()).check(
                torch.zeros(4, 3)
            ),
            r"mask must broadcast to x, of shape \(4, 3\), got \(2,\)",
        ),
    ],
)
def test_losses_and_models_do_not_broadcast(loss: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss()
