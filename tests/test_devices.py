"""One step of everything on the device under test: as on the CPU in float64, in half precision,
and the same twice.

``pytest --device cuda tests/test_devices.py``; on the CPU these compare precisions alone.
"""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from latent_ebm import EnergyPrior, GaussianLikelihood, GaussianPrior, LatentModel
from latent_ebm.learning.base import LearningRule
from latent_ebm.networks import EnergyMLP
from samplers import (
    DDIM,
    Ancestral,
    Captured,
    Gaussian,
    Heun,
    Langevin,
    LowPrecision,
    Renoising,
    VPCosine,
)
from tests.latent_ebm.test_learning import RULES, data
from tests.noise import SharedNoise
from tests.samplers.table import TABLE, Row, seeded

DEVICE = torch.get_default_device()
EXACT = {"device": "cpu", "dtype": torch.float64}
TESTED = {"device": DEVICE, "dtype": torch.float32}
ALL_RULES = pytest.mark.parametrize("make", RULES.values(), ids=RULES.keys())


def distance(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over that of what is expected."""
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    return float((found - expected).norm() / expected.norm().clamp(min=1e-6))


def step(rule: LearningRule, **place: torch.dtype | torch.device | str) -> Tensor:
    """Losses and gradients of one step of a copy of ``rule``, with the noise that all share."""
    rule, x = copy.deepcopy(rule).to(**place), data(10).to(**place)
    index = torch.arange(10, device=x.device)
    with SharedNoise():
        losses = rule.losses((x, torch.zeros_like(index), index))
    total = torch.stack(
        [loss.float() if loss.dtype.itemsize < 4 else loss for loss in losses.values()]
    )
    parameters = [p for p in rule.parameters() if p.requires_grad]
    grads = torch.autograd.grad(total.sum(), parameters, allow_unused=True)
    return torch.cat([total, *(grad.flatten().to(total) for grad in grads if grad is not None)])


def built(make: Callable[[], LearningRule]) -> LearningRule:
    """The rule with weights of its own seed, in float32, as ``data`` are."""
    torch.manual_seed(0)
    return make()


@ALL_RULES
def test_a_step_is_that_of_float64_on_the_cpu(make: Callable[[], LearningRule]) -> None:
    rule = built(make)
    assert distance(step(rule, **TESTED), step(rule, **EXACT)) < 2e-3


@ALL_RULES
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_a_step_in_half_precision_is_close(
    make: Callable[[], LearningRule], dtype: torch.dtype
) -> None:
    rule = built(make)
    with torch.autocast(DEVICE.type, dtype):
        half = step(rule, **TESTED).detach().cpu()
    full = step(rule, **TESTED).detach().cpu()
    assert bool(torch.isfinite(half).all())
    assert float(torch.cosine_similarity(half, full, dim=0)) > 0.97
    assert 0.9 < float(half.norm() / full.norm()) < 1.1


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@ALL_RULES
def test_a_step_in_deterministic_mode_is_the_same_twice(
    make: Callable[[], LearningRule], deterministic: None
) -> None:
    rule = built(make)
    assert torch.equal(step(rule, **TESTED), step(rule, **TESTED))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_chain_is_that_of_float64_on_the_cpu(row: Row) -> None:
    def chain(**place: torch.dtype | torch.device | str) -> Tensor:
        target = Gaussian(
            torch.tensor([1.0, -2.0], **place), torch.tensor([[1.0, 1.6], [1.6, 4.0]], **place)
        )
        with SharedNoise():
            return row.sampler.sample(target, torch.randn(200, 2, **place))

    found, expected = chain(**TESTED).cpu().double(), chain(**EXACT)
    apart = (found - expected).abs().amax(1) > 1e-3  # a Metropolis test that rounding has turned
    assert float(apart.double().mean()) <= 0.01


@pytest.mark.parametrize("kind", [Ancestral, DDIM, Heun, Renoising])
def test_a_reverse_sampler_is_that_of_float64_on_the_cpu(kind: type) -> None:
    schedule = VPCosine(-10, 10)

    def generate(**place: torch.dtype | torch.device | str) -> Tensor:
        def denoise(x: Tensor, t: Tensor) -> Tensor:  # of N(0, 1) data
            alpha, sigma = (c.to(x).view(-1, 1) for c in schedule(t))
            return alpha * x / (alpha**2 + sigma**2)

        with SharedNoise():
            return kind(schedule, 5).sample(denoise, torch.randn(50, 3, **place))

    assert distance(generate(**TESTED), generate(**EXACT)) < 1e-3


def captured(sampler: Langevin | LowPrecision) -> tuple[list[Tensor], list[Tensor]]:
    """Four chains of an energy prior that learns in between, as they are and captured."""
    torch.manual_seed(0)
    prior = EnergyPrior(EnergyMLP(5, (16,)), GaussianPrior(5), sampler)
    start, found = prior.base.sample(30, generator=seeded()), []
    for kind in (sampler, Captured(sampler)):
        twin, generator = copy.deepcopy(prior), seeded(1)
        samples = []
        for _ in range(4):
            samples.append(kind.sample(twin, start, generator=generator))
            with torch.no_grad():
                for parameter in twin.parameters():
                    parameter.add_(0.1)
        found.append(samples)
    return found[0], found[1]


@pytest.mark.parametrize("low", [False, True], ids=["float32", "bf16"])
def test_a_captured_chain_is_the_plain_one(low: bool) -> None:
    sampler = Langevin(0.05, 6)
    for plain, replayed in zip(*captured(LowPrecision(sampler) if low else sampler), strict=True):
        assert torch.equal(plain, replayed)


def test_captured_posteriors_of_new_data_are_the_plain_ones() -> None:
    torch.manual_seed(0)
    prior = EnergyPrior(EnergyMLP(3, (8,)), GaussianPrior(3), Langevin(0.05, 2))
    model = LatentModel(prior, GaussianLikelihood(torch.nn.Linear(3, 4), 0.5))
    plain, replayed = Langevin(0.05, 4), Captured(Langevin(0.05, 4))
    for seed in range(4):
        x, z = torch.randn(6, 4), prior.base.sample(6)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=seed % 2 == 1):
            found = [
                sampler.sample(model.log_posterior(x), z, generator=seeded(seed))
                for sampler in (plain, replayed, replayed, replayed)
            ]
        assert all(torch.equal(found[0], other) for other in found[1:])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1)


def test_captured_forgets_what_it_recorded_when_copied() -> None:
    sampler = Captured(Langevin(0.05, 6))
    sampler.sample(GaussianPrior(2), torch.zeros(3, 2))
    twin = copy.deepcopy(sampler)
    assert twin == sampler
    assert len(twin.graphs) == 0
