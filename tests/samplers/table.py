"""The one table of samplers, and the z-tests that judge them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from samplers import (
    HMC,
    MALA,
    Annealed,
    Gaussian,
    GradientFlow,
    Langevin,
    ParallelTempering,
    Sampler,
    State,
    UnderdampedLangevin,
)
from samplers.base import Wrapper
from samplers.langevin import KineticState

Z_MAX = 4.8  # two-sided p-value 1.6e-6 of one number


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlated_gaussian() -> Gaussian:
    """Correlation 0.8 and scales 1 and 2, off centre."""
    return Gaussian(
        torch.tensor([1.0, -2.0]).double(), torch.tensor([[1.0, 1.6], [1.6, 4.0]]).double()
    )


def z_scores(values: Tensor, expected: Tensor) -> Tensor:
    """How many standard errors the column means of ``values`` (num, k) are away from ``expected``
    (k,).
    """
    return (values.mean(0) - expected) / (values.std(0) / len(values) ** 0.5)


def moment_z(x: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """Largest z-score among the first and second moments of ``x`` (num, dim), whitened by the
    expected ``covariance``.
    """
    tril = torch.linalg.cholesky(covariance)
    y = torch.linalg.solve_triangular(tril, (x - mean).mT, upper=False).mT
    i, j = torch.tril_indices(len(mean), len(mean))
    moments = torch.cat([y, y[:, i] * y[:, j]], 1)
    expected = torch.cat([torch.zeros_like(mean), (i == j).to(x)])
    return z_scores(moments, expected).abs().max().item()


def langevin_law(sampler: Langevin, target: Gaussian) -> Tensor:
    """Stationary covariance ``temperature P^-1 (I - step_size P / 2)^-1`` of unadjusted
    Langevin.
    """
    half = (
        torch.eye(len(target.mean), dtype=target.mean.dtype)
        - sampler.step_size / 2 * target.precision
    )
    return sampler.temperature * target.covariance @ torch.linalg.inv(half)


def baoab_law(sampler: UnderdampedLangevin, target: Gaussian) -> Tensor:
    """Stationary covariance of (position, momentum): the fixed point of ``C = M C M^T + N`` for
    the linear map M.
    """
    dim, h = len(target.mean), sampler.step_size
    eye, zero = torch.eye(dim).double(), torch.zeros(dim, dim).double()
    c = torch.tensor(-sampler.friction * h).double().exp()

    def block(a: Tensor, b: Tensor, d: Tensor, e: Tensor) -> Tensor:
        return torch.cat([torch.cat([a, b], 1), torch.cat([d, e], 1)])

    kick, drift = (
        block(eye, zero, -h / 2 * target.precision, eye),
        block(eye, h / 2 * eye, zero, eye),
    )
    linear = kick @ drift @ block(eye, zero, zero, c * eye) @ drift @ kick
    noise = kick @ drift @ block(zero, zero, zero, (1 - c**2) * eye) @ drift.mT @ kick.mT
    size = (2 * dim) ** 2
    return torch.linalg.solve(
        torch.eye(size).double() - torch.kron(linear, linear), noise.flatten()
    ).view(2 * dim, -1)


def law_start(row: "Row", target: Gaussian, num: int, generator: torch.Generator) -> Any:
    """A state at draws of the row's stationary distribution."""
    x = Gaussian(target.mean, row.law(row.sampler, target)).sample(num, generator=generator)
    return row.sampler.init(target, x, generator=generator)


def baoab_start(row: "Row", target: Gaussian, num: int, generator: torch.Generator) -> Any:
    mean = torch.cat([target.mean, torch.zeros_like(target.mean)])
    joint = Gaussian(mean, baoab_law(row.sampler, target)).sample(num, generator=generator)
    position, momentum = joint.split(len(target.mean), 1)
    return KineticState(position, *target.value_and_grad(position), momentum)


def tempering_start(row: "Row", target: Gaussian, num: int, generator: torch.Generator) -> Any:
    """Every replica at its own exact distribution, with ``covariance / beta``."""
    state: Any = law_start(row, target, num, generator)
    laws = [Gaussian(target.mean, target.covariance / beta) for beta in row.sampler.ladder]
    x = torch.cat([law.sample(num, generator=generator) for law in laws])
    value, grad = (
        torch.cat(ends)
        for ends in zip(
            *(law.value_and_grad(x[k * num : (k + 1) * num]) for k, law in enumerate(laws)),
            strict=True,
        )
    )
    replicas = State(x, value, grad)
    return state._replace(
        position=x[-num:], log_density=value[-num:], grad=grad[-num:], replicas=replicas
    )


def exact_law(sampler: Sampler, target: Gaussian) -> Tensor:
    return target.covariance


@dataclass(frozen=True)
class Row:
    """A sampler, with steps as large as it bears on ``correlated_gaussian``.

    ``law`` (sampler, target) -> the covariance of its stationary distribution: the target's,
    unless the sampler is unadjusted; None if there is none, and only the contract is tested.
    ``start`` (row, target, num, generator) -> a state at that distribution. A ``transient``
    sampler reaches the distribution, but does not keep it step by step.
    """

    name: str
    sampler: Any  # of its own class
    law: Callable[..., Tensor] | None = exact_law
    start: Callable[..., Any] = law_start
    transient: bool = False
    mixing_steps: int = 200

    def long(self) -> Sampler:
        """The sampler with enough steps to forget where it started."""
        return lengthened(self.sampler, self.mixing_steps)


def lengthened(sampler: Any, num_steps: int) -> Sampler:
    """``sampler`` with ``num_steps``, of the innermost one if it is a wrapper."""
    if isinstance(sampler, Wrapper):
        return replace(sampler, sampler=lengthened(sampler.sampler, num_steps))
    return replace(sampler, num_steps=num_steps)


LADDER = (0.1, 0.3, 1.0)

TABLE = [
    Row("langevin", Langevin(0.2, 6), langevin_law),
    Row("langevin_hot", Langevin(0.2, 6, temperature=2.0), langevin_law),
    Row("mala", MALA(0.3, 6)),
    Row("underdamped", UnderdampedLangevin(0.8, 1.0, 6), start=baoab_start),
    Row("hmc", HMC(0.7, 3, 6)),
    Row("tempering_mala", ParallelTempering(MALA(0.3, 6), LADDER), start=tempering_start),
    Row("tempering_hmc", ParallelTempering(HMC(0.7, 3, 6), LADDER), start=tempering_start),
    Row("annealed", Annealed(MALA(0.3, 6), LADDER), transient=True),
    Row("gradient_flow", GradientFlow(1.0, "rk4", 6), law=None),
]
CHAINS = [row for row in TABLE if row.law is not None]
